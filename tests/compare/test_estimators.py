"""The comparison of estimators against what is known of them."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

import pyrovae as pv
from pyrovae import estimators, log_marginal
from pyrovae.compare import EstimatorComparison, compare_estimators
from pyrovae.compare.gradients import parameter_groups, squared_norm
from pyrovae.estimators import (
    ELBO,
    IWAE,
    MIWAE,
    RWS,
    STL,
    STLIWAE,
    TVO,
    VIMCO,
    AnalyticKL,
    DReG,
    ScoreELBO,
)
from pyrovae.programs import parameters_of
from pyrovae.testing import DiscreteMixture, LinearGaussian

STOCK = {"max_plate_nesting": 1, "vectorize_particles": True}


@pytest.fixture(scope="module")
def spoilt():
    oracle = LinearGaussian(shift=0.5, stretch=1.3)
    x = oracle.sample(3).repeat(
        10, 1
    )  # copies make one gradient less noisy, so that fewer replicates do
    named = {
        "ELBO": ELBO(2),
        "AnalyticKL": AnalyticKL(2),
        "STL": STL(2),
        "IWAE": IWAE(8),
        "DReG": DReG(8),
        "STLIWAE": STLIWAE(8),
        "VIMCO": VIMCO(8),
        "Pyro": Trace_ELBO(num_particles=2, **STOCK),
        "Pyro, Renyi": RenyiELBO(alpha=0, num_particles=8, **STOCK),
    }
    table = compare_estimators(
        oracle.model,
        oracle.guide,
        x,
        named,
        num_replicates=80,
        reference_particles=500,
        reference=oracle.log_prob(x),
    )
    return oracle, x, table


def test_bounds_and_biases_are_the_exact_ones(spoilt):
    oracle, x, table = spoilt
    data = table.dataset
    elbo = (oracle.log_prob(x) - oracle.kl_to_posterior(x)).mean().item()
    for name in ("ELBO", "AnalyticKL", "STL", "Pyro"):
        row = data.sel(estimator=name)
        assert abs(float(row["bound"]) - elbo) < 4 * float(row["bound_error"])
        assert float(row["bias"]) == pytest.approx(
            float(row["bound"]) - oracle.log_prob(x).mean().item()
        )
    assert data.attrs["log_marginal_error"] == 0.0


def test_stock_pyro_has_the_numbers_of_its_equal(spoilt):
    """The same seed makes the same draws."""
    _, _, table = spoilt
    for stock, ours in (("Pyro", "ELBO"), ("Pyro, Renyi", "IWAE")):
        for variable in (
            "bound",
            "bound_error",
            "gradient_norm",
            "gradient_variance",
            "snr",
            "decoder_evaluations",
        ):
            left, right = (
                table.dataset[variable].sel(estimator=name).values for name in (stock, ours)
            )
            np.testing.assert_allclose(left, right, rtol=1e-6)


def test_gradient_norms_are_the_exact_ones(spoilt):
    oracle, x, table = spoilt
    exact = (oracle.log_prob(x) - oracle.kl_to_posterior(x)).mean()
    found = dict(
        zip(
            (n for n, _ in oracle.named_parameters()),
            torch.autograd.grad(exact, list(oracle.parameters())),
            strict=True,
        )
    )
    guide = ("gain", "offset", "log_scale")
    norms = {
        "guide": math.sqrt(sum(found[n].square().sum().item() for n in guide)),
        "model": math.sqrt(
            sum(g.square().sum().item() for n, g in found.items() if n not in guide)
        ),
    }
    for name in ("AnalyticKL", "STL"):
        row = table.dataset.sel(estimator=name)
        for group, norm in norms.items():
            error = math.sqrt(float(row["gradient_variance"].sel(group=group)) / 80)
            assert abs(float(row["gradient_norm"].sel(group=group)) - norm) < 4 * error


def test_only_the_biased_gradient_is_called_biased(spoilt):
    z = spoilt[2].dataset["gradient_bias_z"]
    for name in ("STL", "AnalyticKL", "DReG", "VIMCO"):
        assert (np.abs(z.sel(estimator=name)) < 4).all()
    assert float(z.sel(estimator="STLIWAE", group="guide")) > 4
    assert np.isnan(z.sel(estimator=["ELBO", "IWAE", "Pyro"])).all()


def test_model_gradients_are_held_against_the_evidence(spoilt):
    data = spoilt[2].dataset
    assert float(data["evidence_bias_z"].sel(estimator="ELBO", group="model")) > 4
    assert float(data["evidence_bias"].sel(estimator="ELBO", group="model")) > 0.1
    assert np.isnan(data["evidence_bias"].sel(group="guide")).all()
    off = data["evidence_bias"].sel(group="model")
    assert float(off.sel(estimator="IWAE")) < float(off.sel(estimator="ELBO")) / 2


def test_costs_are_counted(spoilt):
    data = spoilt[2].dataset
    assert list(data["draws"].sel(estimator=["ELBO", "DReG", "Pyro, Renyi"])) == [2, 8, 8]
    assert list(data["decoder_evaluations"].sel(estimator=["ELBO", "DReG", "Pyro"])) == [
        60,
        240,
        60,
    ]
    repeats = float(data["seconds"].max()) / data["seconds"]
    np.testing.assert_allclose(
        data["snr_equal_cost"].sel(group="guide"), data["snr"].sel(group="guide") * repeats**0.5
    )


def test_sleep_counts_its_dreams():
    oracle = LinearGaussian()
    x = oracle.sample(3)
    found = compare_estimators(
        oracle.model,
        oracle.guide,
        x,
        {"wake": RWS(5), "sleep": RWS(5, update="sleep")},
        num_replicates=4,
        reference=0.0,
    )
    assert list(found.dataset["draws"]) == [5, 5]


@pytest.fixture(scope="module")
def sweep():
    oracle = LinearGaussian(shift=0.3, stretch=1.15)
    x = oracle.sample(2).repeat(150, 1)
    named = {
        "IWAE": IWAE(),
        "DReG": DReG(),
        "VIMCO": VIMCO(),
        "MIWAE": MIWAE(2, 1),
        "Pyro": Trace_ELBO(),
    }
    counts = (1, 4, 16)
    return compare_estimators(
        oracle.model,
        oracle.guide,
        x,
        named,
        num_particles=counts,
        num_replicates=60,
        reference=oracle.log_prob(x),
        gradient_reference=False,
    )


def test_slopes_of_signal_to_noise_follow_the_law(sweep):
    slopes = sweep.slopes()
    # The guide's ratio of IWAE is near 0.5 at 16 particles, known to 1 / sqrt(60): its slope to
    # about 0.15.
    assert -1.0 < float(slopes.sel(estimator="IWAE", group="guide")) < -0.2
    assert float(slopes.sel(estimator="DReG", group="guide")) > 0.2
    for name in ("IWAE", "DReG", "Pyro"):
        assert float(slopes.sel(estimator=name, group="model")) == pytest.approx(0.5, abs=0.15)


def test_a_sweep_gives_each_the_same_draws_or_none(sweep):
    data = sweep.dataset
    assert list(data["draws"].sel(estimator="MIWAE", num_particles=[4, 16])) == [4, 16]
    assert np.isnan(data["bound"].sel(estimator=["VIMCO", "MIWAE"], num_particles=1)).all()
    assert list(data["decoder_evaluations"].sel(estimator="Pyro")) == [300, 1_200, 4_800]


def test_slopes_need_a_sweep(spoilt):
    with pytest.raises(ValueError, match="Slopes need a sweep"):
        spoilt[2].slopes()


def test_repr_shows_a_row_for_each(spoilt, sweep):
    lines = repr(spoilt[2]).splitlines()
    row = next(line for line in lines if line.startswith("DReG"))
    assert f"{float(spoilt[2].dataset['bound'].sel(estimator='DReG')):.4f}" in row
    assert repr(sweep).count("DReG") == 3


def test_a_notebook_shows_a_table_for_each_number_of_particles(spoilt, sweep):
    row = spoilt[2].dataset.sel(estimator="DReG")
    html = spoilt[2]._repr_html_()
    assert f">{float(row['bound']):.4f}</td>" in html
    assert ">SNR guide</th>" in html
    assert sweep._repr_html_().count("<caption") == 3
    assert "; 4 particles</caption>" in sweep._repr_html_()


def test_figure_draws_every_estimator(spoilt, sweep):
    plt = pytest.importorskip("matplotlib.pyplot")
    axes = sweep.plot()
    labels = {line.get_label() for axis in axes for line in axis.get_lines()}
    assert {"IWAE", "DReG", "VIMCO", "MIWAE", "Pyro"} <= labels
    bias, seconds, _, snr = axes
    assert [bias.get_yscale(), seconds.get_yscale(), snr.get_yscale()] == ["linear", "log", "log"]
    assert snr.get_xscale() == "log"
    drawn = {line.get_label(): line for line in snr.get_lines()}["DReG"]
    np.testing.assert_allclose(
        drawn.get_ydata(), sweep.dataset["snr"].sel(estimator="DReG", group="guide")
    )
    # Lines that fall on one another stand aside: no two have the same place.
    places = [tuple(line.get_xdata()) for line in snr.get_lines()]
    assert len(set(places)) == len(places)
    beside = spoilt[2].plot()
    errors = beside[0].containers[0][0]
    np.testing.assert_allclose(errors.get_xdata(), spoilt[2].dataset["bias"])
    assert [label.get_text() for label in beside[0].get_yticklabels()] == [
        str(name) for name in spoilt[2].dataset["estimator"].values
    ]
    plt.close("all")


def test_saved_and_loaded_are_equal(spoilt, tmp_path):
    spoilt[2].save(tmp_path / "table.nc")
    again = EstimatorComparison.load(tmp_path / "table.nc")
    assert again.dataset.identical(spoilt[2].dataset)
    assert repr(again) == repr(spoilt[2])


def test_layers_are_told_apart():
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.top, self.down, self.out = (
                nn.Parameter(torch.tensor(0.5).double()) for _ in range(4)
            )

        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                z2 = pyro.sample("z2", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
                z1 = pyro.sample("z1", dist.Normal(self.down * z2, 1.0))
                pyro.sample("x", dist.Normal(self.out * z1, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                z1 = pyro.sample("z1", dist.Normal(self.up * x, 0.7))
                pyro.sample("z2", dist.Normal(self.top * z1, 0.7))

    module, x = Layers(), torch.tensor([1.0, -0.5], dtype=torch.float64)
    found = compare_estimators(
        module.model, module.guide, x, {"ELBO": ELBO()}, num_replicates=8, reference=0.0
    ).dataset
    assert set(found["group"].values) == {
        "model",
        "guide",
        "guide:z1",
        "guide:z2",
        "model:z1",
        "model:likelihood",
    }
    variance = found["gradient_variance"].sel(estimator="ELBO")
    assert float(variance.sel(group=["guide:z1", "guide:z2"]).sum()) == pytest.approx(
        float(variance.sel(group="guide"))
    )
    parts = variance.sel(group=["model:z1", "model:likelihood"])
    assert float(parts.sum()) == pytest.approx(float(variance.sel(group="model")))


def test_parameters_that_a_prior_shares_with_the_guide_are_the_guides():
    vae = pv.VAE(
        4, 2, prior=pv.priors.Vamp(num_components=3), encoder=pv.nets.MLP(5), decoder=pv.nets.MLP(5)
    )
    x = torch.ones(2, 4)
    parameters = parameters_of(vae.model, vae.guide, x)
    groups = parameter_groups(vae.model, vae.guide, (x,), parameters, 1)

    def of(*modules):
        wanted = {id(p) for module in modules for p in module.parameters()}
        return sorted(i for i, p in enumerate(parameters) if id(p) in wanted)

    assert groups["guide"] == of(vae.posterior)
    assert groups["model"] == of(vae.likelihood, vae.prior)
    assert groups["model:z"] == of(vae.posterior, vae.prior)
    assert groups["model:likelihood"] == of(vae.likelihood)


def test_discrete_sites_and_the_default_reference():
    oracle = DiscreteMixture()
    x = oracle.sample(4)
    named = {"score": ScoreELBO(4), "VIMCO": VIMCO(4), "RWS": RWS(4), "TVO": TVO(4)}
    table = compare_estimators(
        oracle.model, oracle.guide, x, named, num_replicates=40, reference_particles=2_000
    )
    assert table.dataset.attrs["log_marginal"] == pytest.approx(
        oracle.log_prob(x).mean().item(), abs=4 * table.dataset.attrs["log_marginal_error"]
    )
    assert np.isnan(table.dataset["gradient_bias"].sel(estimator=["VIMCO", "RWS", "TVO"])).all()
    assert abs(float(table.dataset["gradient_bias_z"].sel(estimator="score", group="guide"))) < 4


def test_evidence_is_taken_as_reference():
    oracle = LinearGaussian()
    x = oracle.sample(3)
    evidence = log_marginal(oracle.model, oracle.guide, x, num_particles=50)
    found = compare_estimators(
        oracle.model,
        oracle.guide,
        x,
        {"IWAE": IWAE(3)},
        num_replicates=4,
        reference=evidence,
        gradient_reference=False,
    )
    assert found.dataset.attrs["log_marginal"] == evidence.mean()


def test_same_seed_same_numbers_and_no_trace_left_behind():
    oracle = LinearGaussian(shift=0.3)
    x = oracle.sample(3)
    oracle.train()
    oracle.weight.grad = torch.ones_like(oracle.weight)
    state = torch.get_rng_state()
    tables = [
        compare_estimators(
            oracle.model,
            oracle.guide,
            x,
            {"a": DReG(3), "b": RenyiELBO(num_particles=3)},
            num_replicates=6,
            seed=1,
        ).dataset.drop_vars(["seconds", "snr_equal_cost", "bound_error_equal_cost"])
        for _ in range(2)
    ]
    assert tables[0].identical(tables[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(oracle.weight.grad, torch.ones_like(oracle.weight))
    assert oracle.gain.grad is None
    assert oracle.training


def test_squared_norm_is_unbiased():
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(2_000):
        blocks = [
            torch.randn(10, 3, generator=generator).double() + 0.3,
            torch.randn(10, generator=generator).double(),
        ]
        found.append(squared_norm(blocks))
    values, errors = torch.tensor(found).double().T
    truth = 3 * 0.3**2
    assert abs(values.mean() - truth) < 4 * values.std() / 2_000**0.5
    # The jackknife of a statistic of pairs errs on the safe side.
    assert 1.0 < (errors.square().mean().sqrt() / values.std()) < 1.3


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"estimators": {}}, ValueError, "at least one estimator"),
        ({"estimators": [ELBO()]}, TypeError, "takes a mapping .*found list"),
        ({"estimators": {"ELBO": ELBO}}, TypeError, "must be an instance"),
        ({"num_replicates": 3}, ValueError, "at least 4"),
        ({"reference": [0.0, 0.0]}, ValueError, "one for each of 3 data"),
    ],
)
def test_bad_arguments_are_refused(options, error, words):
    oracle = LinearGaussian()
    given = {"estimators": {"ELBO": estimators.ELBO()}, "num_replicates": 4, **options}
    with pytest.raises(error, match=words):
        compare_estimators(oracle.model, oracle.guide, oracle.sample(3), **given)


def test_stock_analytic_elbo_is_accepted():
    oracle = LinearGaussian(shift=0.3)
    x = oracle.sample(2)
    named = {"ours": AnalyticKL(), "Pyro": TraceMeanField_ELBO(**STOCK)}
    data = compare_estimators(
        oracle.model, oracle.guide, x, named, num_replicates=8, reference=0.0
    ).dataset
    np.testing.assert_allclose(
        data["bound"].sel(estimator="ours"), data["bound"].sel(estimator="Pyro"), rtol=1e-6
    )


@pytest.mark.parametrize("count", [0, -1, [1, 0], [], 2.5])
def test_numbers_of_particles_are_positive(count):
    owner = LinearGaussian()
    with pytest.raises(ValueError, match="num_particles must be a positive integer or several"):
        compare_estimators(
            owner.model,
            owner.guide,
            owner.sample(3),
            {"ELBO": estimators.ELBO()},
            num_particles=count,
        )


def test_a_table_without_a_number_is_refused():
    owner = LinearGaussian()
    with pytest.raises(ValueError, match="None of VIMCO can make 1 draws; give more num_particles"):
        compare_estimators(
            owner.model,
            owner.guide,
            owner.sample(3),
            {"VIMCO": estimators.VIMCO()},
            num_particles=1,
        )

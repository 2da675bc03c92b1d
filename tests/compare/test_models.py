"""Paired comparison of models, against differences that are known."""

import math

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.compare import compare_models, pairs
from pyrovae.evidence import Evidence
from pyrovae.testing import LinearGaussian


def made(values, error=0.0, data="same", **attributes) -> Evidence:
    values = np.asarray(values, float)
    columns = {
        "log_marginal": values,
        "standard_error": np.full(len(values), error),
        "pareto_k": np.full(len(values), 0.2),
    }
    return Evidence.from_columns(columns, data=data, **attributes)


def test_differences_are_paired():
    """Data differ by 30 nats among themselves, models by 0.5 on each of them, up to 0.1."""
    generator = np.random.default_rng(0)
    hard = 30 * generator.standard_normal(400)
    noise = 0.1 * generator.standard_normal(400)
    table = compare_models({"worse": made(hard), "better": made(hard + 0.5 + noise)})
    assert table.best == "better"
    row = table.dataset.sel(model="better", reference="worse")
    assert float(row["difference"]) == pytest.approx(0.5 + noise.mean())
    assert float(row["standard_error"]) == pytest.approx(noise.std(ddof=1) / 20)
    assert float(row["lower"]) == pytest.approx(
        0.5 + noise.mean() - 1.96 * noise.std(ddof=1) / 20, rel=1e-4
    )
    assert float(row["probability"]) > 0.999
    back = table.dataset.sel(model="worse", reference="better")
    assert float(back["difference"]) == -float(row["difference"])
    assert float(back["probability"]) == pytest.approx(1 - float(row["probability"]))
    assert "better" in repr(table)


def test_the_probability_makes_the_allowances_of_the_interval():
    """Where the interval holds zero, because a poor guide may have missed weights, neither side is
    the better with a probability of 0.975; where it does not, one is.
    """
    oracle = LinearGaussian(data_dim=6, latent_dim=3, orthogonal=False, shift=1.0, stretch=0.9)
    evidence = pv.log_marginal(oracle.model, oracle.guide, oracle.sample(40), num_particles=400)
    error, found = evidence.monte_carlo_error(), set()
    for mean in np.linspace(-20, 20, 101) * error:
        pair = pairs.within(mean, error, 39, 0.95, [[evidence], [evidence]])
        inside = pair.lower <= 0 <= pair.upper
        assert inside == (0.025 <= pair.probability <= 0.975) == (pair.p_value >= 0.05)
        found.add((inside, abs(mean) > 2.1 * error))  # by chance alone, 2.02 errors decide
    assert found == {(True, False), (True, True), (False, True)}


def test_large_differences_do_not_underflow():
    """Weights exp(elpd) would give both models one half."""
    table = compare_models({"a": made(np.full(50, -90.0)), "b": made(np.linspace(-310, -300, 50))})
    assert float(table.dataset["probability"].sel(model="a", reference="b")) == 1.0


@pytest.mark.parametrize("prob", [0.5, 0.9])
def test_interval_covers_the_true_difference_as_often_as_it_says(prob):
    generator = np.random.default_rng(1)
    hits, runs = 0, 600
    for _ in range(runs):
        shared = generator.normal(-90, 10, 40)
        table = compare_models(
            {"a": made(shared + generator.normal(0.3, 0.5, 40)), "b": made(shared)}, prob=prob
        ).dataset.sel(model="a", reference="b")
        hits += float(table["lower"]) <= 0.3 <= float(table["upper"])
    # Three binomial errors, and a normal for a t of 39 degrees of freedom.
    assert abs(hits / runs - prob) < 3 * math.sqrt(prob * (1 - prob) / runs) + 0.012


def test_errors_split():
    values = np.random.default_rng(2).normal(size=100)
    models = {
        "a": made(values + np.random.default_rng(3).normal(size=100), error=0.6),
        "b": made(values, error=0.8),
    }
    found = {
        error: float(
            compare_models(models, error=error)
            .dataset["standard_error"]
            .sel(model="a", reference="b")
        )
        for error in ("monte_carlo", "test_set", "both")
    }
    assert found["monte_carlo"] == pytest.approx(0.1)  # sqrt(0.36 + 0.64) / sqrt(100)
    # The spread of the differences holds the Monte Carlo noise of each: nothing is added to it or
    # taken away.
    expected = (models["a"].log_marginal - models["b"].log_marginal).std(ddof=1) / 10
    assert found["both"] == found["test_set"] == pytest.approx(float(expected))


def evaluated(oracle, x, num_particles=100, seed=0, **options):
    return pv.log_marginal(
        oracle.model, oracle.guide, x, num_particles=num_particles, seed=seed, **options
    )


def runs_of(evidence, size):
    return [
        Evidence(evidence.dataset.isel(datum=slice(start, start + size)))
        for start in range(0, len(evidence), size)
    ]


def test_monte_carlo_noise_of_one_seed_cancels():
    """With orthogonal columns and one seed both models get the same noise, which leaves no error in
    the difference.
    """
    one, two = LinearGaussian(shift=0.4), LinearGaussian(shift=0.4, noise=0.8)
    x = one.sample(30)
    exact = (one.log_prob(x) - two.log_prob(x)).mean().item()
    for seed, least, most in ((0, 0.0, 1e-10), (1, 1e-3, 1.0)):
        models = {"one": evaluated(one, x), "two": evaluated(two, x, seed=seed)}
        row = compare_models(models, error="monte_carlo").dataset.sel(model="one", reference="two")
        assert least <= float(row["standard_error"]) < most
        assert float(row["lower"]) <= exact <= float(row["upper"])


@pytest.mark.parametrize("seed", [0, 1], ids=["same seed", "other seed"])
@pytest.mark.parametrize("error", ["both", "test_set", "monte_carlo"])
def test_intervals_of_evaluated_models_cover(error, seed):
    """120 runs of 60 data at K = 200; the true mean difference is KL(one || two), or that of the
    run's own data.

    What may be missing: three binomial errors (6 points) and, where data vary, one point, by which
    a t interval of 60 differences with skewness -1.5 misses .95 (0.944 in 20,000 runs with exact
    log p(x)).
    """
    spoil, runs = {"shift": 0.7, "stretch": 1.1, "orthogonal": False}, 120
    one, two = LinearGaussian(**spoil), LinearGaussian(noise=0.8, **spoil)
    x = one.sample(60 * runs, seed=3)
    sides = evaluated(one, x, 200), evaluated(two, x, 200, seed)
    with torch.no_grad():
        exact = (one.log_prob(x) - two.log_prob(x)).reshape(runs, 60).mean(1).numpy()
        laws = [
            torch.distributions.MultivariateNormal(
                o.bias, o.weight @ o.weight.T + o.log_noise.exp() ** 2 * torch.eye(5).double()
            )
            for o in (one, two)
        ]
    truth = (
        exact
        if error == "monte_carlo"
        else np.full(runs, torch.distributions.kl_divergence(*laws).item())
    )
    hits = 0
    for first, second, value in zip(*(runs_of(side, 60) for side in sides), truth, strict=True):
        table = compare_models({"one": first, "two": second}, error=error).dataset
        row = table.sel(model="one", reference="two")
        hits += float(row["lower"]) <= value <= float(row["upper"])
    assert hits / runs > 0.95 - 0.01 - 3 * math.sqrt(0.95 * 0.05 / runs)


def test_unequal_effort_is_refused_and_shown():
    """A model compared with itself at K = 100 and 5,000 came out better with P = 1e-8."""
    oracle = LinearGaussian(shift=1.0)
    x = oracle.sample(100)
    models = {"few": evaluated(oracle, x, 100), "many": evaluated(oracle, x, 5000)}
    with pytest.raises(ValueError, match="allow_unequal_effort=True"):
        compare_models(models)
    table = compare_models(models, allow_unequal_effort=True)
    assert "num_particles=5000" in repr(table)
    assert "methods or effort differ" in repr(table)
    row = table.dataset.sel(model="many", reference="few")
    assert float(row["lower"]) <= 0  # the allowance for bias makes up for the difference in effort
    annealed = evaluated(oracle, x[:3], None, method=pv.AIS(3, 30, start="guide"))
    with pytest.raises(ValueError, match="AIS"):
        compare_models({"is": evaluated(oracle, x[:3]), "ais": annealed})


def test_an_unknown_side_makes_the_difference_unknown():
    good, bad = LinearGaussian(), LinearGaussian(stretch=0.3)
    x = good.sample(50)
    models = {"good": evaluated(good, x), "bad": evaluated(bad, x)}
    assert models["bad"].unknown
    for error in ("both", "monte_carlo"):
        table = compare_models(models, error=error)
        row = table.dataset.sel(model="good", reference="bad")
        assert (float(row["lower"]), float(row["upper"])) == (-math.inf, math.inf)
        assert math.isnan(float(row["probability"]))
        assert "unknown" in repr(table)
    row = compare_models(models, error="test_set").dataset.sel(model="good", reference="bad")
    assert math.isfinite(float(row["upper"]))


def test_the_table_names_method_and_scope():
    oracle = LinearGaussian()
    x = oracle.sample(5)
    text = repr(compare_models({"a": evaluated(oracle, x), "b": evaluated(oracle, x, seed=1)}))
    assert "ImportanceSampling(num_particles=100)" in text
    assert "these weights" in text


def test_evaluated_models():
    good, bad = LinearGaussian(), LinearGaussian(seed=1)
    x = good.sample(200)
    evidence = {
        name: pv.log_marginal(m.model, m.guide, x, num_particles=50)
        for name, m in {"bad": bad, "good": good}.items()
    }
    table = compare_models(evidence)
    expected = (good.log_prob(x) - bad.log_prob(x)).mean().item()
    assert table.best == "good"
    # Both guides are exact, so both estimates are.
    assert float(table.dataset["difference"].sel(model="good", reference="bad")) == pytest.approx(
        expected
    )


def test_refuses_what_cannot_be_compared():
    oracle = LinearGaussian()
    x = oracle.sample(5)
    first = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=5)
    other = pv.log_marginal(oracle.model, oracle.guide, x + 1, num_particles=5)
    moved = pv.log_marginal(oracle.model, oracle.guide, x.flip(0), num_particles=5)
    with pytest.raises(ValueError, match="different data"):
        compare_models({"a": first, "b": other})
    with pytest.raises(ValueError, match="different data"):
        compare_models({"a": first, "b": moved})
    with pytest.raises(ValueError, match="two models or more"):
        compare_models({"a": first})
    with pytest.raises(TypeError, match="must be an Evidence"):
        compare_models({"a": first, "b": 3.0})
    with pytest.raises(ValueError, match="bound"):
        compare_models({"a": made([0.0]), "b": made([0.0], bound="upper")})
    with pytest.raises(ValueError, match="prob"):
        compare_models({"a": first, "b": first}, prob=1.0)
    with pytest.raises(ValueError, match="error must be"):
        compare_models({"a": first, "b": first}, error="none")


def evidence_of(likelihood, **options):
    torch.manual_seed(0)
    parts = {"encoder": pv.nets.MLP(4), "decoder": pv.nets.MLP(4)}
    vae = pv.VAE(3, latent_dim=1, likelihood=likelihood, **parts)
    model, guide = vae.programs
    if options:
        pair = pv.VariationalDequantization(model, guide, 3, **options)
        model, guide = pair.model, pair.guide
    x = torch.linspace(0, 1, 4)[:, None].expand(4, 3)
    return pv.log_marginal(model, guide, x, num_particles=3)


def test_a_probability_is_not_compared_with_a_density(tmp_path):
    """On the same data by the same method: only what the numbers are tells them apart."""
    found = {
        "levels": evidence_of(pv.likelihoods.DiscretizedLogistic(num_levels=4)),
        "dequantised": evidence_of(pv.likelihoods.Gaussian(), num_levels=4),
        "density": evidence_of(pv.likelihoods.Gaussian()),
    }
    for name, evidence in found.items():
        evidence.save(tmp_path / f"{name}.nc")
    found = {name: Evidence.load(tmp_path / f"{name}.nc") for name in found}
    measures = {name: evidence.measure for name, evidence in found.items()}
    assert measures == {
        "levels": "probability",
        "dequantised": "probability",
        "density": "density",
    }
    with pytest.raises(ValueError, match="'levels' gives x a probability and 'density' a density"):
        compare_models({name: found[name] for name in ("levels", "density")})
    assert compare_models({name: found[name] for name in ("levels", "dequantised")})
    del found["levels"].dataset.attrs["measure"]  # a file of an earlier version
    assert found["levels"].measure == ""
    assert compare_models({name: found[name] for name in ("levels", "density")})


def test_a_method_without_a_diagnosis_has_no_share_of_poor_estimates():
    columns = {"log_marginal": np.zeros(4), "standard_error": np.ones(4)}
    plain = Evidence.from_columns(columns, data="same")
    assert math.isnan(plain.share_flagged)
    row = repr(compare_models({"diagnosed": made(np.ones(4)), "plain": plain})).splitlines()[3]
    assert row.split()[0] == "plain"
    assert "?" in row.split()

"""Tables of mixed columns: densities against SciPy, exact marginals, and declarations."""

import copy
import math
import pickle

import numpy as np
import pyro
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets
from pyrovae.likelihoods import (
    Bernoulli,
    Categorical,
    Columns,
    Gamma,
    Gaussian,
    LogNormal,
    NegativeBinomial,
    Poisson,
    StudentT,
)
from pyrovae.testing import quadrature

F64 = torch.float64


def mixed(**arguments):
    return Columns(
        {
            "age": Gaussian(0.5), "size": StudentT(3.0, 2.0), "sex": Bernoulli(),
            "visits": Poisson(link="exp"), "stays": NegativeBinomial(0.7, link="exp"),
            "blood": Categorical(4), "cost": LogNormal(0.4), "pair": Gamma(1.5),
        },
        blocks={"pair": ["first", "second"]}, units={"age": (40.0, 12.0), "cost": (0.0, 1000.0)},
        **arguments,
    )  # fmt: skip


ROW = torch.tensor([33.0, -1.5, 1.0, 2.0, 5.0, 2 / 3, 700.0, 0.3, 4.0], dtype=F64)


def make(likelihood, latent_dim=2, seed=0, **kwargs):
    pyro.set_rng_seed(seed)
    recipes = {"encoder": nets.MLP(6), "decoder": nets.MLP(6, activation="tanh"), **kwargs}
    vae = pv.VAE(likelihood.data_shape, latent_dim, likelihood=likelihood, **recipes).double()
    with torch.no_grad():
        for parameter in vae.likelihood.decoder.parameters():
            parameter *= 2  # a likelihood that depends on z
    return vae.eval()


def by_scipy(outputs, row):
    """The log-density of each column at the decoder's outputs, written out."""
    o, x = outputs.tolist(), row.tolist()
    p = 1 / (1 + math.exp(-o[2]))
    theta = 1 / 0.7
    shares = np.exp(o[5:9]) / np.exp(o[5:9]).sum()
    gamma = [stats.gamma(1.5, scale=math.exp(o[10 + i]) / 1.5).logpdf(x[7 + i]) for i in range(2)]
    return [
        stats.norm(40 + 12 * o[0], 12 * 0.5).logpdf(x[0]),
        stats.t(3.0, o[1], 2.0).logpdf(x[1]),
        stats.bernoulli(p).logpmf(x[2]),
        stats.poisson(math.exp(o[3])).logpmf(x[3]),
        stats.nbinom(theta, theta / (theta + math.exp(o[4]))).logpmf(x[4]),
        math.log(shares[2]),
        stats.lognorm(0.4, scale=1000 * math.exp(o[9])).logpdf(x[6]),
        *gamma,
    ]


def test_a_row_has_the_sum_of_the_densities_of_its_cells():
    vae = make(mixed())
    z = torch.randn(3, 2, dtype=F64)
    outputs = vae.likelihood.decoder(z)
    found = vae.likelihood(z).log_prob(ROW.expand(3, -1))
    cells = torch.tensor([by_scipy(o, ROW) for o in outputs], dtype=F64)
    assert outputs.shape == (3, 12)
    # SciPy's own densities are good to some 1e-12.
    assert_close(found, cells.sum(-1), rtol=1e-10, atol=1e-10)
    assert_close(vae.likelihood(z).base_dist.log_prob(ROW), cells, rtol=1e-10, atol=1e-10)


def test_a_hidden_cell_counts_nothing():
    vae = make(mixed(missing=True))
    x = ROW.repeat(2, 1)
    x[1, [0, 5, 8]] = math.nan
    filled, mask = vae.read(x)
    torch.manual_seed(0)
    model, guide = vae.programs
    particles = pv.particles.draw(model, guide, 4, (filled, mask))
    z = particles.latents["z"].value
    cells = vae.likelihood(z).base_dist.log_prob(filled)
    expected = (cells * mask).sum(-1) + vae.prior().log_prob(z)
    assert_close(particles.log_p, expected)


def test_quadrature_over_one_latent_dimension():
    """log p(x) of rows with gaps: the same integral with the missing cells left out of the
    product.
    """
    vae = make(mixed(missing=True), latent_dim=1)
    x = vae.sample(6)
    whole = quadrature(vae.prior, vae.likelihood, x)
    evidence = vae.log_marginal(x, num_particles=20_000)
    assert (abs(evidence.log_marginal.values - whole.numpy()) < 5 * evidence.standard_error).all()
    gaps = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    filled, mask = vae.read(x.masked_fill(gaps, math.nan))
    axis = torch.linspace(-9, 9, 401, dtype=F64)
    z = axis.reshape(-1, 1, 1)
    cells = vae.likelihood(z).base_dist.log_prob(filled) * mask
    exact = (cells.sum(-1) + vae.prior().log_prob(z)).logsumexp(0) + math.log(18 / 400)
    evidence = vae.log_marginal(x.masked_fill(gaps, math.nan), num_particles=20_000)
    error = evidence.standard_error.values
    assert (error < 0.05).all()
    assert (abs(evidence.log_marginal.values - exact.detach().numpy()) < 5 * error).all()


@pytest.mark.parametrize(
    ("columns", "has"),
    [
        ({"age": Gaussian(), "sex": Bernoulli()}, False),
        ({"age": Gaussian(), "size": StudentT(3.0)}, True),
        ({"visits": Poisson(), "sex": Bernoulli()}, True),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_numbers_and_classes_together_have_no_bits_per_dimension(columns, has, missing):
    vae = make(Columns(columns, missing=missing))
    evidence = vae.log_marginal(vae.sample(5), num_particles=50)
    assert ("bits per dimension" in repr(evidence)) is has
    if not has:
        with pytest.raises(ValueError, match="numbers and classes together"):
            _ = evidence.bits_per_dim


def test_missing_cells_of_a_linear_gaussian_table():
    """Columns of a linear-Gaussian model: the observed ones are jointly normal, exactly."""
    scales = (0.5, 1.2, 0.8, 1.0)
    units = {"b": (3.0, 2.0)}
    likelihood = Columns(
        {name: Gaussian(s) for name, s in zip("abcd", scales, strict=True)},
        units=units, missing=True,
    )  # fmt: skip
    vae = make(likelihood, decoder=nets.MLP())
    x = vae.sample(20)
    gaps = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    gaps[0] = True  # nothing observed at all: log p is zero
    layer = vae.likelihood.decoder.net[-1]
    unit = torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=F64)
    weight = layer.weight.detach() * unit[:, None]
    mean = layer.bias.detach() * unit + torch.tensor([0.0, 3.0, 0.0, 0.0], dtype=F64)
    noise = (torch.tensor(scales, dtype=F64) * unit).square().diag()
    covariance = weight @ weight.T + noise
    exact = []
    for row, gap in zip(x, gaps, strict=True):
        seen = ~gap
        normal = stats.multivariate_normal(
            mean[seen].numpy(), covariance[seen][:, seen].numpy()
        ) if seen.any() else None  # fmt: skip
        exact.append(normal.logpdf(row[seen].numpy()) if normal else 0.0)
    with torch.no_grad():  # a proposal wider than the prior keeps the weights bounded
        encoder = [m for m in vae.posterior.modules() if isinstance(m, torch.nn.Linear)][-1]
        encoder.weight.zero_()
        encoder.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    evidence = vae.log_marginal(x.masked_fill(gaps, math.nan), num_particles=20_000)
    error = evidence.standard_error.values
    assert (error < 0.05).all()
    assert (abs(evidence.log_marginal.values - np.array(exact)) < 5 * error + 1e-9).all()


def test_draws_follow_each_column():
    vae = make(mixed())
    torch.manual_seed(0)
    law = vae.likelihood(torch.zeros(1, 2, dtype=F64))
    x = law.sample((40_000,)).squeeze(1)
    assert vae.likelihood.in_support(x).all()
    mean = vae.likelihood.mean(law).squeeze(0)
    assert_close(mean[0], 40 + 12 * vae.likelihood.decoder(torch.zeros(1, 2, dtype=F64))[0, 0])
    expected, error = x.mean(0), x.std(0) / 200
    counted = [0, 2, 3, 4, 6, 7, 8]  # a Student-t's fourth moment is infinite, a category is a mode
    assert (abs(mean - expected)[counted] < 5 * error[counted]).all()
    shares = torch.bincount((x[:, 5] * 3).round().long(), minlength=4)
    assert shares.argmax() == (mean[5] * 3).round()


def test_training_reaches_every_parameter_captured_or_not():
    x = make(mixed()).sample(60).float()
    gaps = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    weights = []
    for capture in (True, False):
        vae = make(mixed(missing=True)).float()
        before = copy.deepcopy(vae.state_dict())
        data = x.masked_fill(gaps, math.nan)
        history = vae.fit(data, valid=data, estimator=estimators.DReG(3), epochs=2, capture=capture)
        assert np.isfinite(history["train_bound"]).all()
        still = [n for n, p in vae.named_parameters() if torch.equal(p.detach(), before[n])]
        assert not still
        weights.append(torch.cat([p.detach().flatten() for p in vae.parameters()]))
    assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)  # rounding of two graphs, in float32


def test_the_encoder_sees_scaled_numbers_categories_and_gaps():
    likelihood = mixed(missing=True)
    features = likelihood.reading(nets.MLP()).features
    x = torch.stack([ROW, ROW])
    x[1] = math.nan
    seen, hidden = features(x)
    logs = [math.log(0.7), math.log(0.3), math.log(4.0)]
    expected = [-7 / 12, -1.5, 1.0, math.log(3), math.log(6), 0.0, 0.0, 1.0, 0.0, *logs, *[1.0] * 9]
    assert_close(seen, torch.tensor(expected, dtype=F64))
    assert hidden.tolist() == [0.0] * 21
    assert features.num_features == 21


def test_categories_between_levels_have_a_gradient():
    """Pseudo-inputs of a Vamp prior are no whole numbers."""
    features = Columns({"a": Categorical(3)}).reading(nets.MLP()).features
    x = torch.tensor([[0.25]], requires_grad=True)
    found = features(x)
    assert_close(found, torch.tensor([[0.5, 0.5, 0.0]]))
    (slope,) = torch.autograd.grad(found[0, 1], x)
    assert slope.item() == 2
    vae = pv.VAE(3, 2, prior=pv.priors.Vamp(4), likelihood=Columns(
        {"a": Categorical(3), "b": Gamma(), "c": Gaussian()}), encoder=nets.MLP(4),
        decoder=nets.MLP(4))  # fmt: skip
    assert np.isfinite(vae.fit(vae.sample(20), epochs=1)["train_bound"]).all()


def test_starts_at_the_mean_of_what_is_there():
    vae = make(mixed(missing=True), decoder=nets.MLP())
    x = vae.sample(200)
    x[::3, 0] = math.nan
    with torch.no_grad():
        vae.likelihood.decoder.net[-1].weight.zero_()
    vae.initialize_from(x)
    found = vae.decode(torch.zeros(1, 2, dtype=F64)).squeeze(0)
    mean = x.nanmean(0)
    rest = [0, 1, 2, 3, 4, 6, 7, 8]
    assert_close(found[rest], mean[rest], rtol=1e-6, atol=1e-8)


def test_a_conditional_model_of_a_table_with_gaps():
    pyro.set_rng_seed(0)
    likelihood = Columns({"a": Gaussian(), "b": Bernoulli()}, missing=True)
    vae = pv.ConditionalVAE(2, 1, 3, likelihood=likelihood, encoder=nets.MLP(4),
                            decoder=nets.MLP(4), joint=nets.MLP(4))  # fmt: skip
    y = torch.arange(12) % 3
    x = vae.sample(y)
    x[4, 0] = math.nan
    assert np.isfinite(vae.fit((x, y), valid=(x, y), epochs=1)["valid_bound"]).all()
    evidence = vae.log_marginal((x, y), num_particles=30)
    filled, _, mask = vae.read((x, y))
    assert mask.sum() == 23
    assert filled[4, 0] == 0
    assert len(evidence) == 12
    assert vae.embed((x, y)).shape == (12, 1)


def test_a_hierarchy_over_a_table():
    likelihood = Columns({"a": Gaussian(), "b": Categorical(3)})
    vae = pv.HierarchicalVAE(2, (2, 2), likelihood=likelihood, encoder=nets.MLP(4),
                             decoder=nets.MLP(4), between=nets.MLP(4), features=4)  # fmt: skip
    x = vae.sample(10)
    assert np.isfinite(vae.fit(x, epochs=1)["train_bound"]).all()
    assert vae.reconstruct(x).shape == (10, 2)


def test_every_factorising_likelihood_can_be_a_column():
    skipped = {"Columns", "Likelihood", "DiscretizedLogisticMixture"}
    columns = {n: getattr(likelihoods, n)() for n in likelihoods.__all__ if n not in skipped}
    vae = make(Columns(columns))
    x = vae.sample(5)
    assert vae.likelihood.in_support(x).all()
    assert estimators.IWAE(2).bound(vae.model, vae.guide, x).isfinite().all()


def test_declarations_and_copies():
    likelihood = mixed(missing=True)
    scope = {n: getattr(likelihoods, n) for n in likelihoods.__all__}
    assert repr(eval(repr(likelihood), scope)) == repr(likelihood)
    vae = make(likelihood)
    x, z = vae.sample(3), torch.randn(3, 2, dtype=F64)
    for other in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        assert repr(other) == repr(vae)
        assert_close(other.likelihood(z).log_prob(x), vae.likelihood(z).log_prob(x))
    learned = Columns({"a": Gaussian("learned"), "b": Gaussian("learned")})
    one = pv.VAE(2, 1, likelihood=learned)
    assert len({n for n, _ in one.likelihood.named_parameters() if n.endswith("raw")}) == 2
    assert one.likelihood.only("b").tolist() == [False, True]


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Columns({}), ValueError, "dictionary from the name"),
        (lambda: Columns({"a": Gaussian}), TypeError, "Column 'a' needs a likelihood .*Gaussian"),
        (lambda: Columns({"a": Gaussian()}, blocks={"b": ["c"]}), ValueError, "names 'b'"),
        (
            lambda: Columns({"a": Gaussian(), "b": Poisson()}, blocks={"b": ["a"]}),
            ValueError, "each column may stand once",
        ),
        (
            lambda: Columns({"a": Gaussian()}, categories={"a": [1, 2]}),
            ValueError, "'a' has categories",
        ),
        (
            lambda: Columns({"a": Categorical(3)}, categories={"a": ["x", "y"]}),
            ValueError, "takes 3 different ones",
        ),
        (lambda: Columns({"a": Poisson()}, units={"a": (0, 2)}), ValueError, "not defined for sc"),
        (lambda: Columns({"a": Gamma()}, units={"a": (1, 2)}), ValueError, "positive ones"),
        (lambda: Columns({"a": Gaussian()}, units={"a": (1, 0)}), ValueError, "positive scale"),
        (lambda: Columns({"a": Gaussian()}, dtypes={"b": "int"}), ValueError, "names 'b'"),
        (lambda: Columns({"a": Gaussian()}, library="dask"), ValueError, "library must be"),
        (lambda: make(Columns({"a": Gaussian("optimal")})), ValueError, "not independent"),
        (lambda: make(Columns({"a": Poisson("total")})), ValueError, "not independent"),
        (
            lambda: pv.VAE(3, 2, likelihood=Columns({"a": Gaussian()})),
            ValueError, "declares 1 columns, but data_shape is",
        ),
        (
            lambda: make(Columns({"a": Gaussian()})).fit(torch.tensor([[math.nan]])),
            ValueError, "'a' has missing cells .*missing=True",
        ),
        (lambda: make(Columns({"a": Gaussian()})).likelihood.only("b"), ValueError, "no column"),
        (lambda: make(Columns({"a": Gaussian()})).impute(torch.ones(2, 1)), ValueError, "a mask"),
    ],
)  # fmt: skip
def test_wrong_declarations_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_configuration_declares_columns(tmp_path):
    """As a run writes it and reads it again."""
    parts = {"a": {"class_path": "Gaussian"}, "b": {"class_path": "Categorical"}}
    declared = {
        "class_path": "Columns",
        "init_args": {"columns": parts, "units": {"a": [1.0, 2.0]}},
    }
    pv.Config(likelihood=declared).save(tmp_path / "config.yaml")
    likelihood = pv.Config.load(tmp_path / "config.yaml").build("likelihood")
    assert repr(likelihood.declaration["columns"]) == ("{'a': Gaussian(), 'b': Categorical()}")
    assert likelihood.entries[0].scale == 2.0

"""Every likelihood as a part of a VAE: modes, supports, starts, exposures, and evidence against
quadrature.
"""

import copy
import math
import re
from pathlib import Path

import pyro
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets
from pyrovae.likelihoods import (
    Bernoulli,
    Beta,
    Categorical,
    Columns,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gamma,
    Gaussian,
    Laplace,
    LogNormal,
    NegativeBinomial,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
)
from pyrovae.testing import quadrature

F64 = torch.float64
SCALES = (0.5, "learned", "per-element", "decoder")
ROWS = [
    Bernoulli(),
    ContinuousBernoulli(),
    Categorical(num_levels=5),
    *(Gaussian(scale) for scale in (*SCALES, "optimal")),
    *(Laplace(scale) for scale in SCALES),
    *(StudentT(3.0, scale) for scale in SCALES),
    *(Beta(concentration) for concentration in (3.0, "learned", "per-element", "decoder")),
    *(LogNormal(scale) for scale in SCALES),
    *(Gamma(concentration) for concentration in (3.0, "learned", "per-element", "decoder")),
    *(DiscretizedLogistic(num_levels=9, scale=scale, initial_scale=0.3) for scale in SCALES),
    DiscretizedLogisticMixture(3, num_levels=9, initial_scale=0.3),
    DiscretizedLogisticMixture(3, num_levels=9, coupled=False, initial_scale=0.3),
    Poisson(),
    Poisson(link="exp"),
    Poisson(exposure="total", typical_total=6.0),
    *(NegativeBinomial(dispersion) for dispersion in (0.7, "learned", "per-element", "decoder")),
    NegativeBinomial(exposure="total", typical_total=6.0),
    *(ZeroInflatedNegativeBinomial(dispersion) for dispersion in (0.7, "per-element", "decoder")),
    ZeroInflatedNegativeBinomial(exposure="total", typical_total=6.0),
    Columns({"a": Gaussian("learned"), "b": Beta(), "c": LogNormal()}, units={"a": (0.3, 2.0)}),
]
rows = pytest.mark.parametrize("likelihood", ROWS, ids=repr)


def make(likelihood, data_shape=(3,), latent_dim=2, seed=0, **kwargs):
    pyro.set_rng_seed(seed)
    nets_ = {"encoder": nets.MLP(4), "decoder": nets.MLP(4, activation="tanh"), **kwargs}
    return pv.VAE(data_shape, latent_dim, likelihood=likelihood, **nets_).double()


def test_every_likelihood_has_a_row():
    assert {type(row).__name__ for row in ROWS} == set(likelihoods.__all__) - {"Likelihood"}


@rows
def test_quadrature_agrees_with_the_marginal_likelihood(likelihood):
    """Two-dimensional z: the grid and importance sampling find the same log p(x), within the
    reported errors.
    """
    vae = make(
        likelihood, (3, 1, 1) if isinstance(likelihood, DiscretizedLogisticMixture) else (3,)
    ).eval()
    with torch.no_grad():
        for parameter in vae.likelihood.decoder.parameters():
            parameter *= 2  # a likelihood that depends on z
        # A proposal wider than the prior keeps the weights bounded, and so the reported errors
        # right.
        encoder = [m for m in vae.posterior.modules() if isinstance(m, nn.Linear)][-1]
        encoder.weight.zero_()
        encoder.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    x = vae.sample(4)
    exact = quadrature(vae.prior, vae.likelihood, x, low=-8, high=8, num_points=241)
    evidence = pv.log_marginal(vae.model, vae.guide, x, num_particles=20_000)
    error = evidence.standard_error.values
    assert (error < 0.05).all()
    difference = abs(evidence.log_marginal.values - exact.numpy())
    assert (difference < 5 * error + 1e-6).all(), difference / error


@rows
def test_starts_at_the_data_mean(likelihood):
    """The initial bias alone, with weights at zero, gives the mean asked for."""
    mean = torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    colour = isinstance(likelihood, DiscretizedLogisticMixture)
    vae = make(likelihood, (3, 1, 1) if colour else (3,), decoder=nets.MLP())
    counts = isinstance(vae.likelihood, Poisson | NegativeBinomial | ZeroInflatedNegativeBinomial)
    data = mean * 30 if counts else mean
    if counts:
        vae.likelihood.typical_total.copy_(data.sum())
    with torch.no_grad():
        vae.likelihood.decoder.net[-1].weight.zero_()
    vae.initialize_from(data.reshape(1, *vae.data_shape))
    found = vae.decode(torch.zeros(1, 2, dtype=F64)).detach().flatten()
    gate = (
        0.95
        if isinstance(likelihood, ZeroInflatedNegativeBinomial) and likelihood.exposure
        else 1.0
    )
    assert_close(found, gate * data, rtol=1e-6, atol=1e-8)


def test_start_of_a_convolutional_decoder_is_each_channels_mean():
    """One bias a channel: the pixels' biases averaged."""
    pyro.set_rng_seed(0)
    vae = pv.VAE((2, 6, 6), 2, likelihood=Gaussian(), decoder=nets.Conv(4, hidden=4))
    data = torch.stack([torch.full((5, 6, 6), 0.3), torch.full((5, 6, 6), -2.0)], 1)
    vae.initialize_from(data)
    assert_close(nets.last_bias(vae.likelihood.decoder).detach(), torch.tensor([0.3, -2.0]))


BAD = [
    (
        Bernoulli(),
        0.5,
        "0.5 among the data .*Binarise the data.*ContinuousBernoulli or "
        "likelihoods.DiscretizedLogistic",
    ),
    (ContinuousBernoulli(), 255.0, r"density on \[0, 1\], found 255 .* by 1/255"),
    (ContinuousBernoulli(), math.nan, "found nan"),
    (Beta(), 0.0, "ContinuousBernoulli, which takes 0 and 1"),
    (LogNormal(), 0.0, "positive numbers, found 0 .*Gaussian for values of any sign"),
    (Gamma(), -1.0, "positive numbers, found -1"),
    (Columns({"a": Gaussian(), "b": Bernoulli(), "c": Poisson()}), 0.5, "Column 'b': Bernoulli"),
    (Categorical(5), 0.3, r"grey levels 0, 1/4, \.\.\., 1, found 0.3 .* num_levels"),
    (DiscretizedLogistic(), 7.0, "ContinuousBernoulli for reals"),
    (DiscretizedLogisticMixture(), 0.5, "256 grey levels"),
    (Gaussian(), math.inf, "finite real values"),
    (Laplace(), math.nan, "finite real values"),
    (StudentT(), math.nan, "finite real values"),
    (Poisson(), -1.0, "counts 0, 1, 2"),
    (NegativeBinomial(), 0.5, "neither normalised nor logged"),
    (ZeroInflatedNegativeBinomial(), math.nan, "found nan"),
]


@pytest.mark.parametrize(("likelihood", "value", "message"), BAD, ids=[repr(b[0]) for b in BAD])
def test_data_outside_the_support_are_refused(likelihood, value, message):
    vae = make(likelihood)
    with pytest.raises(ValueError, match=message):
        estimators.ELBO().loss(vae.model, vae.guide, torch.full((2, 3), value, dtype=F64))


def test_every_support_is_checked():
    assert {type(row) for row, *_ in BAD} == {type(row) for row in ROWS}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Gaussian("optimum"), "Gaussian scale must be a positive number or one of"),
        (lambda: Gaussian(-1.0), "finite and positive"),
        (lambda: Gaussian("learned", initial_scale=1e-4), "minimum < initial value"),
        (lambda: Laplace(0.0), "Laplace scale must be finite and positive"),
        (lambda: StudentT(df=0.0), "Use Gaussian for its limit"),
        (lambda: Beta("fixed"), "Beta concentration"),
        (lambda: Gamma(0.0), "Gamma concentration must be finite and positive"),
        (lambda: LogNormal("wide"), "LogNormal scale must be"),
        (lambda: Categorical(1), "num_levels >= 2, found 1"),
        (lambda: DiscretizedLogistic(num_levels=2.5), "integer num_levels"),
        (lambda: DiscretizedLogisticMixture(0), "num_components must be a positive integer"),
        (lambda: Poisson(exposure="library"), "exposure must be None or 'total'"),
        (lambda: Poisson(link="relu"), "link must be 'softplus' or 'exp'"),
        (lambda: NegativeBinomial(typical_total=0), "typical_total must be finite and positive"),
        (lambda: NegativeBinomial(dispersion=math.inf), "NegativeBinomial dispersion"),
        (
            lambda: make(DiscretizedLogisticMixture(coupled=True), (1, 4, 4)),
            r"colour images of shape \(3, H, W\)",
        ),
    ],
)
def test_wrong_declarations_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@rows
def test_copies_and_declarations(likelihood):
    """The VAE's own copy prints as declared, and a state dict carries
    everything that was learned.
    """
    shape = (3, 1, 1) if isinstance(likelihood, DiscretizedLogisticMixture) else (3,)
    vae, other = make(likelihood, shape, seed=1), make(likelihood, shape, seed=2)
    assert repr(vae.likelihood) == repr(likelihood)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter += 0.1
    other.load_state_dict(vae.state_dict())
    x, z = vae.sample(3), torch.randn(3, 2, dtype=F64)
    assert_close(other.likelihood(z).log_prob(x), vae.likelihood(z).log_prob(x), rtol=0, atol=0)
    assert copy.deepcopy(vae).likelihood(z).log_prob(x).equal(vae.likelihood(z).log_prob(x))


@pytest.mark.parametrize("family", [Gaussian, Laplace])
def test_scale_modes_have_their_shapes(family):
    z = torch.zeros(2, 2, dtype=F64)
    sizes = {scale: make(family(scale)).likelihood(z).base_dist.scale.shape for scale in SCALES}
    assert list(map(tuple, sizes.values())) == [(), (), (3,), (2, 3)]
    start = make(family("learned", initial_scale=0.3)).likelihood(z).base_dist.scale
    assert_close(start.item(), 0.3, rtol=1e-6, atol=0)


def test_uniform_greys_cost_eight_bits():
    """With every logit zero each of 256 levels has the same probability, whatever z: log p(x) = -D
    log 256.
    """
    vae = make(Categorical(256), (2, 3), decoder=nets.MLP())
    with torch.no_grad():
        for parameter in vae.likelihood.decoder.parameters():
            parameter.zero_()
    x = torch.randint(256, (5, 2, 3)).double() / 255
    vae.posterior.requires_grad_(False)
    reconstruction = vae.likelihood(torch.zeros(5, 2, dtype=F64)).log_prob(x)
    assert_close(reconstruction, torch.full((5,), -6 * math.log(256), dtype=F64))
    assert vae.likelihood.discrete


def test_discrete_says_whether_densities_are_probabilities():
    """No probability exceeds one; a density of a narrow likelihood does."""
    for row in ROWS:
        vae = make(row, (3, 1, 1) if isinstance(row, DiscretizedLogisticMixture) else (3,))
        densities = Gaussian | Laplace | StudentT | Beta | ContinuousBernoulli | LogNormal
        densities |= Gamma | Columns
        expected = not isinstance(row, densities)
        assert row.discrete == expected
        if row.discrete:
            assert (vae.likelihood(torch.randn(8, 2, dtype=F64)).log_prob(vae.sample(8)) <= 0).all()


def test_student_t_without_a_mean_shows_its_location():
    vae = make(StudentT(df=1.0))
    z = torch.zeros(2, 2, dtype=F64)
    assert_close(vae.decode(z), vae.likelihood(z).base_dist.loc)


def test_softplus_link_reaches_far_below_underflow():
    for dtype in (torch.float32, F64):
        raw = torch.tensor([-1000.0, -61.0, -59.0, 0.0, 500.0], dtype=dtype, requires_grad=True)
        value = likelihoods.counts.log_softplus(raw)
        (slope,) = torch.autograd.grad(value.sum(), raw)
        expected = torch.tensor(
            [-1000.0, -61.0, -59.0, math.log(math.log(2)), math.log(500.0)], dtype=dtype
        )
        assert_close(value.detach(), expected)
        assert_close(slope[:3], torch.ones(3, dtype=dtype))
        assert slope.isfinite().all()


def test_a_likelihood_of_ones_own():
    """The documentation's, as written, in a VAE: quadrature and importance sampling agree, and data
    are checked.
    """
    text = (Path(__file__).resolve().parents[2] / "docs" / "likelihoods.md").read_text(
        encoding="utf-8"
    )
    block = re.findall(r"```python\n(.*?)```", text, re.S)[-1]
    assert len(block.splitlines()) < 25
    scope = {}
    exec(block, scope)
    test_quadrature_agrees_with_the_marginal_likelihood(scope["Exponential"]())
    vae = make(scope["Exponential"]())
    with pytest.raises(ValueError, match="takes x >= 0"):
        estimators.ELBO().loss(vae.model, vae.guide, -torch.ones(2, 3, dtype=F64))


class Plain(likelihoods.Likelihood):
    """One that returns torch's distribution in place of Pyro's."""

    def distribution(self, outputs):
        return torch.distributions.Exponential(
            nn.functional.softplus(outputs.squeeze(self.output_dim))
        )


def test_distributions_that_pyro_cannot_sample_are_refused():
    with pytest.raises(TypeError, match=r"Plain\(\) made a torch Exponential.*pyro.distributions"):
        make(Plain()).sample()

"""Every prior x likelihood x posterior x estimator that fits together, and a refusal for every one
that does not.

A new variant needs a row here, or :func:`test_every_variant_has_a_row` fails. By default every
prior and every posterior meet every likelihood, with the estimators in turn; the whole product is
marked slow.
"""

import warnings

import pytest
import torch

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets, posteriors, priors

SHAPE, LATENT, BATCH = (3, 1, 2), 4, 3

# Each with the space it lives on, as the documentation says.
PRIORS = {
    "StandardNormal": (priors.StandardNormal(), "real"),
    "GaussianMixture": (priors.GaussianMixture(num_components=2), "real"),
    "Laplace": (priors.Laplace(), "real"),
    "StudentT": (priors.StudentT(), "real"),
    "Flow": (priors.Flow(num_transforms=2, hidden=(8,)), "real"),
    "Flow-coupling": (priors.Flow(num_transforms=2, hidden=(8,), coupling=True), "real"),
    "Flow-spline": (priors.Flow(num_transforms=1, hidden=(8,), transform="spline", bins=3), "real"),
    "Vamp": (priors.Vamp(num_components=3), "any"),
    "HypersphericalUniform": (priors.HypersphericalUniform(), "sphere"),
    "Categorical": (priors.Categorical(num_categories=2), "one-hot"),
    "RelaxedCategorical": (priors.RelaxedCategorical(num_categories=2), "simplex"),
}
# And whether draws are differentiable in the encoder's outputs.
POSTERIORS = {
    "DiagonalNormal": (posteriors.DiagonalNormal(), "real", True),
    "FullRankNormal": (posteriors.FullRankNormal(), "real", True),
    "LowRankNormal": (posteriors.LowRankNormal(rank=1), "real", True),
    "Flow": (posteriors.Flow(num_transforms=1, hidden=(8,), context=4), "real", True),
    "Mixture": (posteriors.Mixture(num_components=2), "real", True),
    "PowerSpherical": (posteriors.PowerSpherical(), "sphere", True),
    "Categorical": (posteriors.Categorical(num_categories=2), "one-hot", False),
    "RelaxedCategorical": (posteriors.RelaxedCategorical(num_categories=2), "simplex", True),
    "Delta": (posteriors.Delta(), "real", True),
}


def unit():
    return torch.rand(BATCH, *SHAPE).clamp(1e-3, 1 - 1e-3)


def greys():
    return torch.randint(4, (BATCH, *SHAPE)) / 3


def reals():
    return torch.randn(BATCH, *SHAPE)


def numbers():
    return torch.poisson(torch.full((BATCH, *SHAPE), 3.0))


# Each with data of its kind.
LIKELIHOODS = {
    "Bernoulli": (likelihoods.Bernoulli(), lambda: unit().round()),
    "ContinuousBernoulli": (likelihoods.ContinuousBernoulli(), lambda: unit().round()),
    "Beta": (likelihoods.Beta(), unit),
    "Gaussian": (likelihoods.Gaussian(), reals),
    "Gaussian-decoder": (likelihoods.Gaussian("decoder"), reals),
    "Gaussian-optimal": (likelihoods.Gaussian("optimal"), reals),
    "Laplace": (likelihoods.Laplace("learned"), reals),
    "StudentT": (likelihoods.StudentT(), reals),
    "LogNormal": (likelihoods.LogNormal(), unit),
    "Gamma": (likelihoods.Gamma(), unit),
    "Categorical": (likelihoods.Categorical(num_levels=4), greys),
    "DiscretizedLogistic": (likelihoods.DiscretizedLogistic(num_levels=4), greys),
    "DiscretizedLogisticMixture": (likelihoods.DiscretizedLogisticMixture(2, num_levels=4), greys),
    "Poisson": (likelihoods.Poisson(), numbers),
    "NegativeBinomial": (likelihoods.NegativeBinomial(), numbers),
    "NegativeBinomial-total": (likelihoods.NegativeBinomial(exposure="total"), numbers),
    "ZeroInflatedNegativeBinomial": (likelihoods.ZeroInflatedNegativeBinomial(), numbers),
}
ESTIMATORS = {
    "ELBO": lambda: estimators.ELBO(num_particles=2),
    "EnumELBO": lambda: estimators.EnumELBO(num_particles=2),
    "AnalyticKL": lambda: estimators.AnalyticKL(),
    "BetaTC": lambda: estimators.BetaTC(),
    "STL": lambda: estimators.STL(num_particles=2),
    "IWAE": lambda: estimators.IWAE(num_particles=3),
    "STLIWAE": lambda: estimators.STLIWAE(num_particles=3),
    "DReG": lambda: estimators.DReG(num_particles=3),
    "RWSDReG": lambda: estimators.RWSDReG(num_particles=3),
    "CIWAE": lambda: estimators.CIWAE(num_particles=3),
    "MIWAE": lambda: estimators.MIWAE(num_bounds=2, num_particles=2),
    "PIWAE": lambda: estimators.PIWAE(num_bounds=2, num_particles=2),
    "Jackknife": lambda: estimators.Jackknife(num_particles=3),
    "Renyi": lambda: estimators.Renyi(num_particles=3),
    "TVO": lambda: estimators.TVO(num_particles=3),
    "ScoreELBO": lambda: estimators.ScoreELBO(num_particles=2),
    "VIMCO": lambda: estimators.VIMCO(num_particles=3),
    "RWS": lambda: estimators.RWS(num_particles=3),
    "RWS-both": lambda: estimators.RWS(num_particles=3, update="both"),
    "FreeBits": lambda: estimators.FreeBits(estimators.ELBO(num_particles=2), per="site"),
    "Capacity": lambda: estimators.Capacity(estimators.ELBO(num_particles=2), capacity=2.0),
}
# A point mass has no density to weigh its draw by, or to differentiate.
TAKES_DELTA = {"ELBO", "EnumELBO", "AnalyticKL", "STL", "FreeBits", "Capacity"}
# Where latents are independent of one another under both, which BetaTC's parts of the KL need.
MEAN_FIELD = {(p, "DiagonalNormal") for p in ("StandardNormal", "Laplace", "StudentT")}
NEEDS_RSAMPLE = {
    "STL",
    "BetaTC",
    "IWAE",
    "STLIWAE",
    "DReG",
    "RWSDReG",
    "CIWAE",
    "MIWAE",
    "PIWAE",
    "Jackknife",
    "Renyi",
}


def fits(prior, posterior):
    return PRIORS[prior][1] in (POSTERIORS[posterior][1], "any") and (prior, posterior) != (
        "Vamp",
        "Delta",
    )


PAIRS = [(p, q) for p in PRIORS for q in POSTERIORS if fits(p, q)]
MISFITS = [(p, q) for p in PRIORS for q in POSTERIORS if not fits(p, q)]


def declare(prior, likelihood, posterior):
    return pv.VAE(
        SHAPE,
        LATENT,
        prior=PRIORS[prior][0],
        likelihood=LIKELIHOODS[likelihood][0],
        posterior=POSTERIORS[posterior][0],
        encoder=nets.MLP(5, activation="tanh"),
        decoder=nets.MLP(5, activation="tanh"),
    )


def take_two_steps(vae, estimator, x, where):
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        loss = estimator.loss_and_grads(vae.model, vae.guide, x)
        assert torch.tensor(loss).isfinite(), where
        for name, parameter in vae.named_parameters():
            assert parameter.grad is not None, f"{where}: no gradient for {name}"
            assert parameter.grad.isfinite().all(), f"{where}: gradient of {name}"
        optimizer.step()


def check(prior, posterior, likelihood, names):
    vae, (_, rsample) = declare(prior, likelihood, posterior), POSTERIORS[posterior][1:]
    x = LIKELIHOODS[likelihood][1]()
    for name in names:
        estimator, where = ESTIMATORS[name](), f"{prior} x {likelihood} x {posterior} x {name}"
        if name in NEEDS_RSAMPLE and not rsample:
            with pytest.raises(ValueError, match="has no rsample"):
                estimator.loss_and_grads(vae.model, vae.guide, x)
            continue
        if name == "BetaTC" and (prior, posterior) not in MEAN_FIELD:
            with pytest.raises(ValueError, match="independent"):
                estimator.loss_and_grads(vae.model, vae.guide, x)
            continue
        if posterior == "Delta" and name not in TAKES_DELTA:
            with pytest.raises(ValueError, match="is a Delta: a point has none"):
                estimator.loss_and_grads(vae.model, vae.guide, x)
            continue
        take_two_steps(vae, estimator, x, where)
    drawn = vae.sample(5)
    assert drawn.shape == (5, *SHAPE)
    vae.likelihood.check(drawn)
    assert vae.reconstruct(x).shape == x.shape
    if posterior == "Delta":
        with pytest.raises(ValueError):
            pv.log_marginal(vae.model, vae.guide, x, num_particles=20)
    else:
        evidence = pv.log_marginal(vae.model, vae.guide, x, num_particles=20)
        assert torch.as_tensor(evidence.log_marginal.values).isfinite().all()


@pytest.fixture(autouse=True)
def quiet():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="AnalyticKL: no closed form")
        yield


def test_every_variant_has_a_row():
    tables = {
        priors: PRIORS,
        likelihoods: LIKELIHOODS,
        posteriors: POSTERIORS,
        estimators: ESTIMATORS,
    }
    bases = {"Prior", "Likelihood", "Posterior", "Estimator", "Terms"}
    bases |= {"Columns"}  # of tables (B, D) alone: tests/likelihoods/test_columns.py
    bases |= {"Exemplar"}  # needs training data: tests/priors/test_exemplar.py
    for module, rows in tables.items():
        assert {name.split("-")[0] for name in rows} == set(module.__all__) - bases, module.__name__


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_parts_that_fit_train_and_evaluate(prior, posterior):
    """Each prior and each posterior with every likelihood, and the estimators in turn."""
    shift = PAIRS.index((prior, posterior))
    names, data = list(ESTIMATORS), list(LIKELIHOODS)
    # Pairs on real space are many: each takes every third likelihood, its neighbours the rest.
    stride = 3 if POSTERIORS[posterior][1] == "real" else 1
    first = (list(PRIORS).index(prior) + list(POSTERIORS).index(posterior)) % stride
    for i in range(first, max(len(names), len(data)), stride):
        check(prior, posterior, data[i % len(data)], [names[(i + shift) % len(names)]])


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_whole_product(prior, posterior, likelihood):
    check(prior, posterior, likelihood, list(ESTIMATORS))


@pytest.mark.parametrize(("prior", "posterior"), MISFITS)
def test_parts_that_do_not_fit_are_refused(prior, posterior):
    """At construction, with what each would go with."""
    if prior == "Vamp":
        with pytest.raises(
            ValueError, match=r"Vamp cannot mix Delta.*Use posteriors.DiagonalNormal"
        ):
            declare(prior, "Bernoulli", posterior)
        return
    with pytest.raises(
        ValueError, match=r"lives on the space .* take one of posteriors: .* priors: "
    ) as error:
        declare(prior, "Bernoulli", posterior)
    named = str(error.value).split("posteriors:")[1].split(";")[0].replace(",", " ").split()
    assert set(named) == {
        name for name, (_, space, _) in POSTERIORS.items() if space == PRIORS[prior][1]
    }

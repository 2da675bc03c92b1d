"""Every shape with every estimator and evidence method: it trains and evaluates, or says in a line
why it cannot.
"""

import warnings

import pytest
import torch

import pyrovae as pv
from pyrovae import estimators, nets, posteriors, priors

MLP = nets.MLP(8, activation="tanh")
SMALL = {"encoder": MLP, "decoder": MLP}
SPHERICAL = {"posterior": posteriors.PowerSpherical(), "prior": posteriors.PowerSpherical()}
CATEGORICAL = {
    "prior": priors.Categorical(2),
    "posterior": posteriors.Categorical(2),
    "conditional": posteriors.Categorical(2),
}
FLOW = posteriors.Flow(num_transforms=1, hidden=(8,), context=3)
SHAPES = {
    "hierarchical": lambda: pv.HierarchicalVAE((6,), (2, 3), between=MLP, features=5, **SMALL),
    "hierarchical-vamp-flow": lambda: pv.HierarchicalVAE(
        (6,),
        3,
        prior=priors.Vamp(3),
        posterior=FLOW,
        conditional=FLOW,
        between=MLP,
        features=5,
        **SMALL,
    ),
    "hierarchical-categorical": lambda: pv.HierarchicalVAE(
        (6,), (4, 4), between=MLP, features=5, **CATEGORICAL, **SMALL
    ),
    "conditional": lambda: pv.ConditionalVAE((6,), 2, 3, joint=MLP, features=5, **SMALL),
    "conditional-learned": lambda: pv.ConditionalVAE(
        (6,), 2, 3, prior=posteriors.DiagonalNormal(), joint=MLP, features=5, **SMALL
    ),
    "conditional-sphere": lambda: pv.ConditionalVAE(
        (6,), 3, 3, joint=MLP, features=5, **SPHERICAL, **SMALL
    ),
    "clustering": lambda: pv.ClusteringVAE((6,), 2, 3, **SMALL),
    "clustering-mixture": lambda: pv.ClusteringVAE(
        (6,), 2, 3, posterior=posteriors.Mixture(2), **SMALL
    ),
}
ESTIMATORS = {
    **{
        name: getattr(estimators, name)
        for name in estimators.__all__
        if name not in ("Estimator", "Terms")
    },
}
SCORE_FUNCTION = {"ELBO", "AnalyticKL", "ScoreELBO", "VIMCO", "RWS", "TVO", "Capacity", "EnumELBO"}
METHODS = {
    "importance": pv.ImportanceSampling(20),
    "defended": pv.ImportanceSampling(20, prior_share=0.2),
    "refined": pv.ImportanceSampling(20, refine_steps=2),
    "ais": pv.AIS(2, 2, num_leapfrog=1),
    "ais-guide": pv.AIS(2, 2, num_leapfrog=1, start="guide"),
}


def refusal(shape, name):
    """What an estimator or method says of a shape that it cannot take; None where it can."""
    if shape == "hierarchical-categorical":
        if name in ESTIMATORS and name not in SCORE_FUNCTION | {"FreeBits"}:
            return "has no rsample. Use estimators.ELBO"
        if name == "refined":
            return "Leave refine_steps at 0"
    if name == "BetaTC" and shape.startswith("hierarchical"):
        return "takes one latent site.*Use estimators.ELBO"
    if name in ("BetaTC", "FreeBits") and shape not in (
        "hierarchical",
        "conditional",
        "conditional-learned",
    ):
        advice = "(FreeBits.per=.site.. takes it|use an elementwise distribution)"
        return f"not independent across elements.*{advice}"
    if name.startswith("ais") and shape in ("hierarchical-categorical", "conditional-sphere"):
        return "is discrete, constrained.*Use ImportanceSampling"
    if name == "refined" and shape == "conditional-sphere":
        return "Leave refine_steps at 0"
    return None


@pytest.fixture(autouse=True)
def quiet():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="AnalyticKL: no closed form")
        yield


def data_of(shape):
    x = torch.bernoulli(torch.full((7, 6), 0.4))
    return (x, torch.arange(7) % 3) if shape.startswith("conditional") else (x,)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_two_steps(shape, name):
    vae, estimator, data = SHAPES[shape](), ESTIMATORS[name](), data_of(shape)
    said = refusal(shape, name)
    if said is not None:
        with pytest.raises(ValueError, match=said) as error:
            estimator.loss_and_grads(vae.model, vae.guide, *data)
        assert len(str(error.value).splitlines()) == 1
        return
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        assert torch.tensor(estimator.loss_and_grads(vae.model, vae.guide, *data)).isfinite()
        for label, parameter in vae.named_parameters():
            assert parameter.grad is not None, label
            assert parameter.grad.isfinite().all(), label
        optimizer.step()
    assert estimator.bound(vae.model, vae.guide, *data).isfinite().all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_evidence(shape, name):
    vae, data = SHAPES[shape](), data_of(shape)
    said = refusal(shape, name)
    if said is not None:
        with pytest.raises(ValueError, match=said) as error:
            vae.log_marginal(data, method=METHODS[name])
        assert len(str(error.value).splitlines()) == 1
        return
    found = vae.log_marginal(data, method=METHODS[name])
    assert torch.as_tensor(found.log_marginal.values).isfinite().all()
    # Six fair bits cost 4.2 nats; an untrained decoder with data apart from it a little more or
    # less.
    assert -7 < found.mean() < -3

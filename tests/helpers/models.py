"""What every model and guide of pyrovae.models is held to."""

import copy
import math
import pickle
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn
from torch.testing import assert_close

from pyrovae.estimators import IWAE, Estimator


def shaken(module: nn.Module, seed: int = 0) -> Any:
    """In float64, with every parameter away from its start, so that nothing
    agrees by being zero.
    """
    module = module.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return module


def log_normal(z: Tensor, normal: Any) -> Tensor:
    """log N(z; loc, scale) written out, summed over the last dimension."""
    loc, scale = normal.base_dist.loc, normal.base_dist.scale
    return (-0.5 * ((z - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) of binary x written out, summed over the last dimension."""
    p = 1 / (1 + (-logits).exp())
    return (x * p.log() + (1 - x) * (1 - p).log()).sum(-1)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """The gradients that the parameters hold, and none of them left behind."""
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in module.named_parameters()
    }
    module.zero_grad()
    return found


def assert_trains_everything(
    vae: Any, model: Any, guide: Any, loss: pyro.infer.ELBO, *data: Tensor
) -> None:
    """A few steps of Pyro's own SVI have a finite loss and move every parameter."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    before = copy.deepcopy(vae.state_dict())
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss)
    for _ in range(3):
        assert torch.isfinite(torch.tensor(svi.step(*data)))
    still = [name for name, p in vae.named_parameters() if torch.equal(p.detach(), before[name])]
    assert not still, f"not trained: {still}"
    pyro.clear_param_store()


def assert_stock_gradients(vae: Any, ours: Estimator, *data: Tensor) -> None:
    """The loss and its gradients are those of Pyro's Trace_ELBO at the same draws; equal up to
    rounding.
    """
    stock = Trace_ELBO(
        num_particles=ours.num_particles, vectorize_particles=True, max_plate_nesting=1
    )
    found = []
    for loss in (ours, stock):
        torch.manual_seed(3)
        found.append((loss.loss_and_grads(vae.model, vae.guide, *data), gradients(vae)))
    assert abs(found[0][0] - found[1][0]) < 1e-9 * abs(found[1][0])
    for name, gradient in found[1][1].items():
        assert_close(found[0][1][name], gradient, rtol=1e-8, atol=1e-10, msg=name)
        assert gradient.abs().max() > 0, name


def assert_gradient_is_the_slope(vae: Any, *data: Tensor, step: float = 1e-6) -> None:
    """The ELBO's gradient, draws and all, along a random direction: a central difference at the
    same noise.
    """
    generator = torch.Generator().manual_seed(7)
    along = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in vae.parameters()]
    elbo, losses = Trace_ELBO(), []
    torch.manual_seed(3)
    elbo.loss_and_grads(vae.model, vae.guide, *data)
    slope = sum((g * d).sum() for g, d in zip(gradients(vae).values(), along, strict=True))
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(vae.parameters(), along, strict=True):
                p += sign * step * d
        torch.manual_seed(3)
        losses.append(elbo.loss(vae.model, vae.guide, *data))
    assert abs((losses[0] - losses[1]) / (2 * step) - slope.item()) < 1e-5 * abs(slope.item())


def assert_finite_gradients(
    vae: Any, model: Any, guide: Any, estimator: Estimator, *data: Tensor
) -> None:
    """Finite bounds for each datum, and finite gradients that reach every parameter."""
    torch.manual_seed(0)
    assert estimator.bound(model, guide, *data).shape == (len(data[0]),)
    assert torch.isfinite(torch.tensor(estimator.loss_and_grads(model, guide, *data)))
    for name, gradient in gradients(vae).items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name


def assert_rises_to(vae: Any, truth: Tensor, *data: Tensor, copies: int = 300) -> None:
    """IWAE's mean over many runs rises with K, from below to the truth."""
    many = [d.repeat(copies, *[1] * (d.dim() - 1)) for d in data]
    torch.manual_seed(0)
    bounds = [
        IWAE(k).bound(vae.model, vae.guide, *many).reshape(copies, -1).mean(1) for k in (1, 5, 50)
    ]
    means, errors = [b.mean() for b in bounds], [b.std() / copies**0.5 for b in bounds]
    assert means[0] < means[1] < means[2]
    assert means[2] < truth.mean() + 4 * errors[2]
    assert truth.mean() - means[2] < 0.5 * (truth.mean() - means[0])


def assert_within_error(evidence: Any, truth: Tensor) -> None:
    """Every datum within 4.5 of its own standard errors, and those small enough
    to say something.
    """
    gap = evidence.debiased.values - truth.numpy()
    assert (abs(gap) < 4.5 * evidence.standard_error.values + 1e-9).all(), (
        gap / evidence.standard_error.values
    )
    assert evidence.standard_error.values.max() < 0.2


def assert_copies_are_independent(vae: Any, *data: Tensor) -> None:
    """A deepcopy and an unpickled one give the same numbers, and training them leaves the original
    alone.
    """
    loss = Trace_ELBO()
    pyro.clear_param_store()
    SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), loss).step(*data)
    bounds, state = [], copy.deepcopy(vae.state_dict())
    for other in (vae, copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        torch.manual_seed(1)
        bounds.append(IWAE(3).bound(other.model, other.guide, *data))
        if other is not vae:
            assert_close(bounds[-1], bounds[0], rtol=0, atol=0)
            SVI(other.model, other.guide, pyro.optim.Adam({"lr": 1e-2}), loss).step(*data)
            assert any(not torch.equal(p, state[name]) for name, p in other.state_dict().items())
            assert all(torch.equal(p, state[name]) for name, p in vae.state_dict().items())
    pyro.clear_param_store()

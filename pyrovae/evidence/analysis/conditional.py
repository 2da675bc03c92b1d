"""Evidence of the observed part of x, and draws of the missing part."""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent

from pyrovae.data.arguments import num_arguments
from pyrovae.distributions.base import innermost
from pyrovae.distributions.location_scale import FittedNormal
from pyrovae.evidence.inspection import in_pieces, inspect
from pyrovae.evidence.methods.base import check_count
from pyrovae.evidence.plan import plan
from pyrovae.evidence.sampler import Sampler, check_log_weights
from pyrovae.particles import predict
from pyrovae.particles.separate import is_deterministic
from pyrovae.programs import Program
from pyrovae.weights import ess

_RESAMPLING = 31  # the random stream of draws by weight

__all__ = ["Imputation", "impute", "observe_part"]


class _Part(Messenger):
    """Count only some elements of the observed sites."""

    def __init__(self, mask: Tensor):
        super().__init__()
        self.mask = mask

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] or site_is_subsample(msg) or is_deterministic(msg):
            return
        if tuple(msg["value"].shape[-self.mask.dim() :]) != tuple(self.mask.shape):
            return  # other data than x, such as labels
        fn, rank = msg["fn"], len(msg["fn"].event_shape)
        fn = innermost(fn, Independent)
        if fn.event_shape:
            raise ValueError(
                f"Site '{msg['name']}' is {type(fn).__name__}, whose elements are not independent "
                "given z, so a part of them has no density of its own. Use a likelihood that "
                "factorises."
            )
        if isinstance(fn, FittedNormal):
            raise ValueError(
                f"Site '{msg['name']}' fits one sigma to all elements, and missing ones would "
                "enter it. Use a likelihood that factorises while it is trained, such as "
                'Gaussian("learned").'
            )
        msg["fn"] = MaskedDistribution(fn, self.mask).to_event(rank)


def observe_part(model: Program, guide: Program, *, fill: float = 0.0) -> tuple[Program, Program]:
    r"""Programs of ``(x, mask)`` for which only the elements where ``mask`` is true are observed.

    Their evidence is that of the observed part, :math:`\log p(x_o)`, by any method::

        evidence = pv.log_marginal(*observe_part(vae.model, vae.guide), (x, mask))

    A difference of two is conditional, :math:`\log p(x_m \mid x_o) = \log p(x) - \log p(x_o)`.
    Missing elements of x may be any finite numbers in the likelihood's support; they change
    nothing. The guide cannot be told of a gap, so it sees ``fill`` there. It is then a worse guide:
    the weights still correct it, and Pareto k reports it.

    Args:
        model, guide: Programs whose likelihood of x factorises over elements. x is their first
            argument. Programs of further ones, such as labels y, become programs of (x, y, mask).
        fill: Number that the guide sees in place of missing elements.

    Raises:
        ValueError: On use, if the mask has another shape than x, or the likelihood does not
            factorise.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(data_dim=2, stretch=2.0)  # a wide guide
        >>> x = oracle.sample(50)
        >>> mask = torch.zeros_like(x).bool()
        >>> mask[:, 0] = True
        >>> programs = observe_part(oracle.model, oracle.guide)
        >>> evidence = pv.log_marginal(*programs, (x, mask), num_particles=1000)
        >>> scale = (oracle.weight[0].square().sum() + (2 * oracle.log_noise).exp()).sqrt()
        >>> exact = torch.distributions.Normal(oracle.bias[0], scale).log_prob(x[:, 0]).mean()
        >>> bool(abs(evidence.mean() - exact) < 0.02)
        True
    """
    if num_arguments(model) == 1:
        return partial(_model_of_part, model), partial(_guide_of_part, guide, fill)
    return partial(_model_of_part_given, model), partial(_guide_of_part_given, guide, fill)


def _model_of_part(model: Program, x: Tensor, mask: Tensor) -> Any:
    return _model_of_part_given(model, x, mask)


def _model_of_part_given(model: Program, x: Tensor, *given: Tensor) -> Any:
    *rest, mask = given
    _check_mask(x, mask)
    with _Part(mask.bool()):
        return model(x, *rest)


def _guide_of_part(guide: Program, fill: float, x: Tensor, mask: Tensor) -> Any:
    return _guide_of_part_given(guide, fill, x, mask)


def _guide_of_part_given(guide: Program, fill: float, x: Tensor, *given: Tensor) -> Any:
    *rest, mask = given
    _check_mask(x, mask)
    return guide(torch.where(mask.bool(), x, torch.full_like(x, fill)), *rest)


def _check_mask(x: Tensor, mask: Tensor) -> None:
    if mask.shape != x.shape:
        raise ValueError(
            f"The mask has shape {tuple(mask.shape)}, but the data have {tuple(x.shape)}. "
            "Give one truth value for each element."
        )


class Imputation(NamedTuple):
    """Draws of the missing elements given the observed ones.

    Example:
        See :func:`impute`, which makes it.
    """

    draws: Tensor
    """``(S, B, *data_shape)``: observed elements as they were, missing ones drawn from p(x_m |
    x_o).
    """
    ess: np.ndarray
    """``(B,)``: effective sample size of the weights by which they were drawn."""


def impute(
    model: Program,
    guide: Program,
    x: Any,
    mask: Any,
    *,
    given: tuple[Any, ...] = (),
    num_draws: int = 1,
    num_particles: int = 1000,
    fill: float = 0.0,
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int | None = None,
) -> Imputation:
    r"""Draw the missing elements of x from :math:`p(x_m \mid x_o)`, by sampling importance
    resampling.

    Particles from the guide get the weights :math:`p(x_o, z) / q(z)`. ``num_draws`` of them are
    drawn by their weights, and x is drawn given each. The model may observe one site only.

    Args:
        model, guide, fill: As :func:`observe_part`.
        x: ``(B, *data_shape)`` data; missing elements may be any finite numbers in the support.
        mask: Truth values of the same shape, true where x is observed.
        given: Further arguments of the programs, such as labels.
        num_draws: S, draws for each datum.
        num_particles: Particles K to draw from. The result holds the ESS of their weights.
        seed, memory_budget, device, max_plate_nesting: As :func:`~pyrovae.evidence.log_marginal`.

    Raises:
        ValueError: As :func:`observe_part` and :func:`~pyrovae.evidence.log_marginal`; if the model
            observes several sites; if no draw has a weight.

    References:
        MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets (Mattei and
        Frellsen, 2019), section 4, `arXiv:1812.02633 <https://arxiv.org/abs/1812.02633>`_.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()
        >>> x = oracle.sample(50)
        >>> mask = torch.rand(x.shape) < 0.7
        >>> draws, _ = impute(oracle.model, oracle.guide, x, mask, num_draws=3, num_particles=100)
        >>> draws.shape, bool((draws[:, mask] == x[mask]).all())
        (torch.Size([3, 50, 5]), True)
    """
    check_count("num_draws", num_draws)
    check_count("num_particles", num_particles)
    programs = observe_part(model, guide, fill=fill)
    inspection = inspect(
        *programs, (x, *given, mask), seed, memory_budget, device, max_plate_nesting
    )
    draws, sizes = [], []
    with inspection.evaluating():
        work = plan(inspection, num_particles)
        for index in in_pieces(inspection.num_data, work.num_data):
            some = inspection.sampler().select(index)
            log_w, values = _weigh(some, num_particles, work.num_particles)
            _check_weights(log_w, index[0])
            draws.append(_resample(some, log_w, values, num_draws).cpu())
            sizes.append(ess(log_w).cpu().numpy())
    return Imputation(torch.cat(draws, 1), np.concatenate(sizes))


def _weigh(sampler: Sampler, num_particles: int, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """``(K, B)`` log weights, and the values of each site that they belong to."""
    values: dict[str, list[Tensor]] = {}
    log_w = []
    for first in range(0, num_particles, size):
        particles = sampler.draw(min(size, num_particles - first), first)
        log_w.append(check_log_weights(particles.log_weights).double())
        for name, site in particles.latents.items():
            values.setdefault(name, []).append(site.value)
    return torch.cat(log_w), {name: torch.cat(parts) for name, parts in values.items()}


def _resample(sampler: Sampler, log_w: Tensor, values: dict[str, Tensor], num_draws: int) -> Tensor:
    """``(S, B, *data_shape)``: x given particles that are drawn by their weights."""
    axis, (seen, *_, mask) = sampler.max_plate_nesting, sampler.args
    with sampler.streams(num_draws, salt=_RESAMPLING):
        chosen = torch.multinomial(log_w.softmax(0).T, num_draws, True)  # (B, S)
        picked = {name: _pick(value, chosen, axis) for name, value in values.items()}
        found = predict(sampler.model, picked, sampler.args, max_plate_nesting=axis)
    if len(found) != 1:
        raise ValueError(f"impute fills one observed site, found {list(found)}.")
    (sample,) = found.values()
    return torch.where(mask.bool(), seen, sample.reshape(num_draws, *seen.shape))


def _check_weights(log_w: Tensor, start: int) -> None:
    empty = (log_w.max(0).values == -math.inf).nonzero().flatten()
    if len(empty):
        raise ValueError(
            f"None of the {len(log_w)} draws explains what is observed of datum "
            f"{start + int(empty[0])}: all of their weights are zero. Take more particles, or "
            "check that datum."
        )


def _pick(values: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """``(S, ..., B, *event)``: for each datum the particles that were chosen for it."""
    moved = values.movedim(axis, 0)  # (B, K, ...)
    rows = torch.arange(len(moved), device=values.device)[:, None]
    return moved[rows, chosen].movedim(0, axis)

"""Mixtures over a vector: of diagonal normals, and of the components of any distribution."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import Categorical, TorchDistribution, constraints
from torch import Tensor

from pyrovae.distributions.base import VectorDistribution, double

__all__ = ["ComponentMixture", "DiagonalNormalMixture"]


class DiagonalNormalMixture(VectorDistribution):
    r"""Mixture of C diagonal normals on :math:`\mathbb R^D`.

    .. math:: p(z) = \sum_c \pi_c \prod_d N(z_d;\ \mu_{cd},\ \sigma_{cd}^2)

    Components that the whole batch shares are scored by one matrix product, of the expanded
    squares. It is several times faster than broadcasting to ``(*batch, C, D)``. The product is
    taken in float64, since the expansion cancels: log densities err by about
    :math:`10^{-16} r^2`, where r is the largest distance of a mean from the centre of all means, in
    units of its scale.

    Draws carry pathwise gradients in all parameters, weights included, by implicit differentiation
    of the conditional distribution functions :math:`u_d = F(z_d \mid z_{<d})`, that is,
    :math:`\nabla z = -(\partial u / \partial z)^{-1} \nabla u`.

    Args:
        locs: Means ``(*batch, C, D)``.
        scales: Standard deviations ``(*batch, C, D)``.
        logits: Log weights ``(*batch, C)``, normalised here.

    References:
        Implicit Reparameterization Gradients (Figurnov et al., 2018), equation 6 and section 4,
        `arXiv:1805.08498 <https://arxiv.org/abs/1805.08498>`_.

    Example:
        >>> locs = torch.tensor([[-2.0], [2.0]])
        >>> mixture = DiagonalNormalMixture(locs, torch.ones(2, 1), torch.zeros(2))
        >>> mixture.mean, mixture.variance
        (tensor([0.]), tensor([5.]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "locs": constraints.independent(constraints.real, 2),
        "scales": constraints.independent(constraints.positive, 2),
        "logits": constraints.real_vector,
    }
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(
        self, locs: Tensor, scales: Tensor, logits: Tensor, *, validate_args: bool | None = None
    ):
        self.locs, self.scales = torch.broadcast_tensors(locs, scales)
        self.logits = logits.log_softmax(-1)
        batch_shape = torch.broadcast_shapes(self.locs.shape[:-2], logits.shape[:-1])
        super().__init__(batch_shape, self.locs.shape[-1:], validate_args=validate_args)

    def component_log_prob(self, value: Tensor) -> Tensor:
        r"""``(*batch, C)``: :math:`\log \pi_c + \log N(z; \mu_c, \sigma_c^2)`."""
        self.check_sample(value)
        if self.locs.dim() == 2 and self.logits.dim() == 1:
            log_prob = _shared_log_prob(value, self.locs, self.scales)
        else:
            log_prob = _log_normal(value.unsqueeze(-2), self.locs, self.scales).sum(-1)
        return log_prob + self.logits

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob = self.component_log_prob(value).logsumexp(-1)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            return self._draw(torch.Size(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        value = self.sample(sample_shape)
        if torch.is_grad_enabled() and any(
            p.requires_grad for p in (self.locs, self.scales, self.logits)
        ):
            return _reattach(value, self.locs, self.scales, self.logits)
        return value

    def _draw(self, sample_shape: torch.Size) -> Tensor:
        shape = sample_shape + self.batch_shape
        logits = self.logits.expand(self.batch_shape + self.logits.shape[-1:])
        which = Categorical(logits=logits, validate_args=False).sample(sample_shape)  # (*S, *batch)
        if self.locs.dim() == 2:
            loc, scale = self.locs[which], self.scales[which]
        else:
            index = which[..., None, None].expand(*shape, 1, self.event_shape[0])
            full = shape + self.locs.shape[-2:]
            loc = self.locs.expand(full).gather(-2, index).squeeze(-2)
            scale = self.scales.expand(full).gather(-2, index).squeeze(-2)
        return loc + scale * torch.randn_like(loc)

    @property
    def _mean(self) -> Tensor:
        return (self.logits.exp().unsqueeze(-1) * self.locs).sum(-2)

    @property
    def mean(self) -> Tensor:
        return self._mean.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        # About the mean: a difference of second moments would cancel.
        squares = self.scales.square() + (self.locs - self._mean.unsqueeze(-2)).square()
        variance = (self.logits.exp().unsqueeze(-1) * squares).sum(-2)
        return variance.expand(self.batch_shape + self.event_shape)


class ComponentMixture(VectorDistribution):
    r"""Mixture of C components with equal weights, :math:`p(z) = \frac1C \sum_c p_c(z)`.

    Args:
        components: One distribution with batch shape ``(C,)`` and event shape ``(D,)``.
        max_elements: Largest number of elements ``(n, C, D)`` to score at once.

    Raises:
        ValueError: If the shapes are others.

    Example:
        >>> from pyro.distributions import Normal
        >>> mixture = ComponentMixture(Normal(torch.zeros(2, 1), 1.0).to_event(1))
        >>> mixture.log_prob(torch.zeros(1))  # -log(2 pi) / 2
        tensor(-0.9189)
    """

    has_rsample = False

    def __init__(self, components: TorchDistribution, *, max_elements: int = 2**24):
        if len(components.batch_shape) != 1 or len(components.event_shape) != 1:
            raise ValueError(
                "Components must have batch shape (C,) and event shape (D,), found "
                f"{tuple(components.batch_shape)} and {tuple(components.event_shape)}."
            )
        self.components, self.max_elements = components, max_elements
        super().__init__(torch.Size(), components.event_shape, validate_args=False)

    @property
    def support(self):  # type: ignore[override]
        return self.components.support

    def log_prob(self, value: Tensor) -> Tensor:
        (num,), (dim,) = self.components.batch_shape, self.event_shape
        flat = value.reshape(-1, 1, dim)
        rows = max(1, self.max_elements // (num * dim))
        scores = [self.components.log_prob(chunk).logsumexp(-1) for chunk in flat.split(rows)]
        log_prob = torch.cat(scores).reshape(value.shape[:-1]) - math.log(num)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        (num,), (dim,) = self.components.batch_shape, self.event_shape
        rows = max(1, self.max_elements // (num * dim))
        draws, left = [], shape.numel()
        with torch.no_grad():
            while left > 0:
                values = self.components.sample(torch.Size((min(rows, left),)))  # (n, C, D)
                which = torch.randint(num, values.shape[:1], device=values.device)
                draws.append(values[torch.arange(len(values), device=values.device), which])
                left -= len(values)
        return torch.cat(draws).reshape(shape + self.event_shape)


def _log_normal(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((value - loc) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def _shared_log_prob(value: Tensor, locs: Tensor, scales: Tensor) -> Tensor:
    """``(*batch, C)``: log densities of values ``(*batch, D)`` under components ``(C, D)``."""
    wide_locs, wide_scales = double(locs), double(scales)
    centre = wide_locs.detach().mean(0)
    z, loc = double(value) - centre, wide_locs - centre
    precision = wide_scales.square().reciprocal()
    linear = torch.cat([precision * loc, -0.5 * precision], -1)  # (C, 2D)
    constant = -0.5 * (precision * loc.square()).sum(-1) - wide_scales.log().sum(-1)
    constant = constant - 0.5 * locs.shape[-1] * math.log(2 * math.pi)
    return (torch.cat([z, z.square()], -1) @ linear.T + constant).to(value.dtype)


def _reattach(value: Tensor, locs: Tensor, scales: Tensor, logits: Tensor) -> Tensor:
    """``value`` with the gradient that keeps its conditional distribution functions fixed.

    Only the parameters' gradients are attached; the value itself does not change.
    """

    def conditionals(
        locs: Tensor, scales: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z = value.unsqueeze(-2)
        log_n = _log_normal(z, locs, scales)  # (*batch, C, D)
        earlier = log_n.cumsum(-1).roll(1, -1)
        earlier = torch.cat([torch.zeros_like(earlier[..., :1]), earlier[..., 1:]], -1)
        weight = (logits.unsqueeze(-1) + earlier).softmax(-2)
        below = torch.special.ndtr((z - locs) / scales)
        return (weight * below).sum(-2), weight, below, log_n

    u, *_ = conditionals(locs, scales, logits)
    with torch.no_grad():
        u_, weight, below, log_n = conditionals(locs, scales, logits)
        density = (weight * log_n.exp()).sum(-2).clamp_min(torch.finfo(value.dtype).tiny)
        slope = (locs - value.unsqueeze(-2)) / scales.square()  # (*batch, C, D)
        jacobian = (weight * below).mT @ slope - u_.unsqueeze(-1) * (weight.mT @ slope)
        jacobian = jacobian.tril(-1) + torch.diag_embed(density)
    # The step is zero; its derivative is (du / dz)^-1 times that of u.
    step = torch.linalg.solve_triangular(jacobian, (u - u.detach()).unsqueeze(-1), upper=False)
    return value - step.squeeze(-1)

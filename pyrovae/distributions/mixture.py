r"""Mixtures over a vector: of diagonal normals, and of whatever one batch of components is."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import Categorical, TorchDistribution, constraints
from torch import Tensor

__all__ = ["ComponentMixture", "DiagonalNormalMixture"]


class DiagonalNormalMixture(TorchDistribution):
    r"""Mixture of C diagonal normals on :math:`\mathbb R^D`.

    .. math:: p(z) = \sum_c \pi_c \prod_d N(z_d;\ \mu_{cd},\ \sigma_{cd}^2)

    Components shared by the whole batch are scored by one matrix product over the expanded square, in float64:
    the expansion cancels badly in float32, and the product is several times faster than broadcasting
    ``(*batch, C, D)``. Draws carry pathwise gradients in all parameters, weights included, by implicit
    differentiation of the conditional distribution functions
    :math:`u_d = F(z_d \mid z_{<d})`: :math:`\nabla z = -(\partial u / \partial z)^{-1} \nabla u`.

    Args:
        locs, scales: ``(*batch, C, D)``.
        logits: ``(*batch, C)``, normalised here.

    References:
        Implicit Reparameterization Gradients (Figurnov et al., 2018), equation 6 and section 4.
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

    def expand(self, batch_shape, _instance=None):
        new: Any = self._get_checked_instance(DiagonalNormalMixture, _instance)
        # The parameters stay as they are: they broadcast, and shared components stay recognisable.
        new.locs, new.scales, new.logits = self.locs, self.scales, self.logits
        TorchDistribution.__init__(
            new, torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def component_log_prob(self, value: Tensor) -> Tensor:
        r"""``(*batch, C)``: :math:`\log \pi_c + \log N(z; \mu_c, \sigma_c^2)`."""
        if self._validate_args:
            self._validate_sample(value)
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
    def mean(self) -> Tensor:
        mean = (self.logits.exp().unsqueeze(-1) * self.locs).sum(-2)
        return mean.expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        second = (
            self.logits.exp().unsqueeze(-1) * (self.scales.square() + self.locs.square())
        ).sum(-2)
        return second.expand(self.batch_shape + self.event_shape) - self.mean.square()


class ComponentMixture(TorchDistribution):
    r"""Equal mixture :math:`\frac1C \sum_c p_c(z)` of any distribution's batch of C components.

    Args:
        components: Batch shape ``(C,)``, event shape ``(D,)``.
        max_elements: Most values of ``(n, C, D)`` to score at once.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
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

    def expand(self, batch_shape, _instance=None):
        new: Any = self._get_checked_instance(ComponentMixture, _instance)
        new.components, new.max_elements = self.components, self.max_elements
        TorchDistribution.__init__(
            new, torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        (num,), (dim,) = self.components.batch_shape, self.event_shape
        flat = value.reshape(-1, 1, dim)
        rows = max(1, self.max_elements // (num * dim))
        found = [self.components.log_prob(chunk).logsumexp(-1) for chunk in flat.split(rows)]
        log_prob = torch.cat(found).reshape(value.shape[:-1]) - math.log(num)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        (num,), (dim,) = self.components.batch_shape, self.event_shape
        rows = max(1, self.max_elements // (num * dim))
        drawn, left = [], shape.numel()
        with torch.no_grad():
            while left > 0:
                values = self.components.sample(torch.Size((min(rows, left),)))  # (n, C, D)
                which = torch.randint(num, values.shape[:1], device=values.device)
                drawn.append(values[torch.arange(len(values), device=values.device), which])
                left -= len(values)
        return torch.cat(drawn).reshape(shape + self.event_shape)


def _log_normal(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((value - loc) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def _shared_log_prob(value: Tensor, locs: Tensor, scales: Tensor) -> Tensor:
    """``(*batch, C)`` from values ``(*batch, D)`` and components ``(C, D)``."""
    wide = value.dtype if value.device.type == "mps" else torch.float64
    centre = locs.detach().mean(0)
    z, loc = (value - centre).to(wide), (locs - centre).to(wide)
    precision = scales.to(wide).square().reciprocal()
    linear = torch.cat([precision * loc, -0.5 * precision], -1)  # (C, 2D)
    constant = -0.5 * (precision * loc.square()).sum(-1) - scales.to(wide).log().sum(-1)
    constant = constant - 0.5 * locs.shape[-1] * math.log(2 * math.pi)
    return (torch.cat([z, z.square()], -1) @ linear.T + constant).to(value.dtype)


def _reattach(value: Tensor, locs: Tensor, scales: Tensor, logits: Tensor) -> Tensor:
    """``value`` with the gradient that keeps its conditional distribution functions fixed."""

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
    # Zero in value, minus the solved gradient of u in slope.
    step = torch.linalg.solve_triangular(jacobian, (u - u.detach()).unsqueeze(-1), upper=False)
    return value - step.squeeze(-1)

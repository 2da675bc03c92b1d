r"""Normalizing flows over a vector, from zuko's autoregressive transforms."""

import itertools
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn

__all__ = ["AutoregressiveSteps", "FlowDistribution"]


class AutoregressiveSteps(nn.Module):
    r"""A stack of autoregressive maps :math:`a \mapsto b` of :math:`\mathbb R^D`, given a context.

    ``a`` to ``b`` takes one pass of each network, the way back D passes; with ``coupling`` two. Orders alternate
    between ascending and descending.

    Args:
        dim: D.
        context: Size of the context, or 0.
        num_transforms: Maps in the stack.
        hidden: Widths of each map's masked network.
        transform: ``"affine"``, or ``"spline"`` for monotone rational-quadratic splines on [-5, 5].
        bins: Bins of a spline.
        coupling: Split coordinates in two halves in place of a full order.

    Raises:
        ValueError: If the transform is another word, or a size is not positive.
    """

    def __init__(
        self,
        dim: int,
        context: int = 0,
        *,
        num_transforms: int = 3,
        hidden: Sequence[int] = (128, 128),
        transform: str = "affine",
        bins: int = 8,
        coupling: bool = False,
    ):
        super().__init__()
        with _untouched_torch():
            from zuko.flows.autoregressive import MaskedAutoregressiveTransform
            from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform
        if transform == "spline":
            univariate, shapes = MonotonicRQSTransform, [(bins,), (bins,), (bins - 1,)]
        else:
            univariate, shapes = MonotonicAffineTransform, [(), ()]
        order: Any = torch.arange(dim)
        shapes = [torch.Size(shape) for shape in shapes]
        self.steps = nn.ModuleList(
            MaskedAutoregressiveTransform(
                dim,
                context,
                passes=2 if coupling else None,
                order=order if i % 2 == 0 else order.flip(0),
                univariate=univariate,
                shapes=shapes,
                hidden_features=tuple(hidden),
            )
            if dim > 1
            # One coordinate has no order: the context alone, or nothing, sets its map.
            else _ElementWise(context, partial(univariate), shapes, tuple(hidden))
            for i in range(num_transforms)
        )

    def forward(self, a: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """b, and the log-determinant of db/da, ``(*batch)``."""
        total: Any = 0.0
        for step in self.steps:
            a, log_det = step(context).call_and_ladj(a)
            total = total + log_det
        return a, total

    def inverse(self, b: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """a, and the log-determinant of da/db, ``(*batch)``."""
        total: Any = 0.0
        for step in reversed(self.steps):
            transform = step(context)
            a = transform.inv(b)
            total = total - transform.log_abs_det_jacobian(a, b)
            b = a
        return b, total


def check_flow(
    name: str, num_transforms: int, hidden: Sequence[int], transform: str, bins: int
) -> None:
    """Raise a ValueError if a flow's options make none."""
    if transform not in ("affine", "spline"):
        raise ValueError(f"{name} transform must be 'affine' or 'spline', found {transform!r}.")
    if num_transforms < 1 or bins < 2 or not hidden or min(hidden) < 1:
        raise ValueError(
            f"{name} needs num_transforms >= 1, bins >= 2 and positive hidden widths, found "
            f"{num_transforms}, {bins} and {tuple(hidden)}."
        )


class _ElementWise(nn.Module):
    """A map of one coordinate, whose parameters are free or come from the context."""

    def __init__(self, context: int, univariate: Any, shapes: list, hidden: tuple[int, ...]):
        super().__init__()
        self.univariate, self.shapes = univariate, shapes
        self.sizes = [torch.Size(shape).numel() for shape in shapes]
        self.free = nn.Parameter(0.01 * torch.randn(sum(self.sizes)))
        self.net = None
        if context:
            widths = [context, *hidden, sum(self.sizes)]
            layers = [
                m for i, o in itertools.pairwise(widths) for m in (nn.Linear(i, o), nn.ReLU())
            ]
            self.net = nn.Sequential(*layers[:-1])

    def forward(self, context: Tensor | None) -> Any:
        flat = self.free if self.net is None else self.free + self.net(context)
        flat = flat.unsqueeze(-2)  # the coordinate's own dimension
        parts = flat.split(self.sizes, -1)
        shaped = [
            p.reshape(p.shape[:-1] + torch.Size(s)) for p, s in zip(parts, self.shapes, strict=True)
        ]
        return _Joint(self.univariate(*shaped))


class _Joint:
    """A univariate transform as one of a vector with one coordinate."""

    def __init__(self, base: Any):
        self.base = base

    def call_and_ladj(self, value: Tensor) -> tuple[Tensor, Tensor]:
        value, log_det = self.base.call_and_ladj(value)
        return value, log_det.sum(-1)

    def inv(self, value: Tensor) -> Tensor:
        return self.base.inv(value)

    def log_abs_det_jacobian(self, a: Tensor, b: Tensor) -> Tensor:
        return self.base.log_abs_det_jacobian(a, b).sum(-1)


class FlowDistribution(TorchDistribution):
    r"""Density of a base variable pushed through an invertible map.

    .. math:: \log p(z) = \log p_0(e) + \log\left|\det \frac{\partial e}{\partial z}\right|, \qquad e = f^{-1}(z)

    The base variable of the last draw is remembered, so scoring that very tensor takes no inversion; any other
    tensor is inverted, as often as asked.

    Args:
        base: Distribution of e, event shape ``(D,)``.
        steps: The stack of maps.
        context: ``(*batch, context)`` or None.
        fast: ``"density"`` for a stack from z to e, ``"draw"`` for one from e to z.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(
        self, base: Any, steps: AutoregressiveSteps, context: Tensor | None = None, *, fast: str
    ):
        self.base, self.steps, self.context, self.fast = base, steps, context, fast
        self._last: tuple[Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        new: Any = self._get_checked_instance(FlowDistribution, _instance)
        new.base, new.steps, new.context, new.fast = (
            self.base.expand(batch_shape),
            self.steps,
            self.context,
            self.fast,
        )
        new._last = None
        TorchDistribution.__init__(
            new, torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        return new

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = self.base.rsample(torch.Size(sample_shape))
        push = self.steps if self.fast == "draw" else self.steps.inverse
        value, log_det = push(noise, self.context)
        self._last = (value, self.base.log_prob(noise) - log_det)
        return value

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._last is not None and value is self._last[0]:
            known = self._last[1]
            # A draw made without gradients says nothing of the gradients asked for now.
            if known.requires_grad or not torch.is_grad_enabled():
                return known if torch.is_grad_enabled() else known.detach()
        pull = self.steps if self.fast == "density" else self.steps.inverse
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        noise, log_det = pull(value.expand(shape + self.event_shape), self.context)
        return self.base.log_prob(noise) + log_det


@contextmanager
def _untouched_torch():
    """Take back what importing zuko does to every torch distribution."""
    distribution: Any = torch.distributions.Distribution
    inverse: Any = torch.distributions.transforms._InverseTransform
    before = distribution._validate_args, distribution.__dict__["arg_constraints"], inverse.__name__
    try:
        yield
    finally:
        distribution._validate_args, distribution.arg_constraints, inverse.__name__ = before

"""Normalizing flows over a vector, from zuko's autoregressive transforms."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pyro.distributions import constraints
from torch import Size, Tensor, nn

from pyrovae.distributions.base import VectorDistribution

__all__ = ["AutoregressiveSteps", "FlowDistribution", "TransformKind"]

TransformKind = Literal["affine", "spline"]


class AutoregressiveSteps(nn.Module):
    r"""A stack of autoregressive maps :math:`a \mapsto b` of :math:`\mathbb R^D`, given a context.

    From a to b each map runs its network once. The way back takes D runs, or two with
    ``coupling``. The maps take the coordinates in ascending and in descending order by turns.

    Args:
        dim: D.
        context: Size of the context, or 0.
        num_transforms: Number of maps.
        hidden: Widths of each map's masked network.
        transform: ``"affine"``, or ``"spline"`` for monotone rational-quadratic splines on [-5, 5].
        bins: Bins of a spline.
        coupling: Split the coordinates in two halves, the second of which depends on the first.

    Raises:
        ValueError: If the transform is another word, or a size is not positive.

    Example:
        >>> steps = AutoregressiveSteps(3, num_transforms=2, hidden=(8,))
        >>> b, log_det = steps(torch.zeros(5, 3))
        >>> bool((steps.inverse(b)[0].abs() < 1e-5).all()), log_det.shape
        (True, torch.Size([5]))
    """

    def __init__(
        self,
        dim: int,
        context: int = 0,
        *,
        num_transforms: int = 3,
        hidden: Sequence[int] = (128, 128),
        transform: TransformKind = "affine",
        bins: int = 8,
        coupling: bool = False,
    ):
        super().__init__()
        check_flow("AutoregressiveSteps", num_transforms, hidden, transform, bins)
        with _unpatched_torch():
            from zuko.flows.autoregressive import MaskedAutoregressiveTransform
            from zuko.transforms import (
                DependentTransform,
                MonotonicAffineTransform,
                MonotonicRQSTransform,
            )
        univariate, shapes = {
            "affine": (MonotonicAffineTransform, [Size(), Size()]),
            "spline": (MonotonicRQSTransform, [Size([bins]), Size([bins]), Size([bins - 1])]),
        }[transform]
        order: Any = torch.arange(dim)
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
            # A single coordinate depends on no other one: its map depends on the context alone.
            else _ScalarMap(context, univariate, DependentTransform, shapes, tuple(hidden))
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
    """Raise a ValueError if no flow has these options."""
    if transform not in ("affine", "spline"):
        raise ValueError(f"{name} transform must be 'affine' or 'spline', found {transform!r}.")
    if num_transforms < 1 or bins < 2 or not hidden or min(hidden) < 1:
        raise ValueError(
            f"{name} needs num_transforms >= 1, bins >= 2 and positive hidden widths, found "
            f"{num_transforms}, {bins} and {tuple(hidden)}."
        )


class _ScalarMap(nn.Module):
    """A map of one coordinate, whose parameters are learned or computed from the context."""

    def __init__(
        self,
        context: int,
        univariate: Callable[..., Any],
        dependent: Callable[..., Any],
        shapes: list[Size],
        hidden: tuple[int, ...],
    ):
        super().__init__()
        self.univariate, self.dependent, self.shapes = univariate, dependent, shapes
        self.sizes = [shape.numel() for shape in shapes]
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
        flat = flat.unsqueeze(-2)  # the dimension of the coordinate
        parameters = [
            values.reshape(values.shape[:-1] + shape)
            for values, shape in zip(flat.split(self.sizes, -1), self.shapes, strict=True)
        ]
        return self.dependent(self.univariate(*parameters), 1)


class FlowDistribution(VectorDistribution):
    r"""Density of a base variable that is mapped through an invertible function.

    .. math:: \log p(z) = \log p_0(e) + \log\left|\det \frac{\partial e}{\partial z}\right|,
              \qquad e = f^{-1}(z)

    The distribution remembers the base variable of its last draw, so that scoring that very tensor
    takes no inversion. Any other tensor is inverted.

    Args:
        base: Distribution of e, event shape ``(D,)``.
        steps: The stack of maps.
        context: ``(*batch, context)`` or None.
        fast: ``"density"`` for a stack from z to e, ``"draw"`` for one from e to z.

    Example:
        >>> from pyro.distributions import Normal
        >>> base = Normal(torch.zeros(3), 1.0).to_event(1)
        >>> flow = FlowDistribution(base, AutoregressiveSteps(3, hidden=(8,)), fast="density")
        >>> flow.log_prob(flow.sample((5,))).shape
        torch.Size([5])
    """

    support = constraints.real_vector  # type: ignore[assignment]
    has_rsample = True

    def __init__(
        self,
        base: Any,
        steps: AutoregressiveSteps,
        context: Tensor | None = None,
        *,
        fast: Literal["density", "draw"],
    ):
        self.base, self.steps, self.context, self.fast = base, steps, context, fast
        self._last: tuple[Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape)
        new.base, new._last = self.base.expand(new.batch_shape), None
        return new

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = self.base.rsample(torch.Size(sample_shape))
        push = self.steps if self.fast == "draw" else self.steps.inverse
        value, log_det = push(noise, self.context)
        self._last = (value, self.base.log_prob(noise) - log_det)
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        if self._last is not None and value is self._last[0]:
            known = self._last[1]
            # The density of a draw that was made without gradients has none to give now.
            if known.requires_grad or not torch.is_grad_enabled():
                return known if torch.is_grad_enabled() else known.detach()
        pull = self.steps if self.fast == "density" else self.steps.inverse
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        noise, log_det = pull(value.expand(shape + self.event_shape), self.context)
        return self.base.log_prob(noise) + log_det


@contextmanager
def _unpatched_torch():
    """Undo what importing zuko does to all distributions of torch."""
    distribution: Any = torch.distributions.Distribution
    inverse: Any = torch.distributions.transforms._InverseTransform
    before = distribution._validate_args, distribution.__dict__["arg_constraints"], inverse.__name__
    try:
        yield
    finally:
        distribution._validate_args, distribution.arg_constraints, inverse.__name__ = before

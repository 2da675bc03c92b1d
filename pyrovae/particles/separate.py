"""Distributions of several runs of one program, one run for each particle, taken together."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import Delta, TorchDistribution
from torch import Tensor
from torch.distributions import Independent, constraints, kl_divergence, register_kl

from pyrovae.distributions import base


class Separate(TorchDistribution):
    """K distributions of one site, of batch shape ``(K, ..., B)``, each from its own run of the
    program.

    Args:
        fns: The distribution of each run.
        nesting: Batch dimensions of the result beside K; missing ones are added in front of the
            data.
        values: The value of each run, where the runs have drawn or observed one.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, fns: Sequence[Any], nesting: int, values: Sequence[Tensor] = ()):
        self.fns, self.nesting, self.values = tuple(fns), nesting, tuple(values)
        self.stacked = stack(self.values, nesting - len(fns[0].batch_shape)) if values else None
        super().__init__(self._pad(fns[0].batch_shape), fns[0].event_shape, validate_args=False)

    def _pad(self, shape: Sequence[int]) -> torch.Size:
        return torch.Size((len(self.fns), *[1] * (self.nesting - len(shape)), *shape))

    @property
    def base_dist(self) -> Any:
        """The distribution of the first run, which has the type of all of them."""
        return self.fns[0]

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return all(getattr(fn, "has_rsample", False) for fn in self.fns)

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        return self.fns[0].support

    def log_prob(self, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Flows remember the tensor that they have drawn, and score that very tensor at no cost.
        values = self.values if value is self.stacked else value.unbind(0)
        pairs = zip(self.fns, values, strict=True)
        scores = [fn.log_prob(v, *args, **kwargs) for fn, v in pairs]
        return stack(scores, self.nesting - scores[0].dim())

    def elements(self, split: Any) -> "Separate":
        """The same with ``split`` applied to the distribution of each run."""
        fns = [split(fn) for fn in self.fns]
        made = Separate(fns, self.nesting + len(fns[0].batch_shape) - len(self.fns[0].batch_shape))
        made.values, made.stacked = self.values, self.stacked
        return made

    def as_one(self) -> Any:
        """The distribution of a single run, expanded to the batch shape of all."""
        return self.fns[0].expand(self._pad(self.fns[0].batch_shape))


WRAPPERS = (*base.WRAPPERS, Separate)
"""Distributions that hold another one of the same kind of values."""


def is_deterministic(site: Any) -> bool:
    """Whether a site only notes a value, as ``pyro.deterministic`` and ``poutine.reparam`` do: an
    observed point mass that a mask within it hides.
    """
    fn, hidden = site["fn"], False
    while isinstance(fn, WRAPPERS):
        hidden = hidden or getattr(fn, "_mask", None) is False
        fn = fn.base_dist
    observed = site["is_observed"] or site["infer"].get("was_observed")
    return bool(observed and hidden and isinstance(fn, Delta))


def stack(tensors: Sequence[Tensor], padding: int) -> Tensor:
    """The tensors along a new first dimension, followed by ``padding`` dimensions of size one."""
    first = tensors[0]
    same = all(tensor is first for tensor in tensors)
    whole = first.expand(len(tensors), *first.shape) if same else torch.stack(list(tensors))
    return whole.reshape(len(tensors), *[1] * max(padding, 0), *first.shape)


@register_kl(Separate, Separate)
def _kl_separate(p: Separate, q: Separate) -> Tensor:
    pieces = [kl_divergence(a, b) for a, b in zip(p.fns, q.fns, strict=True)]
    return stack(pieces, p.nesting - pieces[0].dim())


def by_element(distribution: Any, name: str, role: str) -> Any:
    """The distribution with the elements of its event as batch dimensions.

    Raises:
        ValueError: If the elements are not independent of one another.
    """
    if isinstance(distribution, Separate):
        return distribution.elements(lambda fn: by_element(fn, name, role))
    inner = base.innermost(distribution, Independent)
    if inner.event_shape:
        raise ValueError(
            f"The {role} of site '{name}' is a {type(inner).__name__}, which is not independent "
            "across elements. Treat the site as a whole, or use an elementwise distribution such "
            "as a diagonal normal."
        )
    return inner

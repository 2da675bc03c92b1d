"""torch's operators that draw random numbers, and the modes that meet them."""

from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["DispatchMode", "FACTORIES", "IN_PLACE", "LIKE", "SAMPLERS", "UNSTEADY", "Factory"]

_aten = torch.ops.aten

_below, _between = _aten.random_.to, getattr(_aten.random_, "from")

IN_PLACE = {
    _aten.normal_.default,
    _aten.uniform_.default,
    _aten.exponential_.default,
    _aten.cauchy_.default,
    _aten.log_normal_.default,
    _aten.geometric_.default,
    _aten.bernoulli_.float,
    _aten.random_.default,
    _below,
    _between,
}
"""Those that fill a tensor, element by element."""


class Factory(NamedTuple):
    """How a function makes a random tensor: it fills an empty one in place."""

    fill: Any
    size: int
    """The place of the size among the arguments; those in front of it go to ``fill``."""
    dtype: torch.dtype | None = None
    """Of the tensor where none is given; None for torch's default."""


FACTORIES = {
    _aten.rand.default: Factory(_aten.uniform_.default, 0),
    _aten.rand.generator: Factory(_aten.uniform_.default, 0),
    _aten.randn.default: Factory(_aten.normal_.default, 0),
    _aten.randn.generator: Factory(_aten.normal_.default, 0),
    _aten.normal.float_float: Factory(_aten.normal_.default, 2),
    _aten.randint.default: Factory(_below, 1, torch.int64),
    _aten.randint.generator: Factory(_below, 1, torch.int64),
    _aten.randint.low: Factory(_between, 2, torch.int64),
    _aten.randint.low_generator: Factory(_between, 2, torch.int64),
}
"""Functions of a size."""

LIKE = {
    getattr(function, name): fill
    for function, names, fill in (
        (_aten.rand_like, ("default", "generator"), _aten.uniform_.default),
        (_aten.randn_like, ("default", "generator"), _aten.normal_.default),
        (_aten.randint_like, ("default", "generator"), _below),
        (_aten.randint_like, ("low_dtype", "low_generator_dtype"), _between),
        (_aten.bernoulli, ("p",), _aten.bernoulli_.float),
    )
    for name in names
    if name in function.overloads()  # older versions of torch have fewer
}
"""Functions of a tensor whose layout alone counts, and how they fill an empty one like it."""

UNSTEADY = {
    _aten.poisson.default,
    _aten.binomial.default,
    _aten._standard_gamma.default,
    _aten._sample_dirichlet.default,
}
"""Functions of tensors that take more random numbers for some values than for others."""

SAMPLERS = UNSTEADY | {
    _aten.normal.Tensor_Tensor,
    _aten.normal.Tensor_float,
    _aten.normal.float_Tensor,
    _aten.bernoulli.default,
}
"""Functions of tensors of parameters."""


class DispatchMode(TorchDispatchMode):
    """Base of the modes that look at operators while programs run."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch loads its compiler, which takes seconds

"""torch's operators that draw random numbers."""

import torch

__all__ = ["IN_PLACE", "SAMPLERS", "UNSTEADY"]

_aten = torch.ops.aten

IN_PLACE = {
    _aten.normal_.default,
    _aten.uniform_.default,
    _aten.exponential_.default,
    _aten.cauchy_.default,
    _aten.log_normal_.default,
    _aten.geometric_.default,
    _aten.bernoulli_.float,
}
"""Those that fill a tensor, element by element."""

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

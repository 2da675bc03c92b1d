"""A proposal that is fitted to each datum, in place of the guide."""

import math
from contextlib import ExitStack
from typing import Any

import pyro
import torch
from pyro.distributions import Gamma, Normal
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.base import Broadcasting

__all__ = ["DiagonalGuide"]


class DiagonalGuide:
    """A guide for given data: for each latent site of each datum a diagonal normal, or a Student t
    of that scale.

    Args:
        locs, scales: By site, ``(..., B, *event)``.
        event_dims: By site, the number of event dimensions.
        degrees: Degrees of freedom of the Student t; infinite for a normal.
        full_size: Of the data plate, where the model knows how many data there are in all.
    """

    def __init__(
        self,
        locs: dict[str, Tensor],
        scales: dict[str, Tensor],
        event_dims: dict[str, int],
        degrees: float = math.inf,
        full_size: int | None = None,
    ):
        self.locs, self.scales, self.event_dims, self.degrees = locs, scales, event_dims, degrees
        self.full_size = full_size

    def select(self, index: Any) -> "DiagonalGuide":
        """The guide of some of the data."""

        def pick(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            every = slice(None)
            return {
                name: t[(..., index, *[every] * self.event_dims[name])]
                for name, t in tensors.items()
            }

        known = self.event_dims, self.degrees, self.full_size
        return DiagonalGuide(pick(self.locs), pick(self.scales), *known)

    def __call__(self, *args: Tensor) -> None:
        with pyro.plate("_refined", self.full_size or len(args[0]), subsample=args[0], dim=-1):
            for name, loc in self.locs.items():
                scale, event_dim = self.scales[name], self.event_dims[name]
                if math.isinf(self.degrees):
                    law: Any = Normal(loc, scale, validate_args=False).to_event(event_dim)
                else:
                    law = _DiagonalStudentT(self.degrees, loc, scale, event_dim)
                inner = enumerate(reversed(loc.shape[: loc.dim() - event_dim - 1]), 2)
                with ExitStack() as plates:
                    for dim, size in inner:
                        plates.enter_context(pyro.plate(f"_{name}_{dim}", size, dim=-dim))
                    pyro.sample(name, law)


class _DiagonalStudentT(Broadcasting):
    """Multivariate Student t with a diagonal scale matrix: one chi-square for all elements of a
    site.
    """

    has_rsample = True

    def __init__(self, df: float, loc: Tensor, scale: Tensor, event_dim: int):
        self.df, self.loc, self.scale = df, loc, scale
        place = loc.dim() - event_dim
        super().__init__(loc.shape[:place], loc.shape[place:], validate_args=False)

    @property
    def support(self) -> Any:  # type: ignore[override]
        """All real numbers."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        batch = (*sample_shape, *self.batch_shape)
        kind: dict[str, Any] = {"dtype": self.loc.dtype, "device": self.loc.device}
        noise = torch.randn(*batch, *self.event_shape, **kind)
        half = torch.full(batch, 0.5 * self.df, **kind)
        chi2 = 2 * Gamma(half, torch.ones_like(half), validate_args=False).rsample()
        stretch = (self.df / chi2).sqrt().reshape(*batch, *[1] * len(self.event_shape))
        return self.loc + self.scale * stretch * noise

    def log_prob(self, value: Tensor) -> Tensor:
        df, num = self.df, math.prod(self.event_shape)
        offset = math.lgamma(0.5 * (df + num)) - math.lgamma(0.5 * df)
        offset -= 0.5 * num * math.log(df * math.pi)
        dims = len(self.event_shape)
        squares: Any = sum_rightmost(((value - self.loc) / self.scale).square(), dims)
        width: Any = sum_rightmost(self.scale.log(), dims)
        return offset - width - 0.5 * (df + num) * (squares / df).log1p()

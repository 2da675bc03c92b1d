"""The variational mixture of posteriors."""

import math
from typing import Any, Literal

import torch
from pyro.distributions import Independent, Normal
from torch import Tensor, nn

from pyrovae.distributions.base import innermost
from pyrovae.distributions.mixture import ComponentMixture, DiagonalNormalMixture
from pyrovae.priors.base import Prior

__all__ = ["Vamp"]


class Vamp(Prior):
    r"""Mixture of the posterior at C learned pseudo-inputs u, ``(C, *data_shape)``.

    .. math:: p(z) = \frac1C \sum_{c=1}^C q(z \mid u_c)

    The prior lives on the space of its posterior, which may be any posterior with a density. A draw
    takes a component at random, and then a draw from it.

    In evaluation mode the posterior is evaluated at the pseudo-inputs once. The result is kept
    until a parameter changes, and is used only where no gradient can be asked for (gradients are
    disabled, or all parameters frozen).

    Args:
        num_components: Number of pseudo-inputs C.
        bounds: Range of the data, to which pseudo-inputs are clamped; None for no bounds.
        start: Initial pseudo-inputs. ``"random"``: uniform within finite bounds, otherwise normal
            around zero or around the finite bound. ``"data"``: training data chosen at random,
            given by ``vae.initialize_from(train)`` or by the prior's own ``initialize_from``; the
            command line does this by itself.

    Raises:
        ValueError: If ``num_components < 1``, the bounds are empty, ``start`` is another word, or
            the posterior is a point mass; on use, if ``start="data"`` and no data were given.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), equation 9,
        `arXiv:1705.07120 <https://arxiv.org/abs/1705.07120>`_.

    Example:
        >>> from pyrovae import nets, posteriors
        >>> sizes = {"latent_dim": 2, "data_shape": (6,)}
        >>> posterior = posteriors.DiagonalNormal().bind(encoder=nets.MLP(8), **sizes)
        >>> prior = Vamp(num_components=5).bind(posterior=posterior, **sizes)
        >>> prior.pseudo_inputs().shape, prior().sample((3,)).shape
        (torch.Size([5, 6]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        num_components: int = 500,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        start: Literal["random", "data"] = "random",
    ):
        super().__init__()
        if num_components < 1:
            raise ValueError(f"Vamp needs num_components >= 1, found {num_components}.")
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(
                f"Vamp bounds must be (low, high) with low < high, or None, found {bounds}."
            )
        if start not in ("random", "data"):
            raise ValueError(f"Vamp start must be 'random' or 'data', found {start!r}.")
        self.num_components, self.bounds, self.start = num_components, bounds, start
        self._started = start == "random"
        self._cache: tuple[list[tuple[Tensor, int]], Any] | None = None

    @property
    def starts_at_data(self) -> bool:  # type: ignore[override]
        """Whether ``start="data"``."""
        return self.start == "data"

    @property
    def space(self) -> str:  # type: ignore[override]
        """The space of the posterior."""
        return self.posterior.space

    def build(self) -> None:
        if self.posterior is None:
            raise ValueError(
                "Vamp is a mixture of posteriors: bind(..., posterior=...) hands it one, as VAE "
                "does."
            )
        if not getattr(self.posterior, "has_density", True):
            raise ValueError(
                f"Vamp cannot mix {self.posterior!r}, a point mass. Use posteriors.DiagonalNormal "
                "or another density."
            )
        low, high = self.bounds or (-math.inf, math.inf)
        shape = (self.num_components, *self.data_shape)
        if math.isfinite(low) and math.isfinite(high):
            start = low + (high - low) * torch.rand(shape)
        else:
            start = torch.randn(shape) + next((b for b in (low, high) if math.isfinite(b)), 0.0)
        self.raw_inputs = nn.Parameter(start.clamp(low, high))

    @torch.no_grad()
    def initialize_from(self, data: Tensor) -> None:
        """Use ``num_components`` different data, chosen at random, as pseudo-inputs.

        Args:
            data: ``(N, *data_shape)``.

        Raises:
            ValueError: If there are fewer data than pseudo-inputs, or they lie outside the bounds.
        """
        if len(data) < self.num_components:
            raise ValueError(
                f"Vamp has {self.num_components} pseudo-inputs, found {len(data)} data to start "
                "them from. Give more data, or num_components at most their number."
            )
        start = data[torch.randperm(len(data))[: self.num_components].to(data.device)].to(
            self.raw_inputs
        )
        if self.bounds is not None and ((start < self.bounds[0]) | (start > self.bounds[1])).any():
            raise ValueError(
                f"Vamp has bounds={self.bounds}, found data from {start.min().item():.4g} to "
                f"{start.max().item():.4g}. Give the bounds of the data, or bounds=None."
            )
        self.raw_inputs.copy_(start)
        self._started = True

    def pseudo_inputs(self) -> Tensor:
        """``(C, *data_shape)``: the pseudo-inputs, within the bounds."""
        return self.raw_inputs if self.bounds is None else self.raw_inputs.clamp(*self.bounds)

    def forward(self) -> DiagonalNormalMixture | ComponentMixture:
        if not self._started:
            raise ValueError(
                "Vamp(start='data') has seen no data yet. Before training call "
                "vae.initialize_from(train), or vae.prior.initialize_from(train), which leaves the "
                "decoder alone."
            )
        tensors = [self.raw_inputs, *self.posterior.parameters(), *self.posterior.buffers()]
        fixed = not torch.is_grad_enabled() or not any(t.requires_grad for t in tensors)
        # Functional calls and graph capture replace the parameters by other tensors for a while.
        kept = isinstance(self.raw_inputs, nn.Parameter)
        if self.training or self.posterior.training or not (fixed and kept):
            return self._mixture()
        key = [(t, t._version) for t in tensors]
        if self._cache is None or not _same(self._cache[0], key):
            self._cache = key, self._mixture()
        return self._cache[1]

    def _mixture(self) -> DiagonalNormalMixture | ComponentMixture:
        components = self.posterior(self.pseudo_inputs())  # batch (C,), event (D,)
        base = innermost(components, Independent)
        if isinstance(base, Normal) and components.event_shape:
            weights = torch.zeros_like(base.loc[:, 0])
            return DiagonalNormalMixture(base.loc, base.scale, weights, validate_args=False)
        return ComponentMixture(components)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._started |= f"{prefix}raw_inputs" in state_dict
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> "Vamp":
        self._cache = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> "Vamp":
        self._cache = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}


def _same(left: list[tuple[Tensor, int]], right: list[tuple[Tensor, int]]) -> bool:
    return len(left) == len(right) and all(
        a is b and i == j for (a, i), (b, j) in zip(left, right, strict=True)
    )

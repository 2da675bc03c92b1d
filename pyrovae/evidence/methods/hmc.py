"""Hamiltonian Monte Carlo on a path of densities, one step size for each datum,
all chains at once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.compilation import compile
from pyrovae.evidence.streams import DatumStreams

Values = dict[str, Tensor]
Path = Callable[[Values], tuple[Tensor, Tensor]]
"""Latent values to (log start density, log of joint over start), each ``(C, B)``."""


@dataclass
class State:
    """Chains: values by site, and the two log-densities there."""

    values: Values
    log_start: Tensor
    log_ratio: Tensor


@torch.no_grad()
def evaluate(path: Path, values: Values) -> State:
    """Chains at given values."""
    log_start, log_ratio = path(values)
    return State(values, log_start, log_ratio)


class Transition:
    r"""One HMC step that leaves :math:`\pi_\beta \propto \pi_0^{1-\beta}\, p(x, z)^\beta` as it is.

    Args:
        path: Both log-densities at given values.
        scales: By site, ``(1, B, *event)``: the lengths on which the density is thought to vary;
            momenta are standard normal in units of their inverse.
        axis: Of the data in a value.
        num_leapfrog: Leapfrog steps of each proposal.
        settings: Programs and other objects that the path reads.
        captured: Whether the slopes run as one captured graph, where there can be one.

    References:
        MCMC Using Hamiltonian Dynamics (Neal, 2011), section 5.3.
    """

    def __init__(
        self,
        path: Path,
        scales: Values,
        axis: int,
        num_leapfrog: int,
        settings: Sequence[Any] = (),
        captured: bool = False,
    ):
        self.path, self.scales, self.axis, self.num_leapfrog = path, scales, axis, num_leapfrog
        self._graph = compile(
            self._gradients,
            settings=settings,
            random=False,
            backend=False,
            quiet=True,
            enabled=captured,
        )

    def __call__(
        self, state: State, beta: Tensor, step: Tensor, streams: DatumStreams
    ) -> tuple[State, Tensor]:
        """New chains and the probability ``(C, B)`` with which each proposal was to be accepted.

        Args:
            state: The chains.
            beta, step: ``(B,)``: place on the path and step size of each datum.
            streams: Where random numbers come from.
        """
        momenta = {name: streams.normal(value) for name, value in state.values.items()}
        energy = state.log_start + beta * state.log_ratio - self._kinetic(momenta)
        moved = {name: value.clone() for name, value in state.values.items()}
        slopes, _, _ = self._slopes(moved, beta)
        log_start, log_ratio = state.log_start, state.log_ratio
        sizes = {
            name: self._spread(step, value) * self.scales[name] for name, value in moved.items()
        }
        half = {name: 0.5 * size for name, size in sizes.items()}
        for _ in range(self.num_leapfrog):
            momenta = {name: p + half[name] * slopes[name] for name, p in momenta.items()}
            moved = {name: moved[name] + sizes[name] * p for name, p in momenta.items()}
            slopes, log_start, log_ratio = self._slopes(moved, beta)
            momenta = {name: p + half[name] * slopes[name] for name, p in momenta.items()}
        proposed = log_start + beta * log_ratio - self._kinetic(momenta)
        log_accept = (proposed - energy).nan_to_num(nan=-math.inf, posinf=-math.inf).clamp(max=0.0)
        laid = log_accept[(slice(None), *[None] * (self.axis - 1))]  # as values are, (C, ..., B)
        accepted = (streams.uniform(laid).log() < laid).reshape(log_accept.shape)
        values = {
            name: torch.where(self._spread(accepted, old), moved[name], old)
            for name, old in state.values.items()
        }
        chosen = State(
            values,
            torch.where(accepted, log_start, state.log_start),
            torch.where(accepted, log_ratio, state.log_ratio),
        )
        return chosen, log_accept.exp()

    def _slopes(self, values: Values, beta: Tensor) -> tuple[Values, Tensor, Tensor]:
        ordered = [values[name].detach() for name in self.scales]
        slopes, log_start, log_ratio = self._graph(ordered, beta)
        return dict(zip(self.scales, slopes, strict=True)), log_start, log_ratio

    def _gradients(
        self, ordered: Sequence[Tensor], beta: Tensor
    ) -> tuple[Sequence[Tensor], Tensor, Tensor]:
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in ordered]
            log_start, log_ratio = self.path(dict(zip(self.scales, leaves, strict=True)))
            slopes = torch.autograd.grad((log_start + beta * log_ratio).sum(), leaves)
        return slopes, log_start.detach(), log_ratio.detach()

    def _kinetic(self, momenta: Values) -> Tensor:
        total: Tensor | float = 0.0
        for p in momenta.values():
            squares = p.square().movedim(self.axis, 1)
            total = total + 0.5 * squares.reshape(*squares.shape[:2], -1).sum(-1)
        assert isinstance(total, Tensor)
        return total

    def _spread(self, per_datum: Tensor, like: Tensor) -> Tensor:
        """``(B,)`` or ``(C, B)`` laid along the chains' and the data's axes of a value."""
        shape = [1] * like.dim()
        shape[self.axis] = like.shape[self.axis]
        if per_datum.dim() == 2:
            shape[0] = per_datum.shape[0]
        return per_datum.reshape(shape)

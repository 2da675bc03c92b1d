"""Chains that walk from a start density to the posterior, or back."""

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from pyrovae.evidence.methods.base import Estimate
from pyrovae.evidence.methods.hmc import State, Transition, Values, evaluate
from pyrovae.evidence.methods.temperatures import AnnealingPath, even_out, schedule
from pyrovae.evidence.sampler import Sampler, check_log_weights, repeat_values
from pyrovae.evidence.streams import DatumStreams
from pyrovae.particles import Particles, real_support
from pyrovae.weights import RunningWeights

__all__ = ["SCALE_DRAWS", "Anneal", "check_sites"]

Watch = Callable[[Tensor, Tensor], Any]

SCALE_DRAWS = 64
"""Draws of the start density whose spread gives the length of a step."""

_FIRST_STEPS = 15  # transitions at the first temperature of the warm-up
_SCATTER = 4  # temperatures for each transition at the posterior, before a walk backwards
_CAPTURED = 2_000  # gradients of a chain from which capturing it pays on CPU
_GRADES = 256  # of the acceptance, as the search for a step size sees it
_LEAST_STEPS = 40  # least number of transitions of the whole warm-up


class Settings(Protocol):
    """How chains walk, as :class:`~pyrovae.AIS` says it."""

    num_temperatures: int
    num_chains: int
    num_leapfrog: int
    start: Literal["prior", "guide"]
    schedule: Literal["sigmoid", "linear", "adaptive"]
    target_acceptance: float


class Anneal:
    """Annealing of some of the data.

    Args:
        method: How.
        sampler: The data.
        last_beta: The end of the path.
    """

    def __init__(self, method: Settings, sampler: Sampler, last_beta: float = 1.0):
        self.method, self.sampler, self.last_beta = method, sampler, last_beta
        self.first = self._begin(SCALE_DRAWS, self.sampler.streams(SCALE_DRAWS, salt=1))
        check_sites(self.first)
        self.dtype = self.first.log_likelihood.dtype
        scales = {}
        for name, value in self.first.random_values.items():
            spread = value.std(0, keepdim=True)
            scales[name] = torch.where(spread > 0, spread, torch.ones_like(spread))
        num_gradients = method.num_temperatures * (method.num_leapfrog + 1)
        self.transition = Transition(
            self.densities,
            scales,
            sampler.max_plate_nesting,
            method.num_leapfrog,
            settings=(sampler.model, sampler.guide),
            captured=sampler.device.type == "cuda" or num_gradients > _CAPTURED,
        )

    def _begin(self, num: int, streams: DatumStreams) -> Particles:
        from_guide = self.method.start == "guide"
        draw = self.sampler.draw if from_guide else self.sampler.draw_prior
        return draw(num, streams=streams)

    def densities(self, values: Values) -> tuple[Tensor, Tensor]:
        """log of the start density, and log of the joint density over it.

        Where the guide draws auxiliary values u, both densities are over (z, u): q(z | u) q(u) and
        p(x, z) q(u).
        """
        from_guide = self.method.start == "guide"
        particles = self.sampler.score(values, guide=from_guide)
        if from_guide:
            return particles.log_q + particles.log_auxiliary, particles.log_p - particles.log_q
        return particles.log_prior, particles.log_likelihood

    def estimate(self, exact: Values | None = None) -> Estimate:
        path = self.warm_up()
        chains = self.method.num_chains
        streams = self.sampler.streams(chains, salt=3)
        if exact is None:
            log_w, acceptance = self.walk(self._start(streams), path, streams, backwards=False)
        else:
            values = repeat_values(exact, self.first, chains)
            # Under the density p(x, z) q(u), auxiliary draws u are independent of z.
            if self.first.auxiliary:
                values = {**self._begin(chains, streams).random_values, **values}
            state = evaluate(self.densities, values)
            state = self.scatter(state, path, streams)
            log_w, acceptance = self.walk(state, path, streams, backwards=True)
        running = RunningWeights(len(self.sampler), chains, log_w.device)
        running.update(check_log_weights(log_w if exact is None else -log_w))
        variance = log_w.var(0, correction=min(1, chains - 1)).nan_to_num(nan=math.inf)
        if chains == 1:
            variance = torch.full_like(variance, math.nan)
        more = {"acceptance": acceptance, "log_weight_variance": variance}
        estimate = Estimate.of_weights(running, **more)
        if exact is not None:
            for name in ("log_marginal", "debiased", "debiased_twice"):
                estimate.columns[name] = -estimate.columns[name]
        return estimate

    def forward(self, watch: Watch) -> AnnealingPath:
        """Walk from the start, and let ``watch`` see each temperature."""
        path = self.warm_up()
        streams = self.sampler.streams(self.method.num_chains, salt=3)
        self.walk(self._start(streams), path, streams, backwards=False, watch=watch)
        return path

    def _start(self, streams: DatumStreams) -> State:
        first = self._begin(streams.num_particles, streams)
        values = {name: value.detach() for name, value in first.random_values.items()}
        return evaluate(self.densities, values)

    def scatter(self, state: State, path: AnnealingPath, streams: DatumStreams) -> State:
        """Move chains that start at the same exact draw apart, by transitions that leave the
        posterior as it is.

        The start of each chain is then still an exact draw, and several of them tell more than one.
        """
        last = len(path.betas) - 1
        for _ in range(max(1, last // _SCATTER) if last > 1 else 0):
            state, _ = self._move(state, path, last, streams)
        return state

    def walk(
        self,
        state: State,
        path: AnnealingPath,
        streams: DatumStreams,
        *,
        backwards: bool,
        watch: Watch | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``(C, B)`` log weights of a walk from one end of the path to the other, and ``(B,)`` mean
        acceptance, NaN of a path without transitions.

        ``watch`` gets, at each temperature, the weights so far and the log ratio of the chains.
        """
        log_w = torch.zeros(
            state.log_ratio.shape, dtype=torch.float64, device=state.log_ratio.device
        )
        accepted, last = torch.zeros_like(log_w[0]), len(path.betas) - 1
        if watch is not None:
            watch(log_w, state.log_ratio)
        for t in range(last, 0, -1) if backwards else range(1, last + 1):
            log_w += (path.betas[t] - path.betas[t - 1]) * state.log_ratio
            here = t - 1 if backwards else t
            if 0 < here < last:
                state, acceptance = self._move(state, path, here, streams)
                accepted += acceptance.mean(0)
            if watch is not None:
                watch(log_w, state.log_ratio)
        return log_w, accepted / (last - 1) if last > 1 else torch.full_like(accepted, math.nan)

    def _move(
        self, state: State, path: AnnealingPath, t: int, streams: DatumStreams
    ) -> tuple[State, Tensor]:
        beta, step = path.betas[t].to(self.dtype), path.steps[t].to(self.dtype)
        return self.transition(state, beta, step, streams)

    def warm_up(self) -> AnnealingPath:
        """Adapt step sizes, and temperatures if asked for, on chains that do not count."""
        num, method = self.method.num_temperatures, self.method
        shape = "sigmoid" if method.schedule == "adaptive" else method.schedule
        kind: dict[str, Any] = {"dtype": torch.float64, "device": self.sampler.device}
        num_data = len(self.sampler)
        betas = self.last_beta * schedule(shape, num, **kind)
        betas = betas[:, None].expand(num + 1, num_data).contiguous()
        log_step = torch.full((num_data,), -0.7, **kind)
        steps, spread = torch.ones_like(betas), torch.zeros_like(betas)
        if num == 1:
            return AnnealingPath(betas, steps)
        chains = method.num_chains if method.schedule == "adaptive" else min(4, method.num_chains)
        streams = self.sampler.streams(chains, salt=2)
        state = self._start(streams)
        spread[0] = state.log_ratio.std(0, correction=min(1, chains - 1))
        for t in range(1, num):
            # At first the size of the step is searched for; then it follows the path.
            for _ in range(_FIRST_STEPS if t == 1 else max(1, _LEAST_STEPS // num)):
                path = AnnealingPath(betas, log_step.exp()[None].expand(num + 1, -1))
                state, acceptance = self._move(state, path, t, streams)
                # This search is chaotic: what differs in the last digit must not enter it.
                rounded = (acceptance.mean(0) * _GRADES).round() / _GRADES
                rate = 1.0 if t == 1 else 0.3
                log_step = log_step + rate * (rounded - method.target_acceptance)
            steps[t] = log_step.exp()
            spread[t] = state.log_ratio.std(0, correction=min(1, chains - 1))
        steps[0], steps[num], spread[num] = steps[1], steps[num - 1], spread[num - 1]
        if method.schedule == "adaptive" and chains > 1:
            return even_out(AnnealingPath(betas, steps), spread)
        return AnnealingPath(betas, steps)


def check_sites(particles: Particles) -> None:
    for site in particles.sites.values():
        if site.is_random and not real_support(site):
            law = type(site.prior or site.posterior).__name__
            raise ValueError(
                "AIS moves latent values by gradients over all real numbers, but site "
                f"'{site.name}' is {law}, which is discrete, constrained, or of unknown support. "
                "Use ImportanceSampling."
            )

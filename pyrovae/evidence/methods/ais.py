"""Annealed importance sampling, forward and in reverse."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyrovae.evidence.methods.base import Estimate, Method, check_count
from pyrovae.evidence.methods.hmc import State, Transition, Values, evaluate
from pyrovae.evidence.problem import Encoded, Problem, finite_log_weights, lay_out
from pyrovae.evidence.streams import DatumStreams, further
from pyrovae.evidence.summing import check_enumerate
from pyrovae.particles import Particles, real_support
from pyrovae.weights import RunningWeights

__all__ = ["AIS"]

_SCALE_DRAWS = 64
_FIRST_STEPS = 15  # transitions at the first temperature of the warm-up
_SCATTER = 4  # one transition at the posterior for so many temperatures, before a walk backwards
_LEAST_STEPS = 40  # transitions of the whole warm-up, at least


class AIS(Method):
    r"""Anneal from the prior or the guide to the posterior, and weigh the chains: unbiased in p(x).

    .. math:: \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \log \frac{p(x, z_{t-1})}{\pi_0(z_{t-1})}, \qquad
              z_t \sim \mathcal T_{\beta_t}(\cdot \mid z_{t-1})

    where :math:`\pi_0` is p(z) or q(z | x) and the HMC transition :math:`\mathcal T_\beta` leaves
    :math:`\pi_0^{1-\beta} p(x, z)^\beta` as it is. The log of the chains' mean weight is a lower bound in expectation
    that rises with temperatures and chains. With one temperature it is importance sampling.

    A warm-up anneals chains of its own, adapting each datum's step size to the wanted acceptance (and, with the
    adaptive schedule, its temperatures to where the weights vary). Steps and temperatures are then fixed before the
    chains that count are drawn, so that those stay unbiased.

    Results have further columns: ``acceptance``, and ``log_weight_variance`` over chains, in nats squared.

    References:
        Annealed Importance Sampling (Neal, 2001), equations 9 to 11; On the Quantitative Analysis of Decoder-Based
        Generative Models (Wu et al., 2017), for chains in parallel and the sigmoid schedule.

    Args:
        num_temperatures: T, the steps from the start to the posterior.
        num_chains: Chains for each datum; 25 or more allow a Pareto k.
        start: ``"prior"``, or ``"guide"``, which is nearer where it is any good.
        schedule: ``"sigmoid"`` (slow at both ends), ``"linear"``, or ``"adaptive"`` to the weights' variance.
        num_leapfrog: Leapfrog steps in a transition.
        target_acceptance: What the warm-up adapts step sizes to.
        enumerate: Whether discrete latent sites are summed out, so that HMC moves the others: ``"auto"`` up to 32 joint
            values; True up to 65,536.

    Raises:
        TypeError: If a count is no integer.
        ValueError: If a setting is out of range; on use, if a latent site that is not summed out is not
            continuous and unconstrained.
    """

    def __init__(
        self,
        num_temperatures: int = 100,
        num_chains: int = 16,
        start: Literal["prior", "guide"] = "prior",
        schedule: Literal["sigmoid", "linear", "adaptive"] = "sigmoid",
        num_leapfrog: int = 10,
        target_acceptance: float = 0.65,
        *,
        enumerate: bool | Literal["auto"] = "auto",
    ):
        self.num_temperatures = check_count("num_temperatures", num_temperatures)
        self.num_chains = check_count("num_chains", num_chains)
        self.num_leapfrog = check_count("num_leapfrog", num_leapfrog)
        if start not in ("prior", "guide"):
            raise ValueError(f"AIS starts from 'prior' or 'guide', found {start!r}.")
        if schedule not in ("sigmoid", "linear", "adaptive"):
            raise ValueError(
                f"The schedule is 'sigmoid', 'linear' or 'adaptive', found {schedule!r}."
            )
        if not 0 < target_acceptance < 1:
            raise ValueError(
                f"target_acceptance must lie between 0 and 1, found {target_acceptance}."
            )
        self.start, self.schedule, self.target_acceptance = start, schedule, target_acceptance
        self.needs_density = start == "guide"
        self.enumerate = check_enumerate(enumerate)

    def settings(self) -> dict[str, Any]:
        return {
            "num_temperatures": self.num_temperatures,
            "num_chains": self.num_chains,
            "start": self.start,
            "schedule": self.schedule,
            "num_leapfrog": self.num_leapfrog,
            "target_acceptance": self.target_acceptance,
            **({"enumerate": self.enumerate} if self.enumerate != "auto" else {}),
        }

    def run(self, problem: Problem) -> Estimate:
        return self._all(problem, None)

    def run_reverse(self, problem: Problem, exact: Values) -> Estimate:
        """Upper bounds, from exact posterior draws ``(B, *event)``: the same path walked backwards.

        The estimate is minus the log of the mean of the chains' inverse weights, whose expectation is 1 / p(x). The
        chains of a datum, which all start at its one exact draw, first move apart by a quarter as many transitions at
        the posterior.

        References:
            Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo (Grosse et al., 2015), section 4.
        """
        return self._all(problem, exact)

    def _all(self, problem: Problem, exact: Values | None) -> Estimate:
        if problem.exact:  # nothing is left to move: say so as of any discrete site
            problem.summed = None
            _check_sites(problem.encode(slice(0, 1)).draw_prior_here(1))
        # A gradient holds on to what a plain run frees as it goes.
        num_data = max(1, problem.pieces(4 * max(self.num_chains, _SCALE_DRAWS))[0])
        parts = []
        with self.bar(problem) as bar:
            for first in range(0, problem.num_data, num_data):
                index = np.arange(first, min(first + num_data, problem.num_data))
                values = None if exact is None else {name: v[index] for name, v in exact.items()}
                parts.append(_Anneal(self, problem, problem.encode(index)).estimate(values))
                bar.update(len(index))
        return Estimate.join(parts)


@dataclass
class _Plan:
    """What the warm-up fixes: temperatures ``(T + 1, B)`` and step sizes ``(T + 1, B)``."""

    betas: Tensor
    steps: Tensor


class _Anneal:
    """Annealing of some of the data."""

    def __init__(self, method: AIS, problem: Problem, encoded: Encoded):
        self.method, self.problem, self.encoded = method, problem, encoded
        self.axis = problem.max_plate_nesting
        self.num_data = len(encoded.keys)
        with self._streams(1, _SCALE_DRAWS):
            self.first = self._begin(_SCALE_DRAWS)
        _check_sites(self.first)
        self.dtype = self.first.log_likelihood.dtype
        scales = {}
        for name, site in self.first.latents.items():
            spread = site.value.std(0, keepdim=True)
            scales[name] = torch.where(spread > 0, spread, torch.ones_like(spread))
        self.transition = Transition(self.path, scales, self.axis, method.num_leapfrog)

    def _streams(self, salt: int, num: int) -> DatumStreams:
        return DatumStreams(further(self.encoded.keys, salt), num, axis=self.axis)

    def _begin(self, num: int) -> Particles:
        return (
            self.encoded.draw_here(num)
            if self.method.start == "guide"
            else self.encoded.draw_prior_here(num)
        )

    def path(self, values: Values) -> tuple[Tensor, Tensor]:
        """log start density and log of joint over start."""
        from_guide = self.method.start == "guide"
        particles = self.encoded.score(values, guide=from_guide)
        if from_guide:
            return particles.log_q, particles.log_p - particles.log_q
        return particles.log_prior, particles.log_likelihood

    def estimate(self, exact: Values | None) -> Estimate:
        plan = self.warm_up()
        chains = self.method.num_chains
        streams = self._streams(3, chains)
        if exact is None:
            log_w, acceptance = self.forward(self._start(streams), plan, streams)
        else:
            state = evaluate(self.path, lay_out(exact, self.first, chains))
            state = self.scatter(state, plan, streams)
            log_w, acceptance = self.backward(state, plan, streams)
        running = RunningWeights(self.num_data, chains, log_w.device)
        running.update(finite_log_weights(log_w if exact is None else -log_w))
        variance = log_w.var(0, correction=min(1, chains - 1)).nan_to_num(nan=math.inf)
        if chains == 1:
            variance = torch.full_like(variance, math.nan)
        more = {"acceptance": acceptance, "log_weight_variance": variance}
        estimate = Estimate.of_weights(running, **more)
        if exact is not None:
            for name in ("log_marginal", "debiased", "debiased_twice"):
                estimate.columns[name] = -estimate.columns[name]
        return estimate

    def _start(self, streams: DatumStreams) -> State:
        with streams:
            first = self._begin(streams.num_particles)
        return evaluate(
            self.path, {name: site.value.detach() for name, site in first.latents.items()}
        )

    def scatter(self, state: State, plan: _Plan, streams: DatumStreams) -> State:
        """Move chains that start at the same exact draw apart, by transitions that leave the posterior as it is.

        Each chain's start is then still an exact draw, and more can be learnt from several of them.
        """
        last = len(plan.betas) - 1
        for _ in range(max(1, last // _SCATTER) if last > 1 else 0):
            state, _ = self.transition(state, *self._place(plan, last), streams)
        return state

    def forward(self, state: State, plan: _Plan, streams: DatumStreams) -> tuple[Tensor, Tensor]:
        log_w = torch.zeros(
            state.log_ratio.shape, dtype=torch.float64, device=state.log_ratio.device
        )
        accepted, last = torch.zeros_like(log_w[0]), len(plan.betas) - 1
        for t in range(1, last + 1):
            log_w += (plan.betas[t] - plan.betas[t - 1]) * state.log_ratio
            if t < last:
                state, acceptance = self.transition(state, *self._place(plan, t), streams)
                accepted += acceptance.mean(0)
        return log_w, accepted / max(1, last - 1)

    def backward(self, state: State, plan: _Plan, streams: DatumStreams) -> tuple[Tensor, Tensor]:
        log_w = torch.zeros(
            state.log_ratio.shape, dtype=torch.float64, device=state.log_ratio.device
        )
        accepted, last = torch.zeros_like(log_w[0]), len(plan.betas) - 1
        for t in range(last, 0, -1):
            log_w += (plan.betas[t] - plan.betas[t - 1]) * state.log_ratio
            if t > 1:
                state, acceptance = self.transition(state, *self._place(plan, t - 1), streams)
                accepted += acceptance.mean(0)
        return log_w, accepted / max(1, last - 1)

    def _place(self, plan: _Plan, t: int) -> tuple[Tensor, Tensor]:
        return plan.betas[t].to(self.dtype), plan.steps[t].to(self.dtype)

    def warm_up(self) -> _Plan:
        num, method = self.method.num_temperatures, self.method
        shape = "sigmoid" if method.schedule == "adaptive" else method.schedule
        kind = {"dtype": torch.float64, "device": self.problem.device}
        betas = _schedule(shape, num, **kind)[:, None].expand(num + 1, self.num_data).contiguous()
        log_step = torch.full((self.num_data,), -0.7, **kind)
        steps, spread = torch.ones_like(betas), torch.zeros_like(betas)
        if num == 1:
            return _Plan(betas, steps)
        chains = method.num_chains if method.schedule == "adaptive" else min(4, method.num_chains)
        streams = self._streams(2, chains)
        state = self._start(streams)
        spread[0] = state.log_ratio.std(0, correction=min(1, chains - 1))
        for t in range(1, num):
            # Find the step's size at first, then follow it along the path.
            for _ in range(_FIRST_STEPS if t == 1 else max(1, _LEAST_STEPS // num)):
                plan = _Plan(betas, log_step.exp()[None].expand(num + 1, -1))
                state, acceptance = self.transition(state, *self._place(plan, t), streams)
                rate = 1.0 if t == 1 else 0.3
                log_step = log_step + rate * (acceptance.mean(0) - method.target_acceptance)
            steps[t] = log_step.exp()
            spread[t] = state.log_ratio.std(0, correction=min(1, chains - 1))
        steps[0], steps[num], spread[num] = steps[1], steps[num - 1], spread[num - 1]
        if method.schedule == "adaptive" and chains > 1:
            new = _even_out(betas.cpu().numpy(), spread.cpu().numpy())
            moved = [
                np.interp(new[:, b], betas[:, b].cpu(), steps[:, b].cpu())
                for b in range(self.num_data)
            ]
            betas, steps = torch.as_tensor(new, **kind), torch.as_tensor(np.stack(moved, 1), **kind)
        return _Plan(betas, steps)


def _schedule(shape: str, num: int, **kind: Any) -> Tensor:
    """T + 1 temperatures from 0 to 1."""
    even = torch.linspace(0, 1, num + 1, **kind)
    if shape == "linear":
        return even
    bent = torch.sigmoid(4 * (2 * even - 1))  # the slope of Wu et al.
    return (bent - bent[0]) / (bent[-1] - bent[0])


def _even_out(betas: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Temperatures between which the weights vary alike: the spread of the log ratio, integrated, in equal parts.

    A tenth of the steps stays where it was, against noise in the spread.
    """
    num = len(betas) - 1
    width = max(1, num // 10)
    kernel = np.ones(2 * width + 1) / (2 * width + 1)
    new = np.empty_like(betas)
    for b in range(betas.shape[1]):
        smooth = np.convolve(np.pad(spread[:, b], width, mode="edge"), kernel, mode="valid")
        parts = 0.5 * (smooth[1:] + smooth[:-1]) * np.diff(betas[:, b])
        share = np.full(num, 1 / num) if parts.sum() <= 0 else 0.9 * parts / parts.sum() + 0.1 / num
        new[:, b] = np.interp(
            np.linspace(0, 1, num + 1), np.concatenate([[0.0], np.cumsum(share)]), betas[:, b]
        )
    new[0], new[-1] = 0.0, 1.0
    return new


def _check_sites(particles: Particles) -> None:
    for site in particles.latents.values():
        if not real_support(site):
            raise ValueError(
                f"AIS moves latent values by gradients over all of the real numbers, but site '{site.name}' is "
                f"{type(site.prior).__name__}, which is discrete, constrained, or of unknown support. "
                "Use ImportanceSampling."
            )

"""Annealed importance sampling, forward and in reverse."""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from pyrovae.evidence.inspection import Inspection
from pyrovae.evidence.methods.base import Estimate, Method, check_count, estimate_pieces
from pyrovae.evidence.methods.hmc import State, Transition, Values, evaluate
from pyrovae.evidence.methods.temperatures import AnnealingPath, even_out, schedule
from pyrovae.evidence.plan import Plan, plan
from pyrovae.evidence.sampler import Sampler, check_log_weights, repeat_values
from pyrovae.evidence.streams import DatumStreams
from pyrovae.evidence.summing import check_enumerate
from pyrovae.particles import Particles, real_support
from pyrovae.weights import RunningWeights

__all__ = ["AIS"]

_SCALE_DRAWS = 64
_FIRST_STEPS = 15  # transitions at the first temperature of the warm-up
_SCATTER = 4  # temperatures for each transition at the posterior, before a walk backwards
_LEAST_STEPS = 40  # least number of transitions of the whole warm-up


class AIS(Method):
    r"""Anneal from the prior or the guide to the posterior, and weigh the chains: unbiased in p(x).

    .. math:: \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \log \frac{p(x,
              z_{t-1})}{\pi_0(z_{t-1})}, \qquad
              z_t \sim \mathcal T_{\beta_t}(\cdot \mid z_{t-1})

    The start :math:`\pi_0` is p(z) or q(z | x). The HMC transition :math:`\mathcal T_\beta` leaves
    :math:`\pi_0^{1-\beta} p(x, z)^\beta` as it is. The log of the chains' mean weight is a lower
    bound in expectation that rises with temperatures and chains. With one temperature it is
    importance sampling.

    A warm-up anneals other chains. It adapts the step size of each datum to the target acceptance,
    and with the adaptive schedule also the temperatures, to where the weights vary. Steps and
    temperatures are then fixed before the chains that count are drawn, so those are unbiased.

    In float32 the rounding of a sum depends on how many data are scored at once, and HMC can turn a
    difference in the last digit into another path of a chain. When ``memory_budget`` or the other
    data change, the estimate of a datum then changes as another seed would change it. Models in
    float64 do not show this.

    Results have two further columns: ``acceptance``, and ``log_weight_variance`` over chains, in
    nats squared.

    Args:
        num_temperatures: T, the steps from the start to the posterior.
        num_chains: Chains for each datum. Pareto k needs 25 or more.
        start: ``"prior"``, or ``"guide"``, which is nearer to the posterior where the guide is any
            good.
        schedule: ``"sigmoid"`` (slow at both ends), ``"linear"``, or ``"adaptive"`` to the weights'
            variance.
        num_leapfrog: Leapfrog steps in a transition.
        target_acceptance: Acceptance rate to which the warm-up adapts step sizes.
        enumerate: Whether discrete latent sites are summed out, so that HMC moves the others.
            ``"auto"`` sums up to 32 joint values, True up to 65,536.

    Raises:
        TypeError: If a count is not an integer.
        ValueError: If a setting is out of range; on use, if a latent site that is not summed out is
            not continuous and unconstrained.

    References:
        - Annealed Importance Sampling (Neal, 2001), equations 9 to 11,
          `arXiv:physics/9803008 <https://arxiv.org/abs/physics/9803008>`_.
        - On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017), for
          chains in parallel and the sigmoid schedule,
          `arXiv:1611.04273 <https://arxiv.org/abs/1611.04273>`_.

    Examples:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=1.0, stretch=1.5)  # its log p(x) is known
        >>> x = oracle.sample(10)
        >>> method = pv.AIS(num_temperatures=20, num_chains=16, start="guide", num_leapfrog=5)
        >>> evidence = pv.log_marginal(oracle.model, oracle.guide, x, method=method)
        >>> error = evidence.log_marginal - oracle.log_prob(x).detach().numpy()
        >>> bool((abs(error) < 5 * evidence.standard_error).all())
        True
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

    def plan(self, inspection: Inspection) -> Plan:
        return plan(
            inspection,
            # A gradient holds on to what a plain run frees as it goes.
            4 * max(self.num_chains, _SCALE_DRAWS),
            enumerate=self.enumerate,
            density=self.start == "guide",
        )

    def run(self, sampler: Sampler, plan: Plan) -> Estimate:
        if plan.exact:  # nothing is left to move
            _check_sites(replace(sampler, summed=None).select(slice(0, 1)).draw_prior(1))

        def anneal(some: Sampler) -> Estimate:
            return _Anneal(self, some).estimate()

        return estimate_pieces(sampler, plan, anneal, label=type(self).__name__)

    def run_reverse(self, sampler: Sampler, plan: Plan, exact: Values) -> Estimate:
        """Upper bounds, from exact posterior draws ``(B, *event)``: the same path walked backwards.

        The estimate is minus the log of the mean of the chains' inverse weights, whose expectation
        is 1 / p(x). All chains of a datum start at its one exact draw. They first move apart by
        transitions that leave the posterior as it is, a quarter as many as there are temperatures.

        References:
            Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo (Grosse et al.,
            2015), section 4, `arXiv:1511.02543 <https://arxiv.org/abs/1511.02543>`_.
        """

        def anneal(some: Sampler, values: Values) -> Estimate:
            return _Anneal(self, some).estimate(values)

        return estimate_pieces(sampler, plan, anneal, exact, label=type(self).__name__)


class _Anneal:
    """Annealing of some of the data."""

    def __init__(self, method: AIS, sampler: Sampler):
        self.method, self.sampler = method, sampler
        self.first = self._begin(_SCALE_DRAWS, self._streams(1, _SCALE_DRAWS))
        _check_sites(self.first)
        self.dtype = self.first.log_likelihood.dtype
        scales = {}
        for name, site in self.first.latents.items():
            spread = site.value.std(0, keepdim=True)
            scales[name] = torch.where(spread > 0, spread, torch.ones_like(spread))
        self.transition = Transition(
            self.densities, scales, sampler.max_plate_nesting, method.num_leapfrog
        )

    def _streams(self, salt: int, num: int) -> DatumStreams:
        return self.sampler.streams(num, salt=salt)

    def _begin(self, num: int, streams: DatumStreams) -> Particles:
        from_guide = self.method.start == "guide"
        draw = self.sampler.draw if from_guide else self.sampler.draw_prior
        return draw(num, streams=streams)

    def densities(self, values: Values) -> tuple[Tensor, Tensor]:
        """log of the start density, and log of the joint density over it."""
        from_guide = self.method.start == "guide"
        particles = self.sampler.score(values, guide=from_guide)
        if from_guide:
            return particles.log_q, particles.log_p - particles.log_q
        return particles.log_prior, particles.log_likelihood

    def estimate(self, exact: Values | None = None) -> Estimate:
        path = self.warm_up()
        chains = self.method.num_chains
        streams = self._streams(3, chains)
        if exact is None:
            log_w, acceptance = self.walk(self._start(streams), path, streams, backwards=False)
        else:
            state = evaluate(self.densities, repeat_values(exact, self.first, chains))
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

    def _start(self, streams: DatumStreams) -> State:
        first = self._begin(streams.num_particles, streams)
        values = {name: site.value.detach() for name, site in first.latents.items()}
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
        self, state: State, path: AnnealingPath, streams: DatumStreams, *, backwards: bool
    ) -> tuple[Tensor, Tensor]:
        """``(C, B)`` log weights of a walk from one end of the path to the other, and ``(B,)`` mean
        acceptance.
        """
        log_w = torch.zeros(
            state.log_ratio.shape, dtype=torch.float64, device=state.log_ratio.device
        )
        accepted, last = torch.zeros_like(log_w[0]), len(path.betas) - 1
        for t in range(last, 0, -1) if backwards else range(1, last + 1):
            log_w += (path.betas[t] - path.betas[t - 1]) * state.log_ratio
            here = t - 1 if backwards else t
            if 0 < here < last:
                state, acceptance = self._move(state, path, here, streams)
                accepted += acceptance.mean(0)
        return log_w, accepted / max(1, last - 1)

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
        betas = schedule(shape, num, **kind)[:, None].expand(num + 1, num_data).contiguous()
        log_step = torch.full((num_data,), -0.7, **kind)
        steps, spread = torch.ones_like(betas), torch.zeros_like(betas)
        if num == 1:
            return AnnealingPath(betas, steps)
        chains = method.num_chains if method.schedule == "adaptive" else min(4, method.num_chains)
        streams = self._streams(2, chains)
        state = self._start(streams)
        spread[0] = state.log_ratio.std(0, correction=min(1, chains - 1))
        for t in range(1, num):
            # At first the size of the step is searched for; then it follows the path.
            for _ in range(_FIRST_STEPS if t == 1 else max(1, _LEAST_STEPS // num)):
                path = AnnealingPath(betas, log_step.exp()[None].expand(num + 1, -1))
                state, acceptance = self._move(state, path, t, streams)
                rate = 1.0 if t == 1 else 0.3
                log_step = log_step + rate * (acceptance.mean(0) - method.target_acceptance)
            steps[t] = log_step.exp()
            spread[t] = state.log_ratio.std(0, correction=min(1, chains - 1))
        steps[0], steps[num], spread[num] = steps[1], steps[num - 1], spread[num - 1]
        if method.schedule == "adaptive" and chains > 1:
            return even_out(AnnealingPath(betas, steps), spread)
        return AnnealingPath(betas, steps)


def _check_sites(particles: Particles) -> None:
    for site in particles.latents.values():
        if not real_support(site):
            raise ValueError(
                "AIS moves latent values by gradients over all real numbers, but site "
                f"'{site.name}' is {type(site.prior).__name__}, which is discrete, constrained, or "
                "of unknown support. Use ImportanceSampling."
            )

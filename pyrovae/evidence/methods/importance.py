"""Importance sampling from the guide."""

import math
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyrovae.evidence.methods.base import Estimate, Method, check_count
from pyrovae.evidence.methods.refine import refine
from pyrovae.evidence.problem import Encoded, Problem, finite_log_weights
from pyrovae.evidence.streams import BLOCK
from pyrovae.evidence.summing import check_enumerate
from pyrovae.nets.precision import Bfloat16Networks
from pyrovae.weights import RunningWeights, log_mean_exp

__all__ = ["ImportanceSampling"]

_MARGIN = 0.7  # of the target is aimed at: few data then miss it and get more for it, which is not free of bias
_PILOT = 4  # times a pilot's weights, at most, are drawn on its word


class ImportanceSampling(Method):
    r"""Weigh draws from the guide: unbiased in p(x), a lower bound in expectation on log p(x).

    .. math:: \log \hat p(x) = \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    The encoder runs once for each datum where the guide has one latent site; a guide of several sites runs once for
    each piece of work. Weights stream through float64 sums, so memory grows with the square root of K only.

    Discrete latent sites d of few values are not drawn but summed, for each particle of the other sites z:

    .. math:: w = \sum_d p(x, z, d) \Big/ \sum_d q(z, d \mid x)

    which is the mean of p / q over d given z: as unbiased, and of less variance.

    With ``target_standard_error``, particles go to the data that need them. A pilot, of at most half as many,
    says how many a datum needs to get well below the target: ``num_particles`` times a power of two, up to
    ``max_particles``. So many are drawn afresh and averaged without the pilot's, since weights that decide on their own
    number are biased by it. The few data that miss the target nevertheless get twice as many, and so on.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), section 5, for K = 5,000 as a protocol; Weighted Average
        Importance Sampling and Defensive Mixture Distributions (Hesterberg, 1995) for ``prior_share``; Inference
        Suboptimality in Variational Autoencoders (Cremer et al., 2018) for ``refine_steps``.

    Args:
        num_particles: Draws K for each datum; with a target, the least that each datum gets, and the pilot's first.
        target_standard_error: In nats, for each datum.
        max_particles: The most draws for a datum, with a target, beside the pilot's; default 100 times
            ``num_particles``.
        refine_steps: Before weighing, fit a diagonal Gaussian to the posterior of each datum by so many gradient
            steps, starting at the guide's moments, and draw from that. The results' column ``refinement_gain`` says
            what it raised the ELBO by.
        enumerate: Whether discrete latent sites of few values are summed exactly for each particle of the others.
            ``"auto"`` does so up to 32 joint values, and up to K of them where no other site is left: then the result
            is exact. True insists, up to 65,536 values; False draws. The result's ``notes`` say what was summed.
        prior_share: Share of the draws that come from the prior in place of the guide; all are weighed by the
            mixture of both, which bounds the weights by p(x | z) over the share.
        networks: ``"bfloat16"`` rounds the products inside the programs' dense and convolutional layers, which is
            faster where the hardware has such products; draws and densities stay as they are. What the rounding does
            to each datum's estimate is measured on its first particles (up to 128), in nats, in the results' column
            ``rounding_error``.
        compile: Whether the scoring of particles is captured as a graph and compiled by Inductor (equal to rounding);
            ``"auto"`` where the work is large enough to pay for the compilation.

    Raises:
        TypeError: If a count is no integer.
        ValueError: If a count is less than 1, or the target is not positive.
    """

    def __init__(
        self,
        num_particles: int = 1000,
        *,
        target_standard_error: float | None = None,
        max_particles: int | None = None,
        refine_steps: int = 0,
        prior_share: float = 0.0,
        enumerate: bool | Literal["auto"] = "auto",
        networks: Literal["full", "bfloat16"] = "full",
        compile: bool | Literal["auto"] = "auto",
    ):
        self.num_particles = check_count("num_particles", num_particles)
        if target_standard_error is None:
            if max_particles is not None:
                raise ValueError(
                    "max_particles needs a target_standard_error; without one, num_particles is all."
                )
            max_particles = num_particles
        elif not target_standard_error > 0:
            raise ValueError(
                f"target_standard_error must be positive, found {target_standard_error} nats."
            )
        self.target_standard_error = target_standard_error
        self.max_particles = check_count("max_particles", max_particles or 100 * num_particles)
        if self.max_particles < num_particles:
            raise ValueError(
                f"max_particles={max_particles} is less than num_particles={num_particles}."
            )
        self.refine_steps = check_count("refine_steps", refine_steps, least=0)
        if not 0 <= prior_share < 1:
            raise ValueError(f"prior_share must lie in [0, 1), found {prior_share}.")
        if prior_share and target_standard_error is not None:
            raise ValueError(
                "A prior_share needs a fixed number of particles: leave target_standard_error out."
            )
        self.prior_share = prior_share
        self.enumerate, self.num_draws = check_enumerate(enumerate), self.max_particles
        if networks not in ("full", "bfloat16"):
            raise ValueError(f"networks must be 'full' or 'bfloat16', found {networks!r}.")
        self.networks: Literal["full", "bfloat16"] = networks
        if compile not in (True, False, "auto"):
            raise ValueError(f"compile must be True, False or 'auto', found {compile!r}.")
        self.compile: bool | Literal["auto"] = compile

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = {"num_particles": self.num_particles}
        if self.target_standard_error is not None:
            found |= {
                "target_standard_error": self.target_standard_error,
                "max_particles": self.max_particles,
            }
        found |= {"refine_steps": self.refine_steps} if self.refine_steps else {}
        found |= {"enumerate": self.enumerate} if self.enumerate != "auto" else {}
        found |= {"networks": self.networks} if self.networks != "full" else {}
        return found | ({"prior_share": self.prior_share} if self.prior_share else {})

    def run(self, problem: Problem) -> Estimate:
        if problem.exact and self.refine_steps:
            raise ValueError(
                f"Every latent site {list(problem.notes['summed'])} is discrete: no Gaussian can be fitted to it, and "
                "log p(x) is exact without. Leave refine_steps at 0."
            )
        if problem.exact:
            return Estimate.exact(problem)
        keep = RunningWeights(0, self.max_particles).keep
        held = (
            6 if self.target_standard_error is None else 12
        )  # kept weights, those of a pilot beside
        num_data, num_particles = problem.pieces(self.num_particles, per_datum=8 * held * keep)
        num_data = math.ceil(
            problem.num_data / math.ceil(problem.num_data / num_data)
        )  # of one size, nearly
        problem.expect(self.num_particles, (num_data, num_particles), self.compile)
        if problem.tiles is None:
            num_data, num_particles = problem.pieces(
                self.num_particles, per_datum=8 * held * keep, in_cache=True
            )
        parts = []
        with self.bar(problem) as bar:
            for first in range(0, problem.num_data, num_data):
                index = np.arange(first, min(first + num_data, problem.num_data))
                with Bfloat16Networks() if self.networks == "bfloat16" else nullcontext():
                    part = self._weigh(problem, index, num_particles, bar)
                if self.networks == "bfloat16":
                    error = _rounding_error(problem.encode(index), min(self.num_particles, BLOCK))
                    part.columns["rounding_error"] = error.cpu().numpy()
                parts.append(part)
                bar.update(len(index))
        return Estimate.join(parts)

    def _weigh(self, problem: Problem, index: np.ndarray, num_particles: int, bar: Any) -> Estimate:
        encoded = problem.encode(index)
        more = {}
        if self.refine_steps:
            encoded, more["refinement_gain"] = refine(encoded, self.refine_steps)
        running = RunningWeights(len(index), self.max_particles, problem.device)
        if self.prior_share:
            self._mixture(encoded, running, num_particles)
        else:
            self._extend(encoded, running, 0, self.num_particles, num_particles)
        if self.target_standard_error is not None:
            running = self._spend(problem, encoded, running, self.target_standard_error, bar)
        return Estimate.of_weights(running, **more)

    def _spend(
        self, problem: Problem, encoded: Any, pilot: RunningWeights, target: float, bar: Any
    ) -> RunningWeights:
        """Fresh weights of each datum, as many as the error of a pilot asks for; more while the target is missed.

        Weights that decided how many there are would be biased by that, so the pilot's are not among those averaged.
        """
        most = self.max_particles

        def wanted() -> Tensor:
            enough = pilot.count * (pilot.standard_error / (_MARGIN * target)).square()
            doublings = (
                (enough / self.num_particles)
                .nan_to_num(nan=1.0, posinf=1.0)
                .clamp_min(1.0)
                .log2()
                .ceil()
            )
            return (self.num_particles * 2.0**doublings).clamp_max(most).long()

        while (short := _PILOT * pilot.count < wanted()).any():
            self._grow(problem, encoded, pilot, torch.where(short, pilot.count, 0), 0, bar)
        running = RunningWeights(len(pilot.count), most, problem.device)
        new = wanted()
        while new.any():
            self._grow(problem, encoded, running, new, most, bar)
            missed = running.standard_error > target
            new = torch.where(missed, torch.minimum(running.count, most - running.count), 0)
        return running

    def _grow(
        self,
        problem: Problem,
        encoded: Any,
        running: RunningWeights,
        new: Tensor,
        origin: int,
        bar: Any,
    ) -> None:
        """``new`` further weights ``(B,)`` of each datum, from its stream's place ``origin`` on."""
        for num, count in torch.stack([new, running.count], 1).unique(dim=0).tolist():
            if not num:
                continue
            alike = ((new == num) & (running.count == count)).nonzero().flatten()
            bar.set_postfix_str(f"{len(alike)} data get {num} particles more", refresh=False)
            num_data, num_particles = problem.pieces(num)
            start = sum(
                -(-part // BLOCK) * BLOCK for part in (origin, count)
            )  # streams are cut in blocks
            for chosen in alike.split(num_data):
                part = running.select(chosen)
                self._extend(encoded.select(chosen), part, start, num, num_particles)
                running.replace(chosen, part)

    def _mixture(self, encoded: Any, running: RunningWeights, size: int) -> None:
        """Draws of guide and prior in fixed numbers, weighed by their mixture (the balance heuristic)."""
        from_prior = int(self.num_particles * self.prior_share)
        share = from_prior / self.num_particles
        log_shares = math.log1p(-share), math.log(share) if share else -math.inf
        for stratum, num in enumerate((self.num_particles - from_prior, from_prior)):
            for first in range(0, num, size):
                drawn = (encoded.draw, encoded.draw_prior)[stratum](min(size, num - first), first)
                proposal = torch.logaddexp(
                    log_shares[0] + drawn.log_q, log_shares[1] + drawn.log_prior
                )
                running.update(finite_log_weights(drawn.log_p - proposal))

    def run_reverse(self, problem: Problem, exact: dict[str, Tensor]) -> Estimate:
        r"""Upper bounds, from exact posterior draws ``(B, *event)``: one of the K particles is the exact draw.

        .. math:: \mathbb E \log \frac1K \Big( w(z^*) + \sum_{k=2}^K w(z_k) \Big) \ge \log p(x), \qquad
                  z^* \sim p(z \mid x),\ z_k \sim q(z \mid x)

        References:
            Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo (Grosse et al., 2015), section 4.2.
        """
        if self.refine_steps or self.prior_share:
            raise ValueError(
                "The upper bound is that of the plain guide: leave refine_steps and prior_share out."
            )
        if problem.exact:
            return Estimate.exact(problem)
        num_data, num_particles = problem.pieces(self.num_particles)
        parts = []
        with self.bar(problem) as bar:
            for first in range(0, problem.num_data, num_data):
                index = np.arange(first, min(first + num_data, problem.num_data))
                encoded = problem.encode(index)
                running = RunningWeights(len(index), self.num_particles, problem.device)
                given = {name: value[index] for name, value in exact.items()}
                running.update(finite_log_weights(encoded.score_fixed(given, 1).log_weights))
                self._extend(encoded, running, 0, self.num_particles - 1, num_particles)
                parts.append(Estimate.of_weights(running))
                bar.update(len(index))
        return Estimate.join(parts)

    @staticmethod
    def _extend(encoded: Any, running: RunningWeights, start: int, num_new: int, size: int) -> None:
        for first in range(0, num_new, size):
            log_weights = encoded.log_weights(min(size, num_new - first), start + first)
            running.update(finite_log_weights(log_weights))


def _rounding_error(encoded: Encoded, num_particles: int) -> Tensor:
    """``(B,)``: what bfloat16 in the networks adds to the estimate by a datum's first particles."""
    with Bfloat16Networks():
        rounded = encoded.draw(num_particles).log_weights
    exact = encoded.draw(num_particles).log_weights
    return log_mean_exp(rounded.double()) - log_mean_exp(exact.double())

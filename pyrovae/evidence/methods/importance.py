"""Importance sampling from the guide."""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from pyrovae.evidence.inspection import Inspection
from pyrovae.evidence.methods.adaptive import weigh_to_target
from pyrovae.evidence.methods.base import Estimate, Method, check_count, estimate_pieces
from pyrovae.evidence.methods.refine import refine
from pyrovae.evidence.plan import Plan, plan
from pyrovae.evidence.sampler import Sampler, check_log_weights, repeat_values
from pyrovae.evidence.streams import BLOCK
from pyrovae.evidence.summing import Enumerate, check_enumerate
from pyrovae.nets.precision import Bfloat16Networks
from pyrovae.weights import RunningWeights, log_mean_exp

__all__ = ["ImportanceSampling"]

_FLOAT_BYTES = 8
_DEGREES = 5.0  # of the Student t
_AUXILIARY_STREAM = 22  # the random stream of auxiliary sites where latent values are given


class ImportanceSampling(Method):
    r"""Weigh draws from the guide: unbiased in p(x), so its log is a lower bound on log p(x) in
    expectation.

    .. math:: \log \hat p(x) = \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)},
              \qquad z_k \sim q(z \mid x)

    A guide of one latent site runs once for each datum; a guide of several sites runs for every
    particle. Weights are summed in float64 as they come, so memory grows with the square root of K
    only.

    Discrete latent sites d of few values are summed, not drawn, for each particle of the other
    sites z:

    .. math:: w = \frac{\sum_d p(x, z, d)}{\sum_d q(z, d \mid x)}

    This is the mean of p / q over d given z, so it is as unbiased and varies less.

    With ``target_standard_error`` the number of particles differs between data. A pilot of at most
    half as many particles predicts how many a datum needs: ``num_particles`` times a power of two,
    up to ``max_particles``. These are drawn afresh and the pilot is dropped, because weights that
    decide on their own number are biased. Data that miss the target are not given more, for the
    same reason; :meth:`Evidence.missed_target` lists them.

    Args:
        num_particles: Draws K for each datum. With a target, the least that a datum gets.
        target_standard_error: In nats, for each datum.
        max_particles: With a target, the most draws for a datum, not counting the pilot. Default:
            100 times ``num_particles``.
        refine_steps: Gradient steps that fit a diagonal normal to the posterior of each datum,
            starting at the guide's moments. Draws then come from that normal. The column
            ``refinement_gain`` of the result is the rise of the ELBO in nats.
        proposal: What draws come from after refinement: the ``"normal"``, or ``"student_t"``, a
            multivariate Student t with 5 degrees of freedom and the normal's mean and scale. Its
            tails keep the weights bounded where the posterior's tails are heavier than a normal's.
        prior_share: Share of the draws that come from the prior, beside the guide or the refined
            proposal. All draws are weighed by the mixture of both, so no weight exceeds p(x | z)
            over the share.
        enumerate: Whether discrete latent sites are summed. ``"auto"`` sums up to 32 joint values,
            and up to K where no other site is left, which makes the result exact. True sums up to
            65,536 values or raises. False draws. The result's ``notes`` name the sites.
        networks: ``"bfloat16"`` rounds the products inside dense and convolutional layers, which is
            faster where the processor has such products. Draws and densities keep their precision.
            The column ``rounding_error`` of the result is the effect on each datum's first
            particles (up to 128), in nats.
        compile: Whether the scoring of particles is captured as a graph and compiled, with equal
            results up to rounding. ``"auto"`` compiles where the work is large enough to pay for
            it.

    Raises:
        TypeError: If a count is not an integer.
        ValueError: If a setting is out of range.

    References:
        - Importance Weighted Autoencoders (Burda et al., 2016), section 5, for K = 5,000 as a
          protocol, `arXiv:1509.00519 <https://arxiv.org/abs/1509.00519>`_.
        - Weighted Average Importance Sampling and Defensive Mixture Distributions (Hesterberg,
          1995), for ``prior_share``.
        - Inference Suboptimality in Variational Autoencoders (Cremer et al., 2018), for
          ``refine_steps``, `arXiv:1801.03558 <https://arxiv.org/abs/1801.03558>`_.

    Examples:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=0.3)  # its log p(x) is known
        >>> x = oracle.sample(10)
        >>> method = pv.ImportanceSampling(2_000)
        >>> evidence = pv.log_marginal(oracle.model, oracle.guide, x, method=method)
        >>> error = evidence.log_marginal - oracle.log_prob(x).detach().numpy()
        >>> bool((abs(error) < 5 * evidence.standard_error).all())
        True
    """

    def __init__(
        self,
        num_particles: int = 1000,
        *,
        target_standard_error: float | None = None,
        max_particles: int | None = None,
        refine_steps: int = 0,
        proposal: Literal["normal", "student_t"] = "normal",
        prior_share: float = 0.0,
        enumerate: Enumerate = "auto",
        networks: Literal["full", "bfloat16"] = "full",
        compile: bool | Literal["auto"] = "auto",
    ):
        self.num_particles = check_count("num_particles", num_particles)
        if target_standard_error is None:
            if max_particles is not None:
                raise ValueError(
                    "max_particles needs a target_standard_error; without one, num_particles is "
                    "all."
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
        if proposal not in ("normal", "student_t"):
            raise ValueError(f"proposal must be 'normal' or 'student_t', found {proposal!r}.")
        if proposal != "normal" and not refine_steps:
            raise ValueError("A proposal is fitted by refinement: set refine_steps, such as 100.")
        self.proposal: Literal["normal", "student_t"] = proposal
        if not 0 <= prior_share < 1:
            raise ValueError(f"prior_share must lie in [0, 1), found {prior_share}.")
        if prior_share and target_standard_error is not None:
            raise ValueError(
                "A prior_share needs a fixed number of particles: leave target_standard_error out."
            )
        self.prior_share = prior_share
        self.enumerate: Enumerate = check_enumerate(enumerate)
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
        found |= {"proposal": self.proposal} if self.proposal != "normal" else {}
        found |= {"enumerate": self.enumerate} if self.enumerate != "auto" else {}
        found |= {"networks": self.networks} if self.networks != "full" else {}
        return found | ({"prior_share": self.prior_share} if self.prior_share else {})

    def plan(self, inspection: Inspection) -> Plan:
        if inspection.mapped and self.prior_share and not self.refine_steps:
            raise ValueError(
                "The guide computes latent sites from its auxiliary sites "
                f"{list(inspection.auxiliary)}, so its density at a draw of the prior is not "
                "known. Leave prior_share out, or set refine_steps=100."
            )
        if inspection.whole and self.target_standard_error is not None:
            raise ValueError(
                "The programs take all of the data at once only, so each datum gets the same "
                "number of particles. Leave target_standard_error out."
            )
        kept = RunningWeights(0, self.max_particles).keep
        # A few copies of the weights that are kept; twice as many with a pilot beside.
        copies = 6 if self.target_standard_error is None else 12
        return plan(
            inspection,
            self.num_particles,
            bytes_per_datum=_FLOAT_BYTES * copies * kept,
            enumerate=self.enumerate,
            most_particles=self.max_particles,
            compile=self.compile,
            in_cache=True,
        )

    def run(self, sampler: Sampler, plan: Plan) -> Estimate:
        if plan.exact and self.refine_steps:
            raise ValueError(
                f"Every latent site {list(plan.notes['summed'])} is discrete, so no Gaussian can "
                "be fitted, and log p(x) is exact without. Leave refine_steps at 0."
            )
        if plan.exact:
            return Estimate.exact(sampler, plan)

        def weigh(some: Sampler) -> Estimate:
            if self.networks == "full":
                return self._weigh(some, plan)
            with Bfloat16Networks():
                estimate = self._weigh(some, plan)
            error = _rounding_error(some, min(self.num_particles, BLOCK))
            estimate.columns["rounding_error"] = error.cpu().numpy()
            return estimate

        return estimate_pieces(sampler, plan, weigh, label=type(self).__name__)

    def _weigh(self, sampler: Sampler, plan: Plan) -> Estimate:
        more = {}
        if self.refine_steps:
            degrees = _DEGREES if self.proposal == "student_t" else math.inf
            sampler, more["refinement_gain"] = refine(sampler, self.refine_steps, degrees)
        if self.target_standard_error is not None:
            running = weigh_to_target(
                sampler,
                plan,
                target=self.target_standard_error,
                num_particles=self.num_particles,
                max_particles=self.max_particles,
            )
            return Estimate.of_weights(running, **more)
        running = RunningWeights(len(sampler), self.num_particles, plan.device)
        if self.prior_share:
            self._weigh_mixture(sampler, running, plan.num_particles)
        else:
            for log_w in sampler.weight_chunks(self.num_particles, plan.num_particles):
                running.update(log_w)
        return Estimate.of_weights(running, **more)

    def _weigh_mixture(self, sampler: Sampler, running: RunningWeights, size: int) -> None:
        """Draws of guide and prior in fixed numbers, weighed by their mixture (the balance
        heuristic).
        """
        from_prior = int(self.num_particles * self.prior_share)
        share = from_prior / self.num_particles
        log_shares = math.log1p(-share), math.log(share) if share else -math.inf

        def draw_prior(num: int, start: int) -> Any:
            drawn = sampler.draw_prior(num, start)
            with sampler.streams(num, start, salt=_AUXILIARY_STREAM):
                return sampler.score(drawn.random_values)

        strata = (sampler.draw, self.num_particles - from_prior), (draw_prior, from_prior)
        for draw, num in strata:
            for first in range(0, num, size):
                drawn = draw(min(size, num - first), first)
                proposal = torch.logaddexp(
                    log_shares[0] + drawn.log_q, log_shares[1] + drawn.log_prior
                )
                running.update(check_log_weights(drawn.log_p - proposal))

    def run_reverse(self, sampler: Sampler, plan: Plan, exact: dict[str, Tensor]) -> Estimate:
        r"""Upper bounds, from exact posterior draws ``(B, *event)``: one of the K particles is the
        exact draw.

        .. math:: \mathbb E \log \frac1K \Big( w(z^*) + \sum_{k=2}^K w(z_k) \Big) \ge \log p(x),
                  \qquad
                  z^* \sim p(z \mid x),\ z_k \sim q(z \mid x)

        References:
            Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo (Grosse et al.,
            2015), section 4.2, `arXiv:1511.02543 <https://arxiv.org/abs/1511.02543>`_.
        """
        if self.refine_steps or self.prior_share:
            raise ValueError(
                "The upper bound is that of the plain guide: leave refine_steps and prior_share "
                "out."
            )
        if plan.exact:
            return Estimate.exact(sampler, plan)

        def weigh(some: Sampler, values: dict[str, Tensor]) -> Estimate:
            running = RunningWeights(len(some), self.num_particles, plan.device)
            first = repeat_values(values, some.draw(1), 1)
            with some.streams(1, salt=_AUXILIARY_STREAM):
                given = some.score(first)
            running.update(check_log_weights(given.log_weights))
            for log_w in some.weight_chunks(self.num_particles - 1, plan.num_particles):
                running.update(log_w)
            return Estimate.of_weights(running)

        return estimate_pieces(sampler, plan, weigh, exact, label=type(self).__name__)


def _rounding_error(sampler: Sampler, num_particles: int) -> Tensor:
    """``(B,)``: what bfloat16 in the networks adds to the estimate by a datum's first particles."""
    sampler = replace(sampler)
    sampler.encoded  # noqa: B018 - the guide runs in full precision, so that both draws agree
    with Bfloat16Networks():
        rounded = sampler.draw(num_particles).log_weights
    exact = sampler.draw(num_particles).log_weights
    return log_mean_exp(rounded.double()) - log_mean_exp(exact.double())

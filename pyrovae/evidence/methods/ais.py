"""Annealed importance sampling, forward and in reverse."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch

from pyrovae.evidence.inspection import Inspection
from pyrovae.evidence.methods.annealing import SCALE_DRAWS, Anneal, check_sites
from pyrovae.evidence.methods.base import Estimate, Method, check_count, estimate_pieces
from pyrovae.evidence.methods.double import DoublePrecision
from pyrovae.evidence.methods.hmc import Values
from pyrovae.evidence.plan import Plan, plan
from pyrovae.evidence.sampler import Sampler
from pyrovae.evidence.summing import Enumerate, check_enumerate

__all__ = ["AIS"]


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

    HMC can turn a difference in the last digit into another path of a chain, and how a sum is
    rounded depends on how many data are scored at once. So programs run in float64 here, whatever
    the precision of their parameters. An estimate then does not depend on ``memory_budget``, on the
    order of the data or on the other data.

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
        precision: ``"double"``, or ``"program"``, which leaves the precision of the programs as it
            is. In float32 this is up to twice as fast on CPU, and more on many GPUs. The estimate
            of a datum then changes, as another seed would change it, when ``memory_budget`` or the
            other data change.

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
        num_chains: int = 32,
        start: Literal["prior", "guide"] = "prior",
        schedule: Literal["sigmoid", "linear", "adaptive"] = "sigmoid",
        num_leapfrog: int = 10,
        target_acceptance: float = 0.65,
        *,
        enumerate: Enumerate = "auto",
        precision: Literal["double", "program"] = "double",
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
        self.start: Literal["prior", "guide"] = start
        self.schedule: Literal["sigmoid", "linear", "adaptive"] = schedule
        self.target_acceptance = target_acceptance
        self.enumerate: Enumerate = check_enumerate(enumerate)
        if precision not in ("double", "program"):
            raise ValueError(f"precision must be 'double' or 'program', found {precision!r}.")
        self.precision: Literal["double", "program"] = precision

    def settings(self) -> dict[str, Any]:
        return {
            "num_temperatures": self.num_temperatures,
            "num_chains": self.num_chains,
            "start": self.start,
            "schedule": self.schedule,
            "num_leapfrog": self.num_leapfrog,
            "target_acceptance": self.target_acceptance,
            **({"enumerate": self.enumerate} if self.enumerate != "auto" else {}),
            **({"precision": self.precision} if self.precision != "double" else {}),
        }

    def plan(self, inspection: Inspection) -> Plan:
        with self.in_precision(inspection.device):
            return plan(
                inspection,
                # A gradient holds on to what a plain run frees as it goes.
                4 * max(self.num_chains, SCALE_DRAWS),
                enumerate=self.enumerate,
                density=self.start == "guide",
            )

    def in_precision(self, device: torch.device) -> Any:
        """The context in which programs run."""
        double = self.precision == "double" and device.type != "mps"  # which lacks float64
        return DoublePrecision() if double else nullcontext()

    def run(self, sampler: Sampler, plan: Plan) -> Estimate:
        if plan.exact:  # nothing is left to move
            check_sites(replace(sampler, summed=None).select(slice(0, 1)).draw_prior(1))
        return estimate_pieces(sampler, plan, self._anneal, label=type(self).__name__)

    def _anneal(self, sampler: Sampler, exact: Values | None = None) -> Estimate:
        with self.in_precision(sampler.device):
            return Anneal(self, sampler).estimate(exact)

    def run_reverse(self, sampler: Sampler, plan: Plan, exact: Values) -> Estimate:
        """Upper bounds, from exact posterior draws ``(B, *event)``: the same path walked backwards.

        The estimate is minus the log of the mean of the chains' inverse weights, whose expectation
        is 1 / p(x). All chains of a datum start at its one exact draw. They first move apart by
        transitions that leave the posterior as it is, a quarter as many as there are temperatures.

        References:
            Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo (Grosse et al.,
            2015), section 4, `arXiv:1511.02543 <https://arxiv.org/abs/1511.02543>`_.
        """
        return estimate_pieces(sampler, plan, self._anneal, exact, label=type(self).__name__)

"""Rate and distortion of a trained decoder, from one annealing run."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyrovae.evidence.inspection import inspect
from pyrovae.evidence.methods.ais import AIS
from pyrovae.evidence.methods.annealing import Anneal
from pyrovae.evidence.methods.base import Estimate, estimate_pieces
from pyrovae.evidence.sampler import Sampler
from pyrovae.programs import Program
from pyrovae.weights import log_mean_exp

if TYPE_CHECKING:
    import xarray

__all__ = ["annealed_rate_distortion"]


def annealed_rate_distortion(
    model: Program,
    guide: Program,
    data: Any,
    *,
    method: AIS | None = None,
    largest_beta: float = 1.0,
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int | None = None,
    progress: bool = False,
) -> "xarray.Dataset":
    r"""The whole rate-distortion curve of one trained model, by annealed importance sampling.

    At each beta of the path, the best code of x has the density

    .. math:: q_\beta(z \mid x) = p(z)\, p(x \mid z)^\beta / Z_\beta(x), \qquad
              D_\beta = -E_{q_\beta}[\log p(x \mid z)], \qquad
              R_\beta = KL(q_\beta \,\|\, p) = -\log Z_\beta(x) - \beta D_\beta

    Chains that walk from the prior along these densities give D as a weighted mean, and the log of
    their mean weight estimates log Z, from below in expectation. So the rate is overestimated, less
    so with more temperatures and chains. At beta = 1, minus rate minus distortion is the AIS
    estimate of log p(x).

    Unlike :func:`rate_distortion`, which sets models side by side that were trained at several
    beta, this curve belongs to the decoder and the prior alone: the guide plays no part.

    Args:
        model, guide, data, seed, memory_budget, device, max_plate_nesting, progress: As
            :func:`~pyrovae.evidence.log_marginal`.
        method: The annealing; its temperatures are the points of the curve. By default
            ``AIS(num_temperatures=200, num_chains=16)``.
        largest_beta: The end of the path. Above 1 lie the codes of smaller distortion.

    Returns:
        Over ``beta``: ``rate`` and ``distortion``, means over data in nats per datum, and
        ``rate_error`` and ``distortion_error``, their standard errors over data.

    Raises:
        TypeError: If the method is not an :class:`AIS`.
        ValueError: If it does not start at the prior, if its temperatures differ between data
            (``schedule="adaptive"``), if ``largest_beta`` is not positive, or if all latent sites
            are discrete and summed out.

    References:
        Evaluating Lossy Compression Rates of Deep Generative Models (Huang et al., 2020), section
        4, `arXiv:2008.06653 <https://arxiv.org/abs/2008.06653>`_.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()
        >>> method = pv.AIS(num_temperatures=20, num_chains=4, num_leapfrog=5)
        >>> curve = pv.evidence.annealed_rate_distortion(
        ...     oracle.model, oracle.guide, oracle.sample(10), method=method
        ... )
        >>> bool(curve["distortion"][0] > curve["distortion"][-1])  # at beta = 0 and beta = 1
        True
    """
    import xarray

    method = AIS(num_temperatures=200, num_chains=16) if method is None else method
    _check(method, largest_beta)
    options = memory_budget, device, max_plate_nesting, progress
    inspection = inspect(model, guide, data, seed, *options)
    with inspection.evaluating():
        plan = method.plan(inspection)
        if plan.exact:
            raise ValueError(
                "All latent sites are discrete and summed out, so there is nothing to anneal. Use "
                "log_marginal, which is exact here."
            )

        def trace(some: Sampler) -> Estimate:
            with method.in_precision(some.device):
                return _trace(Anneal(method, some, largest_beta))

        sampler = inspection.sampler(plan.summed, plan.scorer)
        found = estimate_pieces(sampler, plan, trace, label="annealing").columns
    beta, distortion = found["beta"][0], found["distortion"]
    rate = -found["log_z"] - np.where(beta == 0, 0.0, beta * distortion)
    columns: dict[str, Any] = {}
    for name, values in {"rate": rate, "distortion": distortion}.items():
        columns[name] = "beta", values.mean(0)
        error = values.std(0, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else np.inf
        columns[f"{name}_error"] = "beta", np.broadcast_to(error, beta.shape)
    about = {"method": repr(method), "num_data": len(rate), "seed": seed}
    return xarray.Dataset(columns, coords={"beta": beta}, attrs=about)


def _trace(anneal: Anneal) -> Estimate:
    """For each datum, ``(B, T + 1)``: beta, log of the chains' mean weight, and distortion."""
    log_z, distortion = [], []

    def note(log_w: torch.Tensor, log_likelihood: torch.Tensor) -> None:
        weights = log_w.softmax(0)
        seen = torch.where(weights > 0, weights * log_likelihood, torch.zeros_like(log_w))
        log_z.append(log_mean_exp(log_w, dim=0))
        distortion.append(-seen.sum(0))

    path = anneal.forward(note)
    return Estimate.of_columns(
        {
            "beta": path.betas.T,
            "log_z": torch.stack(log_z, 1),
            "distortion": torch.stack(distortion, 1),
        }
    )


def _check(method: Any, largest_beta: float) -> None:
    if not isinstance(method, AIS):
        raise TypeError(f"The curve is annealed, so method must be AIS(...), found {method!r}.")
    if method.start != "prior" or method.schedule == "adaptive":
        raise ValueError(
            "The curve needs start='prior', and the same temperatures for all data "
            f"(schedule='sigmoid' or 'linear'), found {method!r}."
        )
    if not 0 < largest_beta < math.inf:
        raise ValueError(f"largest_beta must be positive and finite, found {largest_beta}.")

"""Split the ELBO into its parts, and its distance to log p(x)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyrovae import plots
from pyrovae.declare import html_table
from pyrovae.evidence.analysis.units import centres, kl_of_units
from pyrovae.evidence.columns import WithDataset
from pyrovae.evidence.inspection import Inspection, in_pieces, inspect
from pyrovae.evidence.methods.base import Method, check_count
from pyrovae.evidence.plan import Plan, plan
from pyrovae.evidence.sampler import Sampler
from pyrovae.particles import Particles, guide_log_prob, over_plates
from pyrovae.particles.scoring import log_prob_of
from pyrovae.programs import Program

if TYPE_CHECKING:
    import xarray

__all__ = ["Nats", "rate_distortion", "where_the_nats_go"]

ACTIVE = 0.01
"""Activity above which a latent element counts as active."""


class Nats(WithDataset):
    r"""The parts of the ELBO and of its distance to log p(x), in nats.

    ``dataset`` holds over ``datum``: ``elbo``, ``reconstruction`` and ``kl``, with elbo =
    reconstruction - kl; ``mutual_information`` and ``marginal_kl``, with kl = mutual_information +
    marginal_kl; and where a method was given ``log_marginal`` and ``inference_gap`` =
    log_marginal - elbo. With refinement there are also ``amortization_gap`` and
    ``approximation_gap``, which add up to the inference gap. All parts are estimated from the same
    draws. Over ``unit`` it holds ``activity``: the variance over data of the guide's mean of each
    latent element, without the Monte Carlo noise of that mean; and ``unit_kl``: its part of the
    KL, where prior and guide are independent over elements, else NaN.

    Example:
        See :func:`where_the_nats_go`, which makes it.
    """

    def mean(self, name: str) -> float:
        """Mean of a part over data."""
        return float(self.dataset[name].mean())

    def error(self, name: str) -> float:
        """Standard error of that mean over data."""
        values = self.dataset[name].values
        if values.size == 1 or np.isinf(values).any():
            return math.inf
        return float(values.std(ddof=1)) / math.sqrt(values.size)

    @property
    def active_units(self) -> int:
        """Number of latent elements whose activity is above 0.01.

        References:
            Importance Weighted Autoencoders (Burda et al., 2016), section 5.2,
            `arXiv:1509.00519 <https://arxiv.org/abs/1509.00519>`_.
        """
        return int(self.active.sum())

    @property
    def active(self) -> np.ndarray:
        """``(D,)``: whether the activity of each latent element is above 0.01."""
        return self.dataset["activity"].values > ACTIVE

    def beside(self, log_marginal: np.ndarray) -> "Nats":
        """These parts, and the inference gap to log p(x) of the same data, ``(B,)``, which was
        estimated before.
        """
        gaps = _gaps(self.elbo.values, {"log_marginal": np.asarray(log_marginal)})
        return Nats(self.dataset.assign({name: ("datum", gap) for name, gap in gaps.items()}))

    def plot(self, axes: Any = None) -> Any:
        """The parts as one bar: :func:`pyrovae.plots.nats`."""
        return plots.nats(self, axes)

    def _lines(self) -> tuple[str, list[tuple[str, str]], str]:
        """Title, names with their numbers, and the last line."""
        names = [str(name) for name in self.dataset if "datum" in self.dataset[name].dims]
        means = [f"{self.mean(name):.4f}" for name in names]
        long = max(10, *map(len, means))
        rows = [
            (name, f"{mean:>{long}} ± {self.error(name):.2g}")
            for name, mean in zip(names, means, strict=True)
        ]
        units = self.dataset.sizes["unit"]
        title = f"Where the nats go, means over {self.dataset.sizes['datum']} data"
        return title, rows, f"{self.active_units} of {units} latent elements active"

    def __repr__(self) -> str:
        title, rows, last = self._lines()
        width = max(len(name) for name, _ in rows)
        return "\n".join([title, *(f"  {n:<{width}}  {value}" for n, value in rows), f"  {last}"])

    def _repr_html_(self) -> str:
        title, rows, last = self._lines()
        return html_table(f"{title}; {last}; nats per datum", rows)


def where_the_nats_go(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_particles: int = 64,
    method: Method | None = None,
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int | None = None,
    progress: bool = False,
) -> Nats:
    r"""Split the ELBO into its parts, and with a method also its distance to log p(x).

    .. math:: \mathrm{ELBO} = \mathbb E_q \log p(x \mid z) - \mathrm{KL}, \qquad
              \overline{\mathrm{KL}} = I_q(n; z) + \mathrm{KL}\Big(\frac1N \sum_n q(z \mid x_n)
              \,\Big\|\, p(z)\Big)

    Here :math:`I_q` is the information that z, all latent sites together, carries about which datum
    it came from. It is at most log N, and describes the empirical distribution of these N data. It
    needs the density of each draw under the guide of every datum, so the work grows with
    :math:`K N^2`: take a few thousand data. A guide with auxiliary sites has no known density of z,
    so mutual information is ``nan`` there.

    Args:
        model, guide, data, seed, memory_budget, device, max_plate_nesting, progress: As
            :func:`~pyrovae.evidence.log_marginal`.
        num_particles: Draws K from the guide for each datum.
        method: How to estimate log p(x). ``ImportanceSampling(5000, refine_steps=200)`` also splits
            the inference gap into amortisation (the gain of a Gaussian fitted to each datum) and
            approximation (the rest).

    Raises:
        ValueError: As :func:`~pyrovae.evidence.log_marginal`.

    References:
        - ELBO Surgery: Yet Another Way to Carve Up the Variational Evidence Lower Bound (Hoffman
          and Johnson, 2016), equations 6 to 8.
        - Inference Suboptimality in Variational Autoencoders (Cremer et al., 2018), equations 3 to
          5, `arXiv:1801.03558 <https://arxiv.org/abs/1801.03558>`_.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is exact: the ELBO is log p(x)
        >>> x = oracle.sample(50)
        >>> nats = where_the_nats_go(oracle.model, oracle.guide, x, num_particles=10)
        >>> bool(np.allclose(nats.elbo, oracle.log_prob(x).detach())), nats.active_units
        (True, 2)
    """
    import xarray

    check_count("num_particles", num_particles)
    inspection = inspect(
        model, guide, data, seed, memory_budget, device, max_plate_nesting, progress
    )
    with inspection.evaluating():
        columns, over_units = _take_apart(inspection, num_particles)
        if method is not None:
            columns |= _gaps(columns["elbo"], method.evaluate(inspection).columns)
    variables: dict[str, Any] = {name: ("datum", column) for name, column in columns.items()}
    attributes = {"data": inspection.fingerprint, "num_particles": num_particles, "seed": seed}
    variables |= {name: ("unit", column) for name, column in over_units.items()}
    return Nats(xarray.Dataset(variables, attrs=attributes))


def _gaps(elbo: np.ndarray, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns for the distance of the ELBO from log p(x), as far as a method's columns tell."""
    gap = found["log_marginal"] - elbo
    columns = {"log_marginal": found["log_marginal"], "inference_gap": gap}
    if "refinement_gain" in found:
        columns["amortization_gap"] = found["refinement_gain"]
        columns["approximation_gap"] = gap - found["refinement_gain"]
    return columns


def _take_apart(
    inspection: Inspection, num_particles: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns over data, and columns over latent elements, all from the same draws."""
    work = plan(inspection, num_particles)
    everyone = inspection.sampler().select(np.arange(inspection.num_data))
    parts: list[tuple[Tensor, ...]] = []
    units: list[tuple[Tensor, ...]] = []
    for index in in_pieces(
        inspection.num_data, work.num_data, progress=work.progress, label="where_the_nats_go"
    ):
        particles = inspection.sampler().select(index).draw(num_particles)
        log_q = particles.log_q.double()
        kl = (log_q - particles.log_prior.double()).mean(0)
        mixture = _log_mixture(everyone, particles, work)
        information = (log_q - mixture).mean(0)
        parts.append((particles.log_likelihood.double().mean(0), kl, information))
        axis = inspection.max_plate_nesting
        units.append((*centres(particles, axis), kl_of_units(particles, axis)))
    reconstruction, kl, information = (
        torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)
    )
    # The variance of means of draws also holds their Monte Carlo noise, which is taken away.
    centre, noise, unit_kl = (torch.cat(column) for column in zip(*units, strict=True))
    spread = centre.var(0, correction=0)
    excess = noise.mean(0) * (1 - 1 / inspection.num_data)
    columns = {
        "elbo": reconstruction - kl,
        "reconstruction": reconstruction,
        "kl": kl,
        "mutual_information": information,
        "marginal_kl": kl - information,
    }
    over_units = {"activity": (spread - excess).clamp_min(0), "unit_kl": unit_kl.mean(0)}
    return columns, {name: value.cpu().numpy() for name, value in over_units.items()}


def _log_mixture(everyone: Sampler, particles: Particles, work: Plan) -> Tensor:
    """``(K, B)``: log of the mean over all data m of q(z | x_m), at each particle z.

    z is all latent sites together: their density given datum m is that of the guide of m, replayed
    at z.
    """
    num, num_data = particles.num_particles, particles.num_data
    if particles.auxiliary:  # the guide's density of z alone is not known
        return torch.full((num, num_data), math.nan, dtype=torch.float64, device=everyone.device)
    axis = everyone.max_plate_nesting
    # (K * B, ..., *event) of each site
    rows = {
        name: site.value.movedim(axis, 1).flatten(0, 1) for name, site in particles.latents.items()
    }
    width = 8 * 4 * sum(math.prod(value.shape[1:]) for value in rows.values())
    each = width if everyone.encoded is not None else max(width, work.bytes_per_particle)
    size = max(1, work.memory_budget // (each * len(everyone)))
    found = []
    for index in in_pieces(num * num_data, size):
        some = {
            name: value[index[0] : index[-1] + 1].unsqueeze(axis) for name, value in rows.items()
        }
        found.append(_under_all(everyone, some).logsumexp(1))
    return torch.cat(found).reshape(num, num_data) - math.log(len(everyone))


def _under_all(everyone: Sampler, values: dict[str, Tensor]) -> Tensor:
    """``(R, N)``: log q of R draws ``(R, ..., 1, *event)`` given each of N data."""
    axis, num_data = everyone.max_plate_nesting, len(everyone)
    if everyone.encoded is not None:
        ((name, value),) = values.items()
        site = everyone.encoded.nodes[name]
        return over_plates(log_prob_of({**site, "value": value}).double())
    repeated = {}
    for name, value in values.items():
        shape = list(value.shape)
        shape[axis] = num_data
        repeated[name] = value.expand(shape)
    guide, args = everyone.guide, everyone.args
    return guide_log_prob(guide, repeated, args, max_plate_nesting=axis).double()


def rate_distortion(runs: Mapping[float, Nats]) -> "xarray.Dataset":
    """Rate (mean KL) and distortion (minus mean reconstruction) of models trained at several beta.

    Args:
        runs: Results of :func:`where_the_nats_go`, by the beta at which each model was trained.

    References:
        Fixing a Broken ELBO (Alemi et al., 2018), section 2,
        `arXiv:1711.00464 <https://arxiv.org/abs/1711.00464>`_.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()
        >>> nats = where_the_nats_go(oracle.model, oracle.guide, oracle.sample(50))
        >>> table = rate_distortion({1.0: nats})
        >>> bool(np.allclose(table["elbo"], -table["rate"] - table["distortion"]))
        True
    """
    import xarray

    betas = sorted(runs)
    return xarray.Dataset(
        {
            "rate": ("beta", [runs[beta].mean("kl") for beta in betas]),
            "distortion": ("beta", [-runs[beta].mean("reconstruction") for beta in betas]),
            "elbo": ("beta", [runs[beta].mean("elbo") for beta in betas]),
            "mutual_information": (
                "beta",
                [runs[beta].mean("mutual_information") for beta in betas],
            ),
        },
        coords={"beta": betas},
    )

"""Simulation-based calibration: whether a guide is the posterior, on average over the model's own
data.
"""

from typing import Any

import numpy as np
from torch import Tensor

from pyrovae import plots
from pyrovae.declare import html_table
from pyrovae.evidence.analysis.simulated import simulate_data
from pyrovae.evidence.columns import WithDataset
from pyrovae.evidence.inspection import Inspection, in_pieces, inspect
from pyrovae.evidence.methods.base import check_count
from pyrovae.evidence.plan import plan
from pyrovae.particles import Particles
from pyrovae.programs import Program

__all__ = ["Calibration", "calibration"]

_MOST_BINS = 20
_LEAST_EXPECTED = 5  # counts of a bin, below which a chi-square law is a poor approximation
LEVEL = 0.05


class Calibration(WithDataset):
    """Ranks of the true latent values among draws of the guide, for simulated data.

    ``dataset`` holds ``rank``, over ``datum`` and ``unit`` (a latent element), from 0 to the number
    of draws; and over ``unit``:

    - ``p_value``: of a chi-square test that the ranks are uniform.
    - ``mean_rank``: as a share of the draws. It is 0.5 for the posterior, more for a guide whose
      values are too low, and less for one whose values are too high.
    - ``spread``: the variance of the ranks in units of that of uniform ones. It is 1 for the
      posterior, more for a guide that is too narrow, and less for one that is too wide.

    Example:
        See :func:`calibration`, which makes it.
    """

    @property
    def num_draws(self) -> int:
        """Draws of the guide for each datum."""
        return int(self.dataset.attrs["num_draws"])

    @property
    def smallest_p(self) -> float:
        """The smallest P of all latent elements, times their number (Bonferroni), at most 1.

        If the guide is the posterior, it is below 0.05 in at most one case of 20.
        """
        return min(1.0, float(self.p_value.min()) * self.p_value.size)

    def _rows(self) -> tuple[str, list[tuple[str, str]]]:
        """Title, and names with what is found."""
        ranks, p_value = self.dataset["rank"], self.p_value
        uneven = int((p_value < LEVEL / p_value.size).sum())
        rows = [
            ("ranks not uniform", f"{uneven} of {p_value.size} latent elements"),
            ("smallest P", f"{self.smallest_p:.2g}, for that many tests"),
        ]
        for name, values, ideal, fault in (
            ("mean rank", self.mean_rank, 0.5, "the guide's values are too low"),
            ("spread of ranks", self.spread, 1.0, "the guide is too narrow"),
        ):
            furthest = float(values[int(np.abs(values.values - ideal).argmax())])
            text = f"{float(values.mean()):.3f}, furthest {furthest:.3f} "
            rows.append((name, f"{text}({ideal:g} for the posterior; more if {fault})"))
        title = f"Calibration on {ranks.sizes['datum']} simulated data"
        return f"{title}, {self.num_draws} draws of the guide each", rows

    def __repr__(self) -> str:
        title, rows = self._rows()
        return "\n".join([title, *(f"  {name:<19} {found}" for name, found in rows)])

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """``(bins, D)`` counts of the ranks, and ``(bins,)`` the share of each bin if the ranks are
        uniform.
        """
        return _histogram(self.dataset["rank"].values, self.num_draws)

    def plot(self, axes: Any = None) -> Any:
        """The histogram of the ranks: :func:`pyrovae.plots.ranks`."""
        return plots.ranks(self, axes)

    def _repr_html_(self) -> str:
        return html_table(*self._rows())


def calibration(
    model: Program,
    guide: Program,
    *,
    num_data: int = 1000,
    num_draws: int = 99,
    data: Any = None,
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int | None = None,
    progress: bool = False,
) -> Calibration:
    """Ranks of true latent values among draws of the guide, on data that the model itself draws.

    If the guide is the posterior, the true value of each latent element and its ``num_draws`` draws
    are exchangeable, so that the rank is uniform. Ranks at both ends show a guide that is too
    narrow, ranks in the middle one that is too wide, and ranks at one end one that lies beside the
    posterior. Equal values are put in random order.

    Uniform ranks do not prove that the guide is the posterior: a guide that ignores the data and
    draws from the prior has uniform ranks as well. :func:`~pyrovae.where_the_nats_go` tells that
    apart by the mutual information.

    Args:
        model, guide: Pyro programs whose data plate is the right-most batch dimension.
        num_data: Number of data to simulate.
        num_draws: Draws of the guide for each datum.
        data: As :func:`bdmc`.
        seed, memory_budget, device, max_plate_nesting, progress: As :func:`log_marginal`.

    Raises:
        ValueError: As :func:`bdmc`.

    References:
        - Validating Bayesian Inference Algorithms with Simulation-Based Calibration (Talts et al.,
          2018), algorithm 1, `arXiv:1804.06788 <https://arxiv.org/abs/1804.06788>`_.
        - Yes, but Did It Work?: Evaluating Variational Inference (Yao et al., 2018), section 3.2,
          for variational posteriors, `arXiv:1802.02538 <https://arxiv.org/abs/1802.02538>`_.

    Examples:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> found = pv.evidence.calibration(oracle.model, oracle.guide, num_data=500)
        >>> found.smallest_p > 0.05
        True
        >>> narrow = pv.testing.LinearGaussian(stretch=0.7)
        >>> found = pv.evidence.calibration(narrow.model, narrow.guide, num_data=500)
        >>> found.smallest_p < 0.001, bool((found.spread > 1.2).all())
        (True, True)
    """
    check_count("num_draws", num_draws)
    check_count("num_data", num_data, least=10)
    drawn, latents = simulate_data(model, guide, num_data, data, seed, device)
    inspection = inspect(
        model, guide, drawn, seed, memory_budget, device, max_plate_nesting, progress
    )
    ranks, units = _ranks(inspection, latents, num_draws)
    return _calibration(ranks, num_draws, units)


def _ranks(
    inspection: Inspection, latents: dict[str, Tensor], num_draws: int
) -> tuple[np.ndarray, list[str]]:
    """``(B, D)`` ranks, and the names of the latent elements."""
    ranks, num_data, axis = [], inspection.num_data, inspection.max_plate_nesting
    with inspection.evaluating():
        work = plan(inspection, num_draws)
        random = np.random.default_rng(inspection.seed)
        options: Any = {"progress": inspection.progress, "label": "calibration"}
        for index in in_pieces(num_data, work.num_data, **options):
            some = inspection.sampler().select(index)
            below = equal = np.zeros(())
            for first in range(0, num_draws, work.num_particles):
                particles = some.draw(min(work.num_particles, num_draws - first), first)
                lower, same = _compare(particles, latents, index, axis)
                below, equal = below + lower, equal + same
            ranks.append(below + random.integers(0, equal.astype(int), endpoint=True))
    return np.concatenate(ranks), _units(particles, axis)


def _compare(
    particles: Particles, latents: dict[str, Tensor], index: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """``(B, D)`` each: how many draws are below the true value, and how many equal it."""
    columns: tuple[list[Tensor], list[Tensor]] = [], []
    for name, site in particles.latents.items():
        true = latents[name].to(site.value)
        place = true.dim() - (site.value.dim() - 1 - (axis - 1))  # of the data
        true = true.movedim(place, 0)[index].movedim(0, place).reshape(1, *site.value.shape[1:])
        for column, found in zip(columns, (site.value < true, site.value == true), strict=True):
            column.append(found.sum(0).movedim(axis - 1, 0).reshape(len(index), -1))
    below, equal = (np.concatenate([c.cpu().numpy() for c in column], 1) for column in columns)
    return below, equal


def _units(particles: Particles, axis: int) -> list[str]:
    names = []
    for name, site in particles.latents.items():
        shape = site.value.shape[1:axis] + site.value.shape[axis + 1 :]
        names += [name + "".join(f"[{i}]" for i in place) for place in np.ndindex(*shape)]
    return names


def _calibration(ranks: np.ndarray, num_draws: int, units: list[str]) -> Calibration:
    import xarray
    from scipy.special import chdtrc

    counts, shares = _histogram(ranks, num_draws)
    expected = len(ranks) * shares[:, None]
    statistic = ((counts - expected) ** 2 / expected).sum(0)
    share = (ranks + 0.5) / (num_draws + 1)
    uniform = (1 - (num_draws + 1.0) ** -2) / 12  # the variance of uniform shares
    columns = {
        "rank": (("datum", "unit"), ranks.astype(np.int64)),
        "p_value": ("unit", chdtrc(len(shares) - 1, statistic)),
        "mean_rank": ("unit", share.mean(0)),
        "spread": ("unit", ((share - 0.5) ** 2).mean(0) / uniform),
    }
    return Calibration(
        xarray.Dataset(columns, coords={"unit": units}, attrs={"num_draws": num_draws})
    )


def _histogram(ranks: np.ndarray, num_draws: int) -> tuple[np.ndarray, np.ndarray]:
    """``(bins, D)`` counts of ranks, and the share of each bin if ranks are uniform."""
    num = max(2, min(_MOST_BINS, num_draws + 1, len(ranks) // _LEAST_EXPECTED))
    bins = np.arange(num_draws + 1) * num // (num_draws + 1)
    shares = np.bincount(bins, minlength=num) / (num_draws + 1)
    counts = np.stack(
        [np.bincount(bins[column], minlength=num) for column in ranks.astype(int).T], 1
    )
    return counts, shares

"""What a comparison of models prints."""

import math
from typing import TYPE_CHECKING, Any

from pyrovae import plots
from pyrovae.declare import html_table

if TYPE_CHECKING:
    import xarray

__all__ = ["ERRORS", "ModelComparison", "interval", "known", "share"]

ERRORS = {
    "both": "for all such data",
    "test_set": "for all such data, the estimates taken as exact",
    "monte_carlo": "for these very data",
}


_WIDTHS = {
    "mean": 10,
    "seeds": 5,
    "± seeds": 7,
    "rank": 5,
    "difference": 10,
    "interval": 20,
    "P(better)": 9,
    "k > 0.7": 7,
    "method": 0,
}


class ModelComparison:
    """Paired differences of log p(x) between models, in nats per datum.

    ``dataset`` is an :class:`xarray.Dataset` over ``model`` and ``reference``, both the models'
    names, best first: ``difference`` is the mean of log p(x) under the model less that under the
    reference, ``standard_error`` its error, ``lower`` and ``upper`` the ends of its interval,
    ``probability`` that the model is the better of the two, with the allowances of the interval.
    Where the evidence of either side has no upper end, the ends are infinite and the probability is
    NaN. Over ``model`` alone: ``mean``, its ``monte_carlo_error`` and ``test_set_error``,
    ``flagged``, the share of data with k above 0.7, and ``effort``, the method with its settings.

    A comparison of single results is one of these weights. It does not tell how the models would
    compare after training with other seeds. A comparison over training seeds does: it also has
    ``num_seeds``, ``seeds_error``, and ``better``, which is true where the model is shown to be
    better than the reference, all pairs taken together. Of M models, ``first_rank`` is 1 plus the
    number of those that are better, and ``last_rank`` is M less the number of those that are worse.
    Between the two the model is tied with others. Models with a single seed have no ranks (0).

    Example:
        See :func:`compare_models`, which makes it.
    """

    def __init__(self, dataset: "xarray.Dataset"):
        self.dataset = dataset

    @property
    def best(self) -> str:
        """Name of the model with the highest mean."""
        return str(self.dataset["model"].values[0])

    @property
    def names(self) -> list[str]:
        """Names of the models, best first."""
        return [str(name) for name in self.dataset["model"].values]

    @property
    def over_seeds(self) -> bool:
        """Whether it speaks of models, trained with several seeds, rather than of weights."""
        return "num_seeds" in self.dataset

    def ranks(self) -> list[str]:
        """Of each model, such as ``"1"``, ``"2-3"`` where it is tied, or ``"-"`` for one seed."""
        if not self.over_seeds:
            return ["-"] * len(self.names)
        firsts, lasts = (self.dataset[f"{end}_rank"].values for end in ("first", "last"))
        pairs = zip(firsts, lasts, strict=True)
        return ["-" if not i else f"{i}" if i == j else f"{i}-{j}" for i, j in pairs]

    def plot(self, axes: Any = None) -> Any:
        """Differences from the best model, with intervals: :func:`pyrovae.plots.forest`."""
        return plots.forest(self, axes)

    def __repr__(self) -> str:
        head, rows = self._cells()
        widths = [max(12, *map(len, self.names)), *(_WIDTHS[name] for name in head[1:])]
        lines = []
        for cells in (head, *rows):
            pairs = zip(cells[1:-1], widths[1:-1], strict=True)
            middle = [f"{cell:>{width}}" for cell, width in pairs]
            lines.append("  ".join([f"{cells[0]:<{widths[0]}}", *middle, cells[-1]]))
        return "\n".join([self._title(), *lines, *self.remarks()])

    def _repr_html_(self) -> str:
        head, rows = self._cells()
        return html_table(" ".join([f"{self._title()}.", *self.remarks()]), rows, head)

    def _title(self) -> str:
        table = self.dataset
        over = " and training seeds" if self.over_seeds else ""
        return (
            f"log p(x) of {table.attrs['num_data']} data in nats per datum, and the difference "
            f"from {self.names[0]!r} with its {table.attrs['prob']:.0%} interval "
            f"({ERRORS[table.attrs['error']]}{over})"
        )

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Heads of columns, and a row for each model."""
        head, rows, ranks = ["model", "mean"], [], self.ranks()
        head += ["seeds", "± seeds", "rank"] * self.over_seeds
        head += ["difference", "interval", "P(better)", "k > 0.7", "method"]
        for i, name in enumerate(self.names):
            row = self.dataset.isel(model=i, reference=0)
            cells = [name, f"{float(row['mean']):.3f}"]
            if self.over_seeds:
                spread = known(float(row["seeds_error"]))
                cells += [f"{int(row['num_seeds'])}", spread, ranks[i]]
            difference, probability = float(row["difference"]), float(row["probability"])
            beside = [f"{difference:.3f}", interval(row), f"{probability:.3g}"]
            cells += beside if i else ["", "", ""]
            rows.append([*cells, share(float(row["flagged"])), f"{row['effort'].item()}"])
        return head, rows

    def remarks(self) -> list[str]:
        """What has to be said beside the numbers."""
        table = self.dataset
        single = []
        if self.over_seeds:
            numbers = zip(self.names, table["num_seeds"].values, strict=True)
            single = [name for name, number in numbers if number == 1]
        lines = []
        if single:
            lines.append(
                f"One training seed shows weights, not a model: {', '.join(single)} cannot be "
                "ranked. Train with two seeds at the least; three or more are better."
            )
        unknown = table["probability"].isnull().values
        if any(
            unknown[i, j]
            for i, name in enumerate(self.names)
            for j, other in enumerate(self.names)
            if name not in single and other not in single
        ):
            lines.append(
                "unknown: an estimate has no upper end, so its differences have no interval; print "
                "the evidence to see why"
            )
        if len(set(table["effort"].values)) > 1:
            lines.append("methods or effort differ: so do the biases of the estimates")
        if not self.over_seeds:
            lines.append(
                "This compares these weights, not what other training seeds would give. To compare "
                "models, train each with several seeds: see pyrovae sweep."
            )
        elif len(self.names) > len(single) + 1:
            lines.append(
                f"Ranks hold together with probability {table.attrs['prob']:.0%} (Holm); a range "
                "is a tie."
            )
        return lines


def interval(row: Any) -> str:
    """The interval of a difference."""
    if math.isinf(row["lower"]):
        return "unknown"
    return f"[{float(row['lower']):.3f}, {float(row['upper']):.3f}]"


def known(value: float) -> str:
    """A number, or a question mark."""
    return "?" if math.isnan(value) else f"{value:.3f}"


def share(value: float) -> str:
    """A share in per cent, or a question mark where it is not known."""
    return "?" if math.isnan(value) else f"{value:.1%}"

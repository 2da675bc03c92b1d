"""What a comparison of models prints."""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray

__all__ = ["ERRORS", "ModelComparison", "share"]

ERRORS = {
    "both": "for all such data",
    "test_set": "for all such data, the estimates taken as exact",
    "monte_carlo": "for these very data",
}


class ModelComparison:
    """Paired differences of log p(x) between models, in nats per datum.

    ``dataset`` is an :class:`xarray.Dataset` over ``model`` and ``reference``, both the models'
    names, best first: ``difference`` is the mean of log p(x) under the model less that under the
    reference, ``standard_error`` its error, ``lower`` and ``upper`` the ends of its interval,
    ``probability`` that the model is the better of the two. Where the evidence of either side has
    no upper end, the ends are infinite and the probability is NaN. Over ``model`` alone: ``mean``,
    its ``monte_carlo_error`` and ``test_set_error``, ``flagged``, the share of data with k above
    0.7, and ``effort``, the method with its settings.

    A comparison of single results is one of these weights. It does not tell how the models would
    compare after training with other seeds. A comparison over training seeds does: it also has
    ``num_seeds``, ``seeds_error``, and ``better``, which is true where the model is shown to be
    better than the reference, all pairs taken together. Of M models, ``first_rank`` is 1 plus the
    number of those that are better, and ``last_rank`` is M less the number of those that are worse.
    Between the two the model is tied with others. Models with a single seed have no ranks (0).
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

    def __repr__(self) -> str:
        table = self.dataset
        names, ranks = self.names, self.ranks()
        width = max(12, *map(len, names))
        prob, error = table.attrs["prob"], ERRORS[table.attrs["error"]]
        over = " and training seeds" if self.over_seeds else ""
        beside = f"{'seeds':>5}  {'± seeds':>7}  {'rank':>5}  " if self.over_seeds else ""
        lines = [
            f"log p(x) of {table.attrs['num_data']} data in nats per datum, and the difference "
            f"from {names[0]!r} with its {prob:.0%} interval ({error}{over})",
            f"{'model':<{width}}  {'mean':>10}  {beside}{'difference':>10}  {'interval':>20}  "
            f"{'P(better)':>9}  {'k > 0.7':>7}  method",
        ]
        for i, name in enumerate(names):
            row = table.isel(model=i, reference=0)
            if self.over_seeds:
                spread = float(row["seeds_error"])
                shown = "?" if math.isnan(spread) else f"{spread:.3f}"
                beside = f"{int(row['num_seeds']):>5}  {shown:>7}  {ranks[i]:>5}  "
            difference = _difference(row) if i else f"{'':>10}  {'':>20}  {'':>9}"
            lines.append(
                f"{name:<{width}}  {float(row['mean']):>10.3f}  {beside}{difference}  "
                f"{share(float(row['flagged'])):>7}  {row['effort'].item()}"
            )
        return "\n".join(lines + self.remarks())

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


def _difference(row: Any) -> str:
    ends = f"[{float(row['lower']):.3f}, {float(row['upper']):.3f}]"
    probability = float(row["probability"])
    ends = "unknown" if math.isnan(probability) else ends
    return f"{float(row['difference']):>10.3f}  {ends:>20}  {probability:>9.3g}"


def share(value: float) -> str:
    """A share in per cent, or a question mark where it is not known."""
    return "?" if math.isnan(value) else f"{value:.1%}"

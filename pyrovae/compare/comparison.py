"""The result of a comparison of estimators: a data set, a table, a figure."""

import math
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae import files, plots
from pyrovae.declare import html_table

if TYPE_CHECKING:
    import xarray

__all__ = ["EstimatorComparison"]


class EstimatorComparison:
    r"""ELBO estimators side by side, at the same weights and on the same data.

    ``dataset`` is an :class:`xarray.Dataset` over ``estimator``, and over ``num_particles`` where
    that was swept:

    - ``bound``, ``bound_error``: mean over replicates and data, in nats per datum, and its standard
      error.
    - ``bias``, ``bias_error``: difference from log p(x), and its error, the reference's included.
    - ``draws``, ``decoder_evaluations``, ``seconds``: draws for each datum, pairs of draw and datum
      that the likelihood was evaluated at, and median time, of one gradient.

    and, over ``group`` of parameters too (``model``, ``guide``, and single sites such as
    ``guide:z``):

    - ``gradient_norm``: of the expected gradient, without the noise's part; ``gradient_variance``:
      of one gradient, summed over parameters; ``snr``: norm over the root of that variance.
    - ``gradient_bias``, ``gradient_bias_z``: norm of the difference from the expected gradient that
      the estimator means to have (for DReG, that of IWAE), relative to the latter's; its square
      over its standard error. Large z, say above 4, is bias. NaN where an estimator is its own
      target.
    - ``evidence_bias``, ``evidence_bias_z``: the same against the gradient of log p(x), for the
      model's groups, estimated with many particles.
    - ``snr_equal_cost``: SNR of as many gradients averaged as the slowest estimator's time allows;
      ``bound_error_equal_cost``, likewise, has no group.

    Example:
        See :func:`compare_estimators`, which makes it.
    """

    def __init__(self, dataset: "xarray.Dataset"):
        self.dataset = dataset

    def slopes(self, variable: str = "snr") -> "xarray.DataArray":
        """Slope of log ``variable`` against log ``num_particles``, by least squares.

        Raises:
            ValueError: If fewer than two numbers of particles were compared.
        """
        if self.dataset.sizes.get("num_particles", 1) < 2:
            raise ValueError(
                "Slopes need a sweep: compare_estimators(..., num_particles=(1, 4, 16, 64))."
            )
        with np.errstate(divide="ignore"):
            logs: Any = np.log(self.dataset[variable].where(self.dataset[variable] > 0))
            x: Any = np.log(logs["num_particles"])
        x = x.where(logs.notnull())
        centred = x - x.mean("num_particles")
        return (centred * logs).sum("num_particles") / (centred**2).sum("num_particles")

    def __repr__(self) -> str:
        lines = [self._title()]
        for title, part in self._parts():
            lines += ["", title] if title else []
            lines += _table(part)
        lines += [
            "",
            "bound, error, bias: nats per datum. SNR: signal-to-noise ratio of one gradient; "
            "=cost: of as many",
            "gradients as the slowest estimator's time allows. off: how far the expected gradient "
            "is from the one that",
            "the estimator aims at, relative to it ('-' where it defines its own); z above 4 is "
            "bias.",
            "decodings: evaluations of the likelihood. ms: time of one gradient.",
        ]
        return "\n".join(lines)

    def _title(self) -> str:
        attrs = self.dataset.attrs
        return (
            f"{attrs['num_replicates']} replicates on {attrs['num_data']} data; log p(x) = "
            f"{attrs['log_marginal']:.4f} +- {attrs['log_marginal_error']:.1g} nats per datum "
            f"({attrs['device']})"
        )

    def _parts(self) -> list[tuple[str, "xarray.Dataset"]]:
        """A data set for each number of particles, with its title; without a sweep, one."""
        table = self.dataset
        if "num_particles" not in table.dims:
            return [("", table)]
        counts = table["num_particles"].values
        return [(f"{k} particles", table.isel(num_particles=i)) for i, k in enumerate(counts)]

    def plot(self, axes: Any = None) -> Any:
        """Bias, time and SNR, a panel each: :func:`pyrovae.plots.estimators`."""
        return plots.estimators(self, axes)

    def _repr_html_(self) -> str:
        tables = []
        for title, part in self._parts():
            head, rows = _cells(part)
            caption = "; ".join(filter(None, (self._title(), title)))
            tables.append(html_table(caption, rows, head))
        return "".join(tables)

    def save(self, path: "str | PathLike[str]") -> None:
        """Write the data set as netCDF."""
        # In memory first: the library that writes the format does not outlive a full disk.
        files.write(Path(path), bytes(self.dataset.to_netcdf(engine="h5netcdf")))

    @classmethod
    def load(cls, path: "str | PathLike[str]") -> "EstimatorComparison":
        """Read what :meth:`save` wrote."""
        import xarray

        with xarray.open_dataset(path, engine="h5netcdf") as dataset:
            return cls(dataset.load())


def _table(part: "xarray.Dataset") -> list[str]:
    head, rows = _cells(part)
    width, lines = max(9, *(len(row[0]) for row in rows)), []
    widths = [5, 10, 7, 8, *[9, 7, 6, 5] * ((len(head) - 7) // 4), 9, 7]
    for cells in (head, *rows):
        numbers = [f"{cell:>{size}}" for cell, size in zip(cells[1:], widths, strict=True)]
        lines.append("  ".join([f"{cells[0]:<{width}}", *numbers]))
    return lines


def _cells(part: "xarray.Dataset") -> tuple[list[str], list[list[str]]]:
    """Heads of columns, and a row for each estimator."""
    groups = [str(group) for group in part["group"].values if ":" not in str(group)]
    head, rows = ["estimator", "draws", "bound", "error", "bias"], []
    for group in groups:
        head += [f"SNR {group}", "=cost", "off", "z"]
    for name in part["estimator"].values:
        row = part.sel(estimator=name)
        cells = [str(name), f"{float(row['draws']):.0f}", f"{float(row['bound']):.4f}"]
        cells += [f"{float(row['bound_error']):.1g}", f"{float(row['bias']):.4f}"]
        for group in groups:
            cell = row.sel(group=group)
            off, z = float(cell["gradient_bias"]), float(cell["gradient_bias_z"])
            cells += [f"{float(cell['snr']):.3g}", f"{float(cell['snr_equal_cost']):.3g}"]
            cells += ["-", ""] if math.isnan(off) else [f"{off:.1%}", f"{z:.1f}"]
        evaluations, milliseconds = float(row["decoder_evaluations"]), 1e3 * float(row["seconds"])
        rows.append([*cells, f"{evaluations:.0f}", f"{milliseconds:.2f}"])
    return [*head, "decodings", "ms"], rows

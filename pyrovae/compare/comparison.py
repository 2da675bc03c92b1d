"""The result of a comparison of estimators: a data set, a table, a figure."""

import math
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae import files

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
        table = self.dataset
        attrs = table.attrs
        lines = [
            f"{attrs['num_replicates']} replicates on {attrs['num_data']} data; log p(x) = "
            f"{attrs['log_marginal']:.4f} +- {attrs['log_marginal_error']:.1g} nats per datum "
            f"({attrs['device']})"
        ]
        swept = "num_particles" in table.dims
        for i in range(table.sizes["num_particles"] if swept else 1):
            part = table.isel(num_particles=i) if swept else table
            if swept:
                lines += ["", f"{int(part['num_particles'])} particles"]
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

    def plot(self) -> Any:
        """A :class:`matplotlib.figure.Figure`: bounds with error bars, and SNR against particles or
        as bars.
        """
        from pyrovae.compare.figure import draw_comparison

        return draw_comparison(self.dataset)

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
    names = [str(name) for name in part["estimator"].values]
    groups = [str(group) for group in part["group"].values]
    shown = [group for group in groups if ":" not in group]
    width = max(9, *map(len, names))
    header = f"{'estimator':<{width}}  {'draws':>5}  {'bound':>10}  {'error':>7}  {'bias':>8}"
    for group in shown:
        header += f"  {'SNR ' + group:>9}  {'=cost':>7}  {'off':>6}  {'z':>5}"
    lines = [header + f"  {'decodings':>9}  {'ms':>7}"]
    for name in names:
        row = part.sel(estimator=name)
        line = (
            f"{name:<{width}}  {float(row['draws']):>5.0f}  {float(row['bound']):>10.4f}  "
            f"{float(row['bound_error']):>7.1g}  {float(row['bias']):>8.4f}"
        )
        for group in shown:
            cell = row.sel(group=group)
            off, z = float(cell["gradient_bias"]), float(cell["gradient_bias_z"])
            line += f"  {float(cell['snr']):>9.3g}  {float(cell['snr_equal_cost']):>7.3g}"
            line += f"  {'-':>6}  {'':>5}" if math.isnan(off) else f"  {off:>6.1%}  {z:>5.1f}"
        lines.append(
            line
            + f"  {float(row['decoder_evaluations']):>9.0f}  {1e3 * float(row['seconds']):>7.2f}"
        )
    return lines

"""Evidence: a number for each datum, its error, and what to think of it."""

import json
import math
from os import PathLike
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

import pyrovae

if TYPE_CHECKING:
    import xarray

    from pyrovae.evidence.inspection import Inspection
    from pyrovae.evidence.methods.base import Estimate, Method

__all__ = ["Evidence"]

BAD_K = 0.7
_MUCH = 3.0  # variance of log weights, beyond which few chains do not show how far their mean may be off
_MEANING = {
    "log_marginal": ("log p(x), estimated", "nats"),
    "standard_error": ("Monte Carlo standard error of log_marginal", "nats"),
    "ess": ("effective sample size of the weights", "particles"),
    "pareto_k": (
        "Pareto shape of the largest weights; above 0.7 the estimate is not to be trusted",
        "1",
    ),
    "num_particles": ("weights that the estimate averages", "particles"),
    "debiased": ("log_marginal by the jackknife of order 1", "nats"),
    "debiased_twice": ("log_marginal by the jackknife of order 2", "nats"),
    "acceptance": ("share of proposals that HMC accepted", "1"),
    "log_weight_variance": ("variance of the log weights over chains", "nats squared"),
    "refinement_gain": ("rise of the ELBO by a guide fitted to the datum", "nats"),
    "unseen": ("what the tail of the weights may still hide", "nats"),
    "rounding_error": ("what bfloat16 in the networks added, on a datum's first particles", "nats"),
}


class Evidence:
    """log p(x) of held-out data, in nats per datum, with errors and a diagnosis.

    Made by :func:`pyrovae.log_marginal`. ``dataset`` is an :class:`xarray.Dataset` over the dimension ``"datum"``;
    its variables are attributes here:

    - ``log_marginal``: the estimate of log p(x). In expectation it lies on the side of the truth that ``bound`` names.
    - ``standard_error``: its Monte Carlo error.
    - ``ess``: effective sample size of the weights.
    - ``pareto_k``: shape of the weights' tail: below 0.5 good, above 0.7 not to be trusted. ``-inf`` where the
      largest weights are equal, ``inf`` where fewer than 25 weights allow no diagnosis or none is positive.
    - ``num_particles``: how many weights each datum got.
    - ``debiased``, ``debiased_twice``: the estimate by the jackknife of order 1 and 2; closer to the truth for
      moderate weights, but no bound.
    - ``rounding_error``: with networks in bfloat16, what the rounding did to the estimate by the first particles.
    - ``unseen``: nats by which the estimate would rise if the fitted tail of the weights were followed as far as
      ten thousand times as many particles would follow it.
    """

    def __init__(self, dataset: "xarray.Dataset"):
        self.dataset = dataset

    @classmethod
    def of(
        cls,
        estimate: "Estimate",
        method: "Method",
        inspection: "Inspection",
        *,
        data_scale: float = 1.0,
        bound: str | None = None,
    ) -> "Evidence":
        """From what a method found."""
        if not (math.isfinite(data_scale) and data_scale > 0):
            raise ValueError(f"data_scale must be finite and positive, found {data_scale}.")
        if inspection.discrete and data_scale != 1.0:
            raise ValueError(
                f"data_scale={data_scale} was given, but p(x) is discrete: a probability does not change with the "
                "units of x. Leave it out."
            )
        return cls.from_columns(
            estimate.columns,
            method=type(method).__name__,
            settings=method.settings(),
            bound=bound or method.bound,
            seed=inspection.seed,
            num_dims=inspection.num_dims,
            data_scale=data_scale,
            data=inspection.fingerprint,
            notes=estimate.notes,
        )

    @classmethod
    def from_columns(cls, columns: dict[str, Any], **attributes: Any) -> "Evidence":
        """From ``(B,)`` columns; ``log_marginal`` and ``standard_error`` must be among them."""
        import xarray

        variables = {}
        for name, column in columns.items():
            meaning, units = _MEANING.get(name, (name.replace("_", " "), ""))
            variables[name] = ("datum", np.asarray(column), {"long_name": meaning, "units": units})
        dataset = xarray.Dataset(
            variables, coords={"datum": np.arange(len(columns["log_marginal"]))}
        )
        known = {
            "bound": "lower",
            "seed": -1,
            "num_dims": 0,
            "data_scale": 1.0,
            "data": "",
            "method": "",
        }
        for name, value in {**known, "version": pyrovae.__version__, **attributes}.items():
            dataset.attrs[name] = json.dumps(value) if isinstance(value, dict) else value
        return cls(dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "dataset":
            raise AttributeError(name)
        if name in self.dataset:
            return self.dataset[name]
        raise AttributeError(f"This evidence has no '{name}'; it has {list(self.dataset)}.")

    def __len__(self) -> int:
        return self.dataset.sizes["datum"]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.dataset.attrs["method"]

    @property
    def settings(self) -> dict[str, Any]:
        """The method's settings."""
        return json.loads(self.dataset.attrs.get("settings", "{}"))

    @property
    def notes(self) -> dict[str, Any]:
        """What the method has to say of the run as a whole.

        ``summed``: discrete sites that were summed out, with how many values each has; ``drawn``: discrete sites that
        were not, and why; ``exact``: true where no site was left to draw, so that log p(x) is exact.
        """
        return json.loads(self.dataset.attrs.get("notes", "{}"))

    @property
    def bound(self) -> str:
        """``"lower"`` or ``"upper"``: the side of the truth on which the estimates lie in expectation."""
        return self.dataset.attrs["bound"]

    def mean(self) -> float:
        """Mean over data, in nats per datum."""
        return float(self.log_marginal.mean())

    def total(self) -> float:
        """Sum over data, in nats."""
        return float(self.log_marginal.sum())

    def monte_carlo_error(self) -> float:
        """Standard error of :meth:`mean` as an estimate for these data, from the particles being finitely many."""
        return float(np.sqrt((self.standard_error**2).sum()) / len(self))

    def test_set_error(self) -> float:
        """Standard error of :meth:`mean` as an estimate for all such data, from these being finitely many.

        The spread of log p(x) over data without the Monte Carlo error's part in it; infinite for one datum, or where
        some datum's estimate is.
        """
        if len(self) == 1 or not math.isfinite(self.mean()):
            return math.inf
        variance = float(self.log_marginal.var(ddof=1)) / len(self)
        return math.sqrt(max(0.0, variance - self.monte_carlo_error() ** 2))

    def interval(self, prob: float = 0.95, error: str = "monte_carlo") -> tuple[float, float]:
        r"""An interval for the mean of log p(x), in nats per datum.

        It runs from ``mean() - c`` to the mean of ``debiased`` plus c, with c the normal quantile times the standard
        error, so it holds the reported mean and allows for its bias: with moderate weights it covers the truth at
        least as often as it says. For data with k above 0.7 the upper end adds ``unseen``; where half of the data or
        more have k of 1 or above, whose weights have no finite mean by their own account, there is no upper end:
        infinity. No draws from a guide can say what they never met: AIS or a better guide can.

        Args:
            prob: How often the interval is to hold the truth, between 0 and 1.
            error: ``"monte_carlo"`` for the mean over these very data; ``"test_set"`` for the mean over all such
                data, with log p(x) taken as known; ``"both"``.

        Raises:
            ValueError: If prob is outside (0, 1) or error is another word.
        """
        if not 0 < prob < 1:
            raise ValueError(f"prob must lie between 0 and 1, found {prob}.")
        if not math.isfinite(self.mean()):
            return -math.inf, math.inf
        errors = {"monte_carlo": self.monte_carlo_error(), "test_set": self.test_set_error()}
        errors["both"] = math.hypot(*errors.values())
        if error not in errors:
            raise ValueError(f"error must be one of {sorted(errors)}, found {error!r}.")
        reach = NormalDist().inv_cdf(0.5 + prob / 2) * errors[error]
        if error == "test_set":
            return self.mean() - reach, self.mean() + reach
        below, above = self._bias()
        return self.mean() - below - reach, self.mean() + above + reach

    def _bias(self) -> tuple[float, float]:
        """How far below and above the reported mean the truth may lie for reasons other than chance."""
        if "debiased" not in self.dataset:
            return 0.0, 0.0
        shift = (self.debiased - self.log_marginal).values
        shift = np.where(np.isfinite(shift), shift, 0.0)
        finite = np.isfinite(self.unseen.values)
        missing = np.where((self.pareto_k > BAD_K).values & finite, self.unseen.values, 0.0)
        if (finite & (self.pareto_k >= 1).values).mean() >= 0.5:
            missing = np.full(len(self), math.inf)
        if self.bound == "upper":
            return float(np.mean(np.maximum(-shift, 0) + missing)), 0.0
        return 0.0, float(max(0.0, np.mean(shift)) + np.mean(missing))

    @property
    def bits_per_dim(self) -> float:
        r"""Bits per dimension of x in its own units (lower is better).

        .. math:: -\frac{\overline{\log p(x)} + D \log s}{D \log 2}

        with D the observed elements of a datum and s the ``data_scale`` by which the data were multiplied.
        """
        num_dims = float(self.dataset.attrs["num_dims"])
        if num_dims <= 0:
            raise ValueError(
                "The number of dimensions of x is not known, so there are no bits per dimension."
            )
        log_scale = math.log(float(self.dataset.attrs["data_scale"]))
        return -(self.mean() / num_dims + log_scale) / math.log(2)

    @property
    def share_flagged(self) -> float:
        """Share of data with k above 0.7."""
        return float((self.pareto_k > BAD_K).mean())

    def missed_target(self) -> np.ndarray:
        """Numbers of the data whose standard error stayed above the method's target."""
        target = self.settings.get("target_standard_error")
        if target is None:
            raise ValueError("The method had no target_standard_error.")
        return np.flatnonzero(self.standard_error.values > target)

    def __repr__(self) -> str:
        side = {"lower": "below", "upper": "above"}[self.bound]
        unit = "datum" if len(self) == 1 else "data"
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        test = "" if len(self) == 1 else f" ± {self.test_set_error():.2g} (test set)"
        notes = self.notes
        exact = bool(notes.get("exact"))
        what = "log p(x|y)" if self.dataset.attrs.get("given") else "log p(x)"
        chance = "" if exact else f" ± {self.monte_carlo_error():.2g} (Monte Carlo)"
        lines = [
            f"Evidence of {len(self)} {unit} by {self.method}({settings})",
            f"  {what:<10} {self.mean():.6g}{chance}{test} nats per datum",
            "             exact, but for rounding"
            if exact
            else f"             on average {side} the truth",
        ]
        if self.dataset.attrs["num_dims"]:
            lines.append(f"             {self.bits_per_dim:.4g} bits per dimension")
        infinite = int(np.isinf(self.log_marginal.values).sum())
        if infinite:
            lines.append(
                f"  infinite   for {infinite} of {len(self)}: no particle has any weight there"
            )
        for name, count in notes.get("summed", {}).items():
            lines.append(f"  summed     {name} over its {count} values")
        for name, why in notes.get("drawn", {}).items():
            lines.append(f"  drawn      {name}: {why}")
        if "ess" in self.dataset and not exact:
            ess = self.ess.values
            lines.append(f"  ESS        smallest {ess.min():.3g}, median {np.median(ess):.4g}")
        if "pareto_k" in self.dataset and not exact:
            lines.append(f"  Pareto k   {self._advice()}")
        if "log_weight_variance" in self.dataset:
            lines.append(f"  chains     {self._advice_on_chains()}")
        if "rounding_error" in self.dataset:
            error = self.rounding_error.values
            lines.append(
                f"  bfloat16   adds {error.mean():+.2g} nats on average, at most {np.abs(error).max():.2g} either way"
            )
        if "target_standard_error" in self.settings:
            missed = len(self.missed_target())
            lines.append(
                f"  target     {missed} of {len(self)} {unit} above it"
                if missed
                else "  target     met"
            )
        return "\n".join(lines)

    def _advice(self) -> str:
        share = self.share_flagged
        if (self.num_particles < 25).all():
            return "no diagnosis: it takes 25 particles or more"
        if share == 0:
            return f"all below {BAD_K}"
        return (
            f"{share:.1%} above {BAD_K}: there log p(x) may be underestimated by more than the error says; "
            "take more particles, AIS, or a better guide"
        )

    def _advice_on_chains(self) -> str:
        variance = float(self.log_weight_variance.median())
        text = f"accepted {float(self.acceptance.mean()):.0%}"
        if math.isnan(variance):
            return f"{text}; a single chain shows no variance"
        text += f"; log weights vary by {variance:.2g} nats squared"
        if variance <= _MUCH:
            return f"{text} (median)"
        return (
            f"{text} (median), which is much: take more temperatures, or start from a better place"
        )

    def to_datatree(self) -> "xarray.DataTree":
        """ArviZ's schema: ``log_likelihood`` with one chain and draw, and a group ``evidence`` with everything."""
        import arviz_base

        tree = arviz_base.from_dict(
            {"log_likelihood": {"x": self.log_marginal.values[None, None]}},
            dims={"x": ["datum"]},
            coords={"datum": self.dataset["datum"].values},
        )
        import xarray

        tree["evidence"] = xarray.DataTree(self.dataset)
        tree.attrs.update(creation_library="pyrovae", creation_library_version=pyrovae.__version__)
        return tree

    def save(self, path: "str | PathLike[str]") -> None:
        """Write :meth:`to_datatree` to a netCDF file."""
        self.to_datatree().to_netcdf(path, engine="h5netcdf")

    @classmethod
    def load(cls, path: "str | PathLike[str]") -> "Evidence":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds no evidence.
        """
        import xarray

        try:
            with xarray.open_datatree(path, engine="h5netcdf") as tree:
                if "evidence" not in tree.children:
                    raise ValueError(
                        f"{path} holds the groups {list(tree.children)}, expected 'evidence'."
                    )
                return cls(tree["evidence"].to_dataset().load())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ValueError(f"{path} is not a netCDF file that can be read ({error}).") from error

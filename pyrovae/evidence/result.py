"""Evidence: a number for each datum, its error, and what to think of it."""

import json
import math
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae import plots
from pyrovae.declare import html_table
from pyrovae.evidence import files
from pyrovae.evidence.columns import WithDataset, dataset_of
from pyrovae.evidence.combine import combine
from pyrovae.evidence.intervals import quantile, reach, unknown
from pyrovae.evidence.summary import summarize
from pyrovae.weights import BAD_K

if TYPE_CHECKING:
    import xarray

    from pyrovae.evidence.inspection import Inspection
    from pyrovae.evidence.methods.base import Estimate, Method

__all__ = ["Evidence"]


class Evidence(WithDataset):
    """log p(x) of held-out data, in nats per datum, with errors and a diagnosis.

    Made by :func:`pyrovae.log_marginal`. ``dataset`` is an :class:`xarray.Dataset` over the
    dimension ``"datum"``; its variables are attributes here:

    - ``log_marginal``: the estimate of log p(x). In expectation it lies on the side of the truth
      that ``bound`` names.
    - ``standard_error``: its Monte Carlo error.
    - ``ess``: effective sample size of the weights.
    - ``pareto_k``: shape of the weights' tail: below 0.5 good, above 0.7 not to be trusted.
      ``-inf`` where the largest weights are equal, ``inf`` where fewer than 25 weights allow no
      diagnosis or none is positive.
    - ``num_particles``: how many weights each datum got.
    - ``debiased``, ``debiased_twice``: the estimate by the jackknife of order 1 and 2; closer to
      the truth for moderate weights, but no bound.
    - ``rounding_error``: with networks in bfloat16, what the rounding did to the estimate by the
      first particles.
    - ``unseen``: nats by which the estimate would rise if the tail of the weights, with k two
      standard errors above the fitted value, were followed as far as a hundred times as many
      particles would follow it.
    - ``degrees_of_freedom`` of the standard error; ``log_weight_variance``, in nats squared;
      ``batch_log_mean``, ``(B, 8)``, the log mean of every eighth weight: what :meth:`interval`
      needs besides.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=0.3)
        >>> x = oracle.sample(50)
        >>> evidence = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=500)
        >>> low, high = evidence.interval(0.999)
        >>> bool(low < oracle.log_prob(x).mean() < high)
        True
    """

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
                f"data_scale={data_scale} was given, but p(x) is discrete: a probability does not "
                "change with the units of x. Leave it out."
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
            measure="probability" if inspection.discrete else "density",
            notes=estimate.notes,
        )

    @classmethod
    def from_columns(cls, columns: dict[str, Any], **attributes: Any) -> "Evidence":
        """From ``(B,)`` columns; ``log_marginal`` and ``standard_error`` must be among them."""
        return cls(dataset_of(columns, attributes))

    @classmethod
    def combine(cls, *evidence: "Evidence") -> "Evidence":
        r"""Join runs of one method on one model and the same data, with different seeds, to one
        result.

        .. math:: \log \hat p(x) = \log \sum_r \frac{K_r}{K} \hat p_r(x), \qquad K = \sum_r K_r

        which is what one run with all the K weights would have given. That all runs are of one
        model is for the caller to see to: results do not hold the model.

        Raises:
            TypeError: If an argument is no evidence.
            ValueError: If data, method or settings differ (the number of particles may), if two
                seeds are equal, or if log p(x) is exact already.

        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=0.5)
        >>> x = oracle.sample(3)
        >>> runs = [
        ...     pv.log_marginal(oracle.model, oracle.guide, x, num_particles=50, seed=seed)
        ...     for seed in range(4)
        ... ]
        >>> int(pv.Evidence.combine(*runs).num_particles[0])
        200
        """
        for one in evidence:
            if not isinstance(one, Evidence):
                raise TypeError(
                    f"combine takes results of log_marginal, found {type(one).__name__}."
                )
        columns, attributes = combine(evidence)
        return cls.from_columns(columns, **attributes)

    def __len__(self) -> int:
        return self.dataset.sizes["datum"]

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The variables of ``dataset`` as arrays."""
        return {str(name): column.values for name, column in self.dataset.items()}

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

        ``summed``: discrete sites that were summed out, with how many values each has; ``drawn``:
        discrete sites that were not, and why; ``exact``: true where no site was left to draw, so
        that log p(x) is exact.
        """
        return json.loads(self.dataset.attrs.get("notes", "{}"))

    @property
    def bound(self) -> str:
        """``"lower"`` or ``"upper"``: the side of the truth on which the estimates lie in
        expectation.
        """
        return self.dataset.attrs["bound"]

    @property
    def measure(self) -> str:
        """``"probability"`` where x is discrete, else ``"density"``; empty where it is not
        known, as in files of earlier versions.
        """
        return self.dataset.attrs.get("measure", "")

    def mean(self) -> float:
        """Mean over data, in nats per datum."""
        return float(self.log_marginal.mean())

    def total(self) -> float:
        """Sum over data, in nats."""
        return float(self.log_marginal.sum())

    def monte_carlo_error(self) -> float:
        """Standard error of :meth:`mean` as an estimate for these data, from the particles being
        finitely many.
        """
        return float(np.sqrt((self.standard_error**2).sum()) / len(self))

    def test_set_error(self) -> float:
        """Standard error of :meth:`mean` as an estimate for all such data, from these being
        finitely many.

        The spread of log p(x) over data without the Monte Carlo error's part in it; infinite for
        one datum, or where some datum's estimate is.
        """
        if len(self) == 1 or not math.isfinite(self.mean()):
            return math.inf
        variance = float(self.log_marginal.var(ddof=1)) / len(self)
        return math.sqrt(max(0.0, variance - self.monte_carlo_error() ** 2))

    def interval(self, prob: float = 0.95, error: str = "monte_carlo") -> tuple[float, float]:
        r"""An interval for the mean of log p(x), in nats per datum.

        The estimates lie below the truth on average, so the two ends differ. The lower end is the
        mean less Student's t quantile times the standard error. The upper end adds to the mean the
        same error, what further doublings of the particles would add, and what the tail of the
        weights may hide. There is no upper end (``inf``) where the weights do not allow one;
        :attr:`unknown` then says why. For a result whose ``bound`` is ``"upper"`` the ends change
        places. No draws from a guide can tell what they never met, such as a mode of the posterior
        that the guide leaves out.

        Args:
            prob: How often the interval is to hold the truth, between 0 and 1.
            error: ``"monte_carlo"`` for the mean over these very data; ``"test_set"`` for the mean
                over all such data, with log p(x) of these taken as known; ``"both"``.

        Raises:
            ValueError: If prob is outside (0, 1) or error is another word.
        """
        if not 0 < prob < 1:
            raise ValueError(f"prob must lie between 0 and 1, found {prob}.")
        if error not in ("monte_carlo", "test_set", "both"):
            raise ValueError(f"error must be 'monte_carlo', 'test_set' or 'both', found {error!r}.")
        mean = self.mean()
        if not math.isfinite(mean):
            return -math.inf, math.inf
        test = 0.0
        if error != "monte_carlo":
            if len(self) == 1:
                return -math.inf, math.inf
            test = quantile(prob, len(self) - 1) * self.test_set_error()
        if error == "test_set":
            return mean - test, mean + test
        found = reach(self.columns, prob)
        near, far = math.hypot(found.chance, test), found.bias + math.hypot(found.beyond, test)
        return (mean - near, mean + far) if self.bound == "lower" else (mean - far, mean + near)

    @property
    def unknown(self) -> str | None:
        """Why the interval of the Monte Carlo error has one end only; None where it has both."""
        return unknown(self.columns)

    @property
    def bits_per_dim(self) -> float:
        r"""Bits per dimension of x in its own units (lower is better).

        .. math:: -\frac{\overline{\log p(x)} + D \log s}{D \log 2}

        with D the observed elements of a datum and s the ``data_scale`` by which the data were
        multiplied.
        """
        if (num_dims := float(self.dataset.attrs["num_dims"])) <= 0:
            raise ValueError(
                "There are no bits per dimension: x has numbers and classes together, grey levels "
                "under a density, or an unknown number of dimensions."
            )
        log_scale = math.log(float(self.dataset.attrs["data_scale"]))
        return -(self.mean() / num_dims + log_scale) / math.log(2)

    @property
    def share_flagged(self) -> float:
        """Share of data with k above 0.7; NaN where the method has no k."""
        return float((self.pareto_k > BAD_K).mean()) if "pareto_k" in self.dataset else math.nan

    def missed_target(self) -> np.ndarray:
        """Numbers of the data whose standard error stayed above the method's target."""
        target = self.settings.get("target_standard_error")
        if target is None:
            raise ValueError("The method had no target_standard_error.")
        return np.flatnonzero(self.standard_error.values > target)

    def plot(self, axes: Any = None) -> Any:
        """log p(x) of each datum, in order: :func:`pyrovae.plots.evidence`."""
        return plots.evidence(self, axes)

    def __repr__(self) -> str:
        return summarize(self)

    def _repr_html_(self) -> str:
        title, *lines = summarize(self).splitlines()
        return html_table(title, [(line[:13].strip(), line[13:]) for line in lines])

    def to_datatree(self) -> "xarray.DataTree":
        """ArviZ's schema: ``log_likelihood`` with one chain and draw, and a group ``evidence`` with
        everything.
        """
        return files.to_datatree(self.dataset)

    def save(self, path: "str | PathLike[str]") -> None:
        """Write :meth:`to_datatree` to a netCDF file, whole or not at all, with a checksum."""
        files.write(self.dataset, path)

    @classmethod
    def load(cls, path: "str | PathLike[str]") -> "Evidence":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, or holds no evidence.
        """
        return cls(files.read(path))

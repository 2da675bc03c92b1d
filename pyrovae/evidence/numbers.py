"""The numbers of an :class:`~pyrovae.Evidence`: means, errors and intervals."""

import json
import math
from typing import Any

import numpy as np

from pyrovae.evidence.columns import WithDataset
from pyrovae.evidence.intervals import quantile, reach, unknown
from pyrovae.weights import BAD_K

__all__ = ["Numbers"]


class Numbers(WithDataset):
    """What follows from the columns and attributes of an :class:`~pyrovae.Evidence`."""

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

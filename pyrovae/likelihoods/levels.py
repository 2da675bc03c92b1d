"""What likelihoods of grey levels share."""

from pyrovae.declare import is_count
from pyrovae.distributions.levels import GreyLevels
from pyrovae.likelihoods.base import Likelihood

__all__ = ["Levels"]


class Levels(Likelihood):
    """Base of the likelihoods of L grey levels, level k stored as the float k / (L - 1).

    A subclass calls :meth:`use_levels`.
    """

    discrete = True
    advice = (
        "Store level k as k / (num_levels - 1), set num_levels to what the data have (17 for "
        "scikit-learn's digits), or use likelihoods.ContinuousBernoulli for reals in [0, 1]"
    )
    num_levels: int

    def use_levels(self, num_levels: int) -> None:
        """Take the number of levels.

        Raises:
            ValueError: If it is no integer of 2 or more.
        """
        if not is_count(num_levels, 2):
            raise ValueError(
                f"{type(self).__name__} needs an integer num_levels >= 2, found {num_levels!r}: "
                "256 for 8-bit images."
            )
        self.num_levels = num_levels
        self.support = GreyLevels(num_levels)
        self.domain = (
            f"(num_levels={num_levels}) is a distribution over the {num_levels} grey levels "
            f"0, 1/{num_levels - 1}, ..., 1"
        )

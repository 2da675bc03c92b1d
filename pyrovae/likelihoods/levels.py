"""What likelihoods of grey levels share."""

from torch import Tensor

from pyrovae.distributions.levels import off_level
from pyrovae.likelihoods.base import Likelihood, refuse

__all__ = ["Levels"]


class Levels(Likelihood):
    """Base of the likelihoods of L grey levels, level k stored as the float k / (L - 1).

    A subclass calls :meth:`use_levels`.
    """

    discrete = True
    num_levels: int

    def use_levels(self, num_levels: int) -> None:
        """Take the number of levels.

        Raises:
            ValueError: If it is no integer of 2 or more.
        """
        if isinstance(num_levels, bool) or not isinstance(num_levels, int) or num_levels < 2:
            raise ValueError(
                f"{type(self).__name__} needs an integer num_levels >= 2, found {num_levels!r}: 256 for 8-bit images."
            )
        self.num_levels = num_levels

    def check(self, x: Tensor) -> None:
        top = self.num_levels - 1
        refuse(x, off_level(x, self.num_levels),
               f"{type(self).__name__}(num_levels={self.num_levels}) is a distribution over the {self.num_levels} "
               f"grey levels 0, 1/{top}, ..., 1",
               "Store level k as k / (num_levels - 1), set num_levels to what the data have (17 for scikit-learn's "
               "digits), or use likelihoods.ContinuousBernoulli for reals in [0, 1]")  # fmt: skip

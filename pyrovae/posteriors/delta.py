"""A point in place of a distribution."""

import pyro.distributions as dist
from torch import Tensor

from pyrovae.posteriors.base import Posterior

__all__ = ["Delta"]


class Delta(Posterior):
    r"""A point mass at the encoder's output, :math:`q(z \mid x) = \delta(z - \mu(x))`.

    With ``KLScale(0)`` and a Gaussian likelihood of fixed scale this is the plain autoencoder: the loss is the
    squared error up to a factor and a constant. Its density is taken as 1 at the point, so neither a bound nor
    evidence follows from it: nothing keeps the codes where the prior puts its mass, and samples fail.

    References:
        Reducing the Dimensionality of Data with Neural Networks (Hinton and Salakhutdinov, 2006), for the
        autoencoder.
    """

    has_density = False

    def output_size(self) -> int:
        return self.latent_dim

    def distribution(self, outputs: Tensor):
        return dist.Delta(outputs, event_dim=1)

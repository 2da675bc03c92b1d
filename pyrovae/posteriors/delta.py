"""A point in place of a distribution."""

import pyro.distributions as dist
from torch import Tensor

from pyrovae.posteriors.base import Posterior

__all__ = ["Delta"]


class Delta(Posterior):
    r"""A point mass at the encoder's output, :math:`q(z \mid x) = \delta(z - \mu(x))`.

    With ``KLScale(0)`` and a Gaussian likelihood of fixed scale this is the plain autoencoder: the
    loss is the squared error times a factor, plus a constant. Since its density counts as 1 at the
    point, neither a bound nor evidence follows from it. Nothing keeps the codes where the prior has
    its mass, so samples of the model do not resemble the data.

    References:
        Reducing the Dimensionality of Data with Neural Networks (Hinton and Salakhutdinov, 2006),
        for the autoencoder.

    Example:
        >>> import torch
        >>> from pyrovae import nets
        >>> q = Delta().bind(latent_dim=2, data_shape=(6,), encoder=nets.MLP(8))
        >>> q(torch.zeros(5, 6)).sample().shape
        torch.Size([5, 2])
    """

    has_density = False

    def output_size(self) -> int:
        return self.latent_dim

    def distribution(self, outputs: Tensor):
        return dist.Delta(outputs, event_dim=1)

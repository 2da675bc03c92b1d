"""The VAE: a prior, a likelihood and a posterior in, two Pyro programs out."""

from collections.abc import Sequence

from torch import nn

from pyrovae.likelihoods import Likelihood
from pyrovae.models.single import SingleLatentModel
from pyrovae.nets import Recipe
from pyrovae.posteriors import Posterior
from pyrovae.priors import Prior

__all__ = ["VAE"]


class VAE(SingleLatentModel):
    r"""A variational autoencoder, declared by its prior, likelihood and posterior.

    .. math:: p(x, z) = p(z)\, p(x \mid z), \qquad q(z \mid x)

    ``vae.model`` and ``vae.guide`` are plain Pyro programs of x, shape ``(B, *data_shape)``, with a
    latent site ``"z"`` and an observed site ``"x"`` in the plate ``"data"``. Whatever takes a Pyro
    model and guide takes them: stock :class:`pyro.infer.SVI`, :func:`pyrovae.fit`,
    :func:`pyrovae.log_marginal`.

    The VAE copies the given prior, likelihood and posterior, and gives the copies their sizes. A
    network that is given as a module is used itself, not copied. If it has float64 parameters, the
    whole model computes in float64.

    Args:
        data_shape: Shape of one datum, such as ``(28, 28)``.
        latent_dim: Dimension D of z.
        prior: p(z); default ``priors.StandardNormal()``.
        likelihood: p(x | z); default ``likelihoods.Bernoulli()``.
        posterior: q(z | x); default ``posteriors.DiagonalNormal()``.
        encoder: A recipe, or a module of the right size; default ``nets.MLP(300, 300)``.
        decoder: The same.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If sizes are not positive, a network's sizes do not fit, or prior and posterior
            live on different spaces.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014),
        `arXiv:1312.6114 <https://arxiv.org/abs/1312.6114>`_.

    Example:
        >>> import torch
        >>> from pyrovae import likelihoods, nets, priors
        >>> vae = VAE(
        ...     (4, 3), latent_dim=2, prior=priors.Vamp(5), likelihood=likelihoods.Gaussian(0.5),
        ...     encoder=nets.MLP(16), decoder=nets.MLP(16),
        ... )
        >>> x = vae.sample(10)
        >>> x.shape, vae.encode(x).sample().shape, vae.reconstruct(x).shape
        (torch.Size([10, 4, 3]), torch.Size([10, 2]), torch.Size([10, 4, 3]))
    """

    def __init__(
        self,
        data_shape: Sequence[int] | int,
        latent_dim: int,
        *,
        prior: Prior | None = None,
        likelihood: Likelihood | None = None,
        posterior: Posterior | None = None,
        encoder: Recipe | nn.Module | None = None,
        decoder: Recipe | nn.Module | None = None,
    ):
        super().__init__(data_shape, latent_dim, prior, likelihood, posterior, encoder, decoder)

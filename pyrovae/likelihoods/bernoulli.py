"""Black and white pixels."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.bernoulli import JointBernoulli
from pyrovae.likelihoods.base import Likelihood

__all__ = ["Bernoulli"]


class Bernoulli(Likelihood):
    r"""Independent Bernoulli elements, for black and white data in {0, 1}.

    .. math:: \log p(x \mid z) = \sum_i x_i l_i - \log(1 + e^{l_i})

    The decoder gives the logits l. Grey values are refused, since the formula is no likelihood for
    them.

    Raises:
        ValueError: If x holds anything but 0 and 1.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix C.1,
        `arXiv:1312.6114 <https://arxiv.org/abs/1312.6114>`_.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((28, 28), latent_dim=2, likelihood=pv.likelihoods.Bernoulli())
        >>> vae.sample(3).shape
        torch.Size([3, 28, 28])
    """

    discrete = True
    support = constraints.boolean
    domain = "is a distribution over 0 and 1"
    advice = (
        "Binarise the data (data.binarize, or --binarize on the command line), or use "
        "likelihoods.ContinuousBernoulli or likelihoods.DiscretizedLogistic, which are defined for "
        "grey values"
    )

    def check(self, x: Tensor) -> None:
        outside = x[(x < 0) | (x > 1)]  # of no grey level
        if outside.numel():
            raise ValueError(
                f"Bernoulli {self.domain}, found {outside[0].item():.6g} among the data. Use "
                "likelihoods.Gaussian or StudentT for real numbers, and likelihoods.Poisson or "
                "NegativeBinomial for counts. Divide the levels of images by the largest one."
            )
        super().check(x)

    def distribution(self, outputs: Tensor):
        elements = dist.Bernoulli(logits=outputs.squeeze(self.output_dim), validate_args=False)
        return JointBernoulli(elements, len(self.data_shape), validate_args=False)

    def initial_bias(self, mean: Tensor) -> Tensor:
        return torch.logit(mean.clamp(1e-3, 1 - 1e-3)).unsqueeze(self.output_dim)

"""Black and white pixels."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions.bernoulli import JointBernoulli
from pyrovae.likelihoods.base import Likelihood

__all__ = ["Bernoulli"]


class Bernoulli(Likelihood):
    r"""Independent Bernoulli elements, x in {0, 1}; the decoder gives logits :math:`l`.

    .. math:: \log p(x \mid z) = \sum_i x_i l_i - \log(1 + e^{l_i})

    Grey values are outside its support and are refused: the result would not be a likelihood.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix C.1.

    Raises:
        ValueError: If x holds anything but 0 and 1.
    """

    discrete = True
    support = constraints.boolean
    domain = "is a distribution over 0 and 1"
    advice = (
        "Binarise the data (data.binarize, or --binarize on the command line), or use likelihoods.ContinuousBernoulli "
        "or likelihoods.DiscretizedLogistic, which are defined for grey values"
    )

    def distribution(self, outputs: Tensor):
        elements = dist.Bernoulli(logits=outputs.squeeze(self.output_dim), validate_args=False)
        return JointBernoulli(elements, len(self.data_shape), validate_args=False)

    def initial_bias(self, mean: Tensor) -> Tensor:
        return torch.logit(mean.clamp(1e-3, 1 - 1e-3)).unsqueeze(self.output_dim)

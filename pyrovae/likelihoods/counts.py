"""What likelihoods of counts share: a mean from the decoder, and an exposure."""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyrovae.distributions.given_total import GivenTotal
from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.positive import Positive

__all__ = ["Counts", "OverdispersedCounts"]


class Counts(Likelihood):
    r"""Base of :class:`Poisson`, :class:`NegativeBinomial` and
    :class:`ZeroInflatedNegativeBinomial`.

    Without exposure the means are :math:`\mu = \mathrm{softplus}(o(z))` or :math:`e^{o(z)}`, by
    ``link``, and p(x | z) is a distribution over counts with nothing else given.

    With ``exposure="total"`` they are :math:`\mu = n\, \mathrm{softmax}(o(z))`, where n is the
    datum's own total (the library size), max(1, sum of x): p(x | z, n), which conditions on n as on
    any covariate. All its evidence is log p(x | n): compare it with that of models given the same
    n, not with models that had to explain the totals too. Draws and means, which have no x to read
    n from, take ``typical_total``.

    A subclass calls :meth:`use_exposure` and writes :meth:`counts`.
    """

    discrete = True
    support = constraints.nonnegative_integer
    domain = "is a distribution over counts 0, 1, 2, ..."
    advice = (
        "Give the counts as they were published, neither normalised nor logged, or use "
        "likelihoods.Gaussian for real values"
    )
    typical_total: Tensor

    def use_exposure(self, exposure: str | None, typical_total: float, link: str) -> None:
        """Take and check what the three have in common."""
        name = type(self).__name__
        if exposure not in (None, "total"):
            raise ValueError(
                f"{name} exposure must be None or 'total', found {exposure!r}. For an exposure of "
                "your own, call distribution(outputs, exposure) in a model of your own."
            )
        if not (math.isfinite(typical_total) and typical_total > 0):
            raise ValueError(
                f"{name} typical_total must be finite and positive, found {typical_total}."
            )
        if link not in ("softplus", "exp"):
            raise ValueError(f"{name} link must be 'softplus' or 'exp', found {link!r}.")
        self.exposure, self.link = exposure, link
        self.register_buffer("typical_total", torch.tensor(float(typical_total)), persistent=False)

    def distribution(self, outputs: Tensor, exposure: Tensor | None = None):
        """The distribution; ``exposure``, which broadcasts over x, multiplies the means and
        overrides totals.
        """
        raw, *rest = outputs.unbind(self.output_dim)
        if self.exposure == "total":
            dims = tuple(range(-len(self.data_shape), 0))
            log_mean = raw - raw.logsumexp(dims, keepdim=True)
            if exposure is None:
                return GivenTotal(
                    lambda log_n: self.counts(log_mean + log_n, *rest),
                    len(dims),
                    self.typical_total,
                    raw,
                )
        elif self.link == "exp":
            log_mean = raw
        else:
            log_mean = log_softplus(raw)
        return self.counts(log_mean if exposure is None else log_mean + exposure.log(), *rest)

    @abstractmethod
    def counts(self, log_mean: Tensor, *rest: Tensor) -> Any:
        """Elementwise distribution with these means, and the decoder's further outputs."""

    def initial_bias(self, mean: Tensor) -> Tensor:
        mean = mean.clamp(min=1e-4)
        log_link = self.link == "exp" or self.exposure == "total"
        return self._first_outputs(
            mean.log() if log_link else mean + torch.log(-torch.expm1(-mean))  # inverse softplus
        )


class OverdispersedCounts(Counts):
    """Base of the negative binomials: counts with a dispersion beside the mean."""

    gates = 0
    """Decoder outputs between the mean and the dispersion."""

    def __init__(
        self,
        dispersion: float | str = "per-element",
        initial_dispersion: float = 0.1,
        exposure: str | None = None,
        typical_total: float = 1000.0,
        link: str = "softplus",
    ):
        super().__init__()
        self.use_exposure(exposure, typical_total, link)
        name = f"{type(self).__name__} dispersion"
        self.dispersion_of = Positive(name, dispersion, initial_dispersion, floor=1e-8, link="exp")
        self.num_outputs = 1 + self.gates + self.dispersion_of.num_outputs


def log_softplus(raw: Tensor) -> Tensor:
    """log(softplus(raw)), which is raw itself far below zero, where softplus underflows."""
    low = raw < -60
    return torch.where(low, raw, softplus(raw.masked_fill(low, 0.0)).log())

r"""Closed-form KL from a correlated normal to one with independent coordinates, which torch lacks.

.. math:: \mathrm{KL} = \frac12 \sum_d \left[\frac{\Sigma_{dd} + (\mu_d - m_d)^2}{s_d^2} - 1
          + 2 \log s_d\right] - \frac12 \log\det\Sigma
"""

import math

from torch import Tensor
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    register_kl,
)

__all__: list[str] = []


@register_kl(MultivariateNormal, Independent)
@register_kl(LowRankMultivariateNormal, Independent)
def _kl_correlated_independent(p, q) -> Tensor:
    base = q.base_dist
    if not isinstance(base, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    # The entropy of p holds its log-determinant: log det / 2 + D (1 + log 2 pi) / 2.
    cross = (p.variance + (p.loc - base.loc).square()) / base.scale.square() + 2 * base.scale.log()
    return 0.5 * (cross + math.log(2 * math.pi)).sum(-1) - p.entropy()

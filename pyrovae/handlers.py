"""Effect handlers that change the weight of latent sites."""

import math
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae.declare import Declared

__all__ = ["KLScale"]


def _same(left: tuple, right: tuple) -> bool:
    """Whether two tuples of factors are equal. Different tensor objects are compared by value."""
    if len(left) != len(right):
        return False
    return all(
        a is b or bool(torch.as_tensor(a == b).all()) for a, b in zip(left, right, strict=True)
    )


class KLScale(Declared, Messenger):
    r"""Multiply the log-density of every latent site by ``beta``. Observed sites do not change.

    With the handler around model *and* guide, an estimator that is linear in the log-densities
    estimates the objective of the beta-VAE,

    .. math:: \mathbb E_{q(z \mid x)}[\log p(x \mid z)] - \beta\, \mathrm{KL}(q(z \mid x) \,\|\,
              p(z)),

    This holds for the estimators of pyrovae and for those of Pyro::

        svi = pyro.infer.SVI(KLScale(0.5)(vae.model), KLScale(0.5)(vae.guide), optim, Trace_ELBO())

    The factors of nested handlers multiply. ``beta = 0`` is allowed, which
    :func:`pyro.poutine.scale` refuses. Importance-weighted bounds and held-out likelihoods raise an
    error, because they have no meaning under ``beta != 1``.

    Args:
        beta: Factor, finite and not negative: a number, or a scalar tensor. It may change between
            calls, through the attribute of the same name.

    Raises:
        ValueError: If beta is negative or not finite; on use, if only the model is scaled, or if a
            site was observed by a handler outside this one.

    References:
        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework
        (Higgins et al., 2017), equation 4.

    Example:
        >>> import pyrovae as pv
        >>> from pyro import poutine
        >>> oracle = pv.testing.LinearGaussian()
        >>> trace = poutine.trace(KLScale(0.5)(oracle.model)).get_trace(oracle.sample(4))
        >>> trace.nodes["z"]["scale"], trace.nodes["x"]["scale"]  # latent, observed
        (0.5, 1.0)
    """

    def __init__(self, beta: float | Tensor):
        super().__init__()
        if isinstance(beta, Tensor):
            if beta.numel() != 1:
                raise ValueError(
                    "KLScale needs one beta for all data, found a tensor of shape "
                    f"{tuple(beta.shape)}."
                )
        elif not (math.isfinite(beta) and beta >= 0):
            raise ValueError(f"KLScale needs a finite beta >= 0, found {beta}.")
        self.beta = beta

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        record = (*msg.get("kl_scale", ()), self.beta)
        msg["kl_scale"] = record
        msg["infer"] = {**(msg["infer"] or {}), "kl_scale": record}
        msg["scale"] = msg["scale"] * self.beta

    def _pyro_post_sample(self, msg: Any) -> None:
        if "kl_scale" not in msg:
            return
        if msg["is_observed"]:
            raise ValueError(
                f"KLScale met site '{msg['name']}' before a handler observed it, and scaled it as "
                "a latent one. Put KLScale outermost: KLScale(beta)(poutine.condition(model, "
                "data))."
            )
        # A replayed site carries the guide's `infer`: what the guide recorded there must match the
        # model.
        if not _same(msg["infer"].get("kl_scale", ()), msg["kl_scale"]):
            raise ValueError(
                f"Site '{msg['name']}' is scaled by {msg['kl_scale']} in the model but by "
                f"{msg['infer'].get('kl_scale', ())} in the guide. "
                "Wrap both with the same factor: KLScale(beta)(model) and KLScale(beta)(guide)."
            )

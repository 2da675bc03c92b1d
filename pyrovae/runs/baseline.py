"""What a model without latent variables gives, for a verdict on one that has them."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae import nets
from pyrovae.data import Splits

__all__ = ["without_latents"]

_MOST = 2_000  # training data that it is fitted to
_ROUNDS = 20


def without_latents(vae: Any, splits: Splits) -> np.ndarray | str:
    """``(B,)``: log p(x) of the test data, in nats, under the model's likelihood with the same
    parameters for every datum.

    It is fitted to at most 2,000 training data by maximum likelihood (L-BFGS), and stops where the
    validation data like it best. A VAE whose latent variables carry anything does better. Where it
    is not known, the reason, in words that end a sentence.
    """
    if vae.likelihood.missing:
        return "it is fitted to whole data, and these have missing cells"
    if vae.pair is not None:
        return "the noise of the grey levels is learned together with the latent variables"
    likelihood = vae.likelihood
    if getattr(likelihood, "optimal", False):  # a scale that is fitted to the batch it is scored on
        likelihood = likelihood.redeclare(scale="learned")
    likelihood = copy.deepcopy(likelihood.redeclare())
    likelihood.bind(latent_dim=1, data_shape=splits.data_shape, decoder=nets.MLP())
    likelihood = likelihood.double()
    train, valid = (_some(part, splits.transform) for part in (splits.train, splits.valid))
    _start(likelihood, train)
    parameters = [p for p in likelihood.parameters() if p.requires_grad]
    best, kept = -np.inf, copy.deepcopy(likelihood.state_dict())
    for _ in range(_ROUNDS):
        with torch.no_grad():
            score = float(_log_prob(likelihood, valid).mean())
        if not score > best + 1e-4:
            break
        best, kept = score, copy.deepcopy(likelihood.state_dict())
        _improve(likelihood, parameters, train)
    likelihood.load_state_dict(kept)
    with torch.no_grad():
        pieces = [_log_prob(likelihood, x) for x in _all(splits.test)]
    found = torch.cat(pieces).numpy()
    return found if np.isfinite(found).all() else "its log p(x) of the test data is not finite"


def _log_prob(likelihood: Any, x: Tensor) -> Tensor:
    return likelihood(x.new_zeros(1, 1)).log_prob(x)


def _improve(likelihood: Any, parameters: list[Tensor], x: Tensor) -> None:
    steps = torch.optim.LBFGS(parameters, max_iter=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        steps.zero_grad()
        value = -_log_prob(likelihood, x).mean()
        value.backward()
        return value

    steps.step(loss)


def _start(likelihood: Any, x: Tensor) -> None:
    """Start at the mean of the data, where there is a rule for it."""
    last = nets.last_bias(likelihood.decoder)
    with torch.no_grad():
        for parameter in likelihood.decoder.parameters():
            parameter.zero_()
        bias = likelihood.initial_bias(x.mean(0))
        if last is not None and bias is not None and bias.numel() == last.numel():
            last.copy_(bias.flatten())


def _some(part: Any, transform: Any) -> Tensor:
    x = part[:_MOST]
    if transform is not None:
        x = torch.as_tensor(transform(x))
    return x.detach().cpu().double()


def _all(part: Any) -> list[Tensor]:
    return [part[i : i + _MOST].detach().cpu().double() for i in range(0, len(part), _MOST)]

"""Data that the model draws, with the latent values that they came from."""

from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.distributions.base import innermost
from pyrovae.distributions.given_total import GivenTotal
from pyrovae.evidence.checks import check_arguments
from pyrovae.evidence.inspection import evaluating
from pyrovae.particles import simulate
from pyrovae.programs import Program, evaluation_mode, modules_of

__all__ = ["simulate_data"]


def simulate_data(
    model: Program, guide: Program, num_data: int, data: Any, seed: int, device: Any
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Arguments of both programs, of which the model drew the observed ones, and its latent values
    by site.

    Raises:
        ValueError: If the model does not observe its arguments, if there are too few of them, or if
            a likelihood reads its exposure off the datum.
    """
    with evaluating(model, guide, device=device), _RefuseTotals():
        args, place = check_arguments(model, guide, _template(model, data, num_data), device)
        if len(args[0]) < num_data:
            raise ValueError(
                f"{num_data} data are to be simulated, but the arguments given hold "
                f"{len(args[0])} rows."
            )
        torch.manual_seed(seed)
        return simulate(model, tuple(arg[:num_data].to(place) for arg in args))


class _RefuseTotals(Messenger):
    """Refuses likelihoods that read their exposure off the datum that they score."""

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(innermost(msg["fn"]), GivenTotal):
            raise ValueError(
                f"The likelihood of site '{msg['name']}' has exposure='total'. Its counts would be "
                "simulated at a typical total, but scored at the total that comes out, so the "
                "simulated latent values are no draws from the posterior. Take a likelihood "
                "without exposure, or a model that is given the exposure as data."
            )


def _template(model: Program, data: Any, num_data: int) -> Any:
    if data is not None:
        return data
    for module in modules_of(model):
        if callable(getattr(module, "sample", None)):
            with torch.random.fork_rng(), torch.no_grad(), evaluation_mode(model):
                drawn = module.sample(num_data)  # type: ignore[operator]
                return drawn if isinstance(drawn, Tensor) else module.read(drawn)  # type: ignore
    raise ValueError(
        "The shape of the model's data is not known. Pass data=..., arguments as for log_marginal: "
        "observed ones give their shape, others are used as they are."
    )

"""The front door: log p(x) of held-out data."""

from typing import Any

from pyrovae.evidence.methods.base import Method
from pyrovae.evidence.methods.importance import ImportanceSampling
from pyrovae.evidence.problem import prepare
from pyrovae.evidence.result import Evidence
from pyrovae.programs import Program

__all__ = ["log_marginal"]


def log_marginal(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_particles: int | None = None,
    method: Method | None = None,
    target_standard_error: float | None = None,
    max_particles: int | None = None,
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int = 1,
    data_scale: float = 1.0,
    progress: bool = False,
) -> Evidence:
    r"""Estimate log p(x) of each datum, in nats, with its error and a diagnosis.

    Programs run in eval mode, without gradients, and without the scale of any subsampling; their modes, Pyro's
    validation and the global random state are as before afterwards. Each datum draws from a random stream of its
    own, so the numbers depend on the seed, but neither on how the work was cut nor on the order of the data.
    Discrete latent sites of few values are summed exactly (``enumerate`` of :class:`ImportanceSampling`).

    Args:
        model, guide: Pyro programs whose data plate is the right-most batch dimension.
        data: ``(B, ...)`` array or tensor, or a tuple of them, handed to both programs as arguments. Floating point
            numbers are cast to the parameters' dtype.
        num_particles: Draws K for each datum of importance sampling; default 1,000.
        method: Another method, or importance sampling with settings of its own.
        target_standard_error, max_particles: As :class:`ImportanceSampling`.
        seed: Of all random numbers.
        memory_budget: Bytes that a piece of work may take; default 256 MiB, 4 GiB on a GPU.
        device: Where the parameters are, which is the default.
        max_plate_nesting: Batch dimensions that the programs use themselves; 1 is the data plate alone.
        data_scale: What the data in their own units were multiplied by, such as 1/256: for bits per dimension.
        progress: Show a bar.

    Raises:
        TypeError: If data are no arrays, or a count is no integer.
        ValueError: If the data are empty, not finite or outside the likelihood's support; if the programs are scaled,
            have sites outside the data plate, or a guide without a density; if a setting is out of range.
    """
    choice = {
        "num_particles": num_particles,
        "target_standard_error": target_standard_error,
        "max_particles": max_particles,
    }
    given = {name: value for name, value in choice.items() if value is not None}
    if method is None:
        method = ImportanceSampling(**given)
    elif not isinstance(method, Method):
        raise TypeError(
            f"method must be such as ImportanceSampling(num_particles=5000), found {method!r}."
        )
    elif given:
        raise ValueError(
            f"Both a method and {', '.join(given)} were given. Say it in the method: {method!r}."
        )
    problem = prepare(
        model,
        guide,
        data,
        seed=seed,
        memory_budget=memory_budget,
        device=device,
        max_plate_nesting=max_plate_nesting,
        progress=progress,
    )
    with problem.session():
        estimate = method.evaluate(problem)
    return Evidence.of(estimate, method, problem, data_scale=data_scale)

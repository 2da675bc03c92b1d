"""Estimate log p(x) of held-out data."""

import os
from typing import Any

from pyrovae.evidence.inspection import inspect
from pyrovae.evidence.methods.base import Method
from pyrovae.evidence.methods.importance import ImportanceSampling
from pyrovae.evidence.parts import Parts
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
    max_plate_nesting: int | None = None,
    data_scale: float = 1.0,
    progress: bool = False,
    parts: str | os.PathLike | None = None,
) -> Evidence:
    r"""Estimate log p(x) of each datum, in nats, with its error and a diagnosis.

    Programs run in eval mode, without gradients, and without the scale of any subsampling; their
    modes and the random state are as before afterwards. Each datum draws from its own random
    stream, which is made of the seed and of the datum. So its estimate depends neither on memory,
    nor on the other data, nor on their order. Where data are equal, the first of them has the
    stream that it would have alone, the second one another, and so on: their estimates differ by
    chance. Discrete latent sites of few values are summed exactly.

    Args:
        model, guide: Pyro programs whose data plate is the right-most batch dimension.
        data: The arguments of both programs, of any kind that :func:`pyrovae.fit` takes. A
            ``Dataset`` or a ``DataLoader`` is read batch by batch, more than once, and never held
            as a whole beyond 256 MiB; elements of its items beyond the model's arguments, such as
            labels, are left out. A loader must keep the order of its data and leave none out.
        num_particles, target_standard_error, max_particles: As :class:`ImportanceSampling`.
        method: Another method, or importance sampling with other settings.
        memory_budget: Bytes that a piece of work may take; default 256 MiB, 4 GiB on a GPU.
        device: Where the programs run; default, where the parameters are.
        max_plate_nesting: Number of batch dimensions that the programs use themselves; 1 is the
            data plate alone. Default: what the programs are seen to use.
        data_scale: The factor by which the data were multiplied, such as 1/256: for bits per
            dimension.
        seed, progress: Seed of all random numbers; whether to show a progress bar.
        parts: A folder to keep finished parts in, so that a call that was stopped goes on where it
            was. Calls with other programs, data, methods or seeds may share it. Processes that
            ``torchrun`` has started share the work where all of them make this call with one
            folder; each gets the whole result. Without a folder each process evaluates all data by
            itself. The files stay until you remove them.

    Raises:
        TypeError: If the data are not arrays, or a count is not an integer.
        ValueError: If data or programs are not fit for evidence, such as a guide without a density;
            if a setting is out of range; with ``parts``, if it cannot be told what the programs
            read.

    Examples:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> x = oracle.sample(100)
        >>> evidence = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=10)
        >>> bool(abs(evidence.mean() - oracle.log_prob(x).mean()) < 1e-9)
        True
    """
    method = _choose_method(method, num_particles, target_standard_error, max_particles)
    inspection = inspect(
        model, guide, data, seed, memory_budget, device, max_plate_nesting, progress
    )
    with inspection.evaluating():
        kept = None if parts is None else Parts(parts, inspection, method)
        estimate = method.evaluate(inspection, kept)
    return Evidence.of(estimate, method, inspection, data_scale=data_scale)


def _choose_method(
    method: Method | None,
    num_particles: int | None,
    target_standard_error: float | None,
    max_particles: int | None,
) -> Method:
    settings = {
        "num_particles": num_particles,
        "target_standard_error": target_standard_error,
        "max_particles": max_particles,
    }
    given: dict[str, Any] = {name: v for name, v in settings.items() if v is not None}
    if method is None:
        return ImportanceSampling(**given)
    if not isinstance(method, Method):
        raise TypeError(
            "method must be a method such as ImportanceSampling(num_particles=5000), found "
            f"{method!r}."
        )
    if given:
        raise ValueError(
            f"Both a method and {', '.join(given)} were given. Give the latter to the method: "
            f"{method!r}."
        )
    return method

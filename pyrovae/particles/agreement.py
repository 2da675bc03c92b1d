"""A trial by values: whether programs give all particles at once what they give one by one."""

import weakref
from contextlib import suppress
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from pyrovae.particles.running import NestedPlates, is_point, nesting_of, run, sites_of
from pyrovae.particles.scoring import log_prob_of, over_plates
from pyrovae.particles.trial import identity, remember, runs_separately
from pyrovae.programs import Program, evaluation_mode, undisturbed

__all__ = ["settle"]

_NUM = 2  # particles of a trial
_CLOSE = 1e-4  # well above rounding, well below what a wrong dimension does

# Names of the programs that have been tried together, by the owners of model and guide.
_tried: weakref.WeakKeyDictionary[Any, weakref.WeakKeyDictionary] = weakref.WeakKeyDictionary()


def settle(
    model: Program,
    guide: Program,
    args: tuple,
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
    again: bool = False,
) -> None:
    """Find out whether the programs broadcast over particles. One that does not will run once for
    each particle.

    A program that counts dimensions from the left, as ``softmax(dim=1)`` does, may work with the
    particles in front and mean something else. So two particles are scored under the plate and one
    by one. A program with random numbers of its own cannot be compared.

    Nothing else changes: random states, buffers and modes of modules are put back. While a graph is
    captured there are no values, and nothing is done.

    Args:
        again: Try programs that have been tried before, since other weights may show more.
    """
    kwargs = kwargs or {}
    size = next((len(arg) for arg in args if isinstance(arg, Tensor) and arg.dim()), 0)
    if not size or _get_current_dispatch_mode() is not None:
        return
    if not again and _known(model, guide, size > 1):
        return
    # Whatever is wrong shows where the programs run for their result.
    with (
        undisturbed(model, guide),
        evaluation_mode(model, guide),
        poutine.block(),
        suppress(Exception),
    ):
        try:
            _try(model, guide, args, kwargs, max_plate_nesting)
        except NestedPlates:
            nesting = nesting_of(guide, model, args=args, kwargs=kwargs)
            _try(model, guide, args, kwargs, nesting)


def _known(model: Program, guide: Program, several: bool) -> bool:
    """Whether the pair has been tried before, with a single datum or with several; it has now."""
    (first, name), (second, other) = identity(model), identity(guide)
    try:
        guides = _tried.setdefault(first, weakref.WeakKeyDictionary())
        names = guides.setdefault(second, set())
    except TypeError:  # neither hashable nor referable
        return True
    known = (name, other, several) in names
    names.add((name, other, several))
    return known


def _try(model: Program, guide: Program, args: tuple, kwargs: dict[str, Any], nesting: int) -> None:
    common: tuple = (_NUM, args, kwargs)
    trace = run(guide, *common, max_plate_nesting=nesting, role="guide")
    for program, role in ((guide, "guide"), (model, "model")):
        if role == "guide" and len(sites_of(trace, observed=False)) == 1:
            continue  # its distribution cannot depend on a draw
        how: dict[str, Any] = {"max_plate_nesting": nesting, "role": role}
        together = run(program, *common, trace=trace, **how)
        if runs_separately(program):
            continue  # an error has shown it
        how |= {"trace": together, "plate": False}
        try:
            apart = _scores(run(program, *common, **how))
            agree = _agree(_scores(together), apart)
            if not agree and not _agree(_scores(run(program, *common, **how)), apart):
                continue  # it draws random numbers
        except Exception:  # values that do not fit a run of one particle
            agree = False
        if not agree:
            remember(program, _NUM)
            if role == "guide":
                trace = run(guide, *common, max_plate_nesting=nesting, role="guide")


def _scores(trace: Any) -> dict[str, Tensor]:
    """By site, ``(K, B)`` log-densities."""
    sites = sites_of(trace, observed=False) | sites_of(trace, observed=True)
    return {
        name: over_plates(log_prob_of(site))
        for name, site in sites.items()
        if not is_point(site["fn"])  # whose density at a value that is rounded otherwise is zero
    }


def _agree(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(one[name], other[name], rtol=_CLOSE, atol=_CLOSE, equal_nan=True)
        for name in one
    )

"""Run a program with K particles: all at once under a plate, or one after another."""

from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import TransformedDistribution

from pyrovae.distributions.base import innermost
from pyrovae.particles.separate import WRAPPERS, Separate, is_deterministic, stack
from pyrovae.particles.trial import Mark, remember, runs_separately
from pyrovae.programs import Program

PARTICLE_PLATE = "_particles"


class NestedPlates(ValueError):
    """The programs nest more plates than ``max_plate_nesting``."""


class InvalidParameters(ValueError, ArithmeticError):
    """A program made a distribution whose parameters are outside their range, such as NaN."""


def particle_plate(num_particles: int, max_plate_nesting: int) -> Any:
    """The plate of K particles, outside all plates of the programs."""
    return pyro.plate(PARTICLE_PLATE, num_particles, dim=-1 - max_plate_nesting)


class run_errors:
    """Replace errors of Pyro and torch whose text does not say what to do about them.

    Args:
        max_plate_nesting: Number of batch dimensions that the programs were said to use.
        program: ``"guide"`` or ``"model"``, for the text.
        trace: The trace that is being recorded, for the name of its last site.
    """

    def __init__(self, max_plate_nesting: int, program: str = "program", trace: Any = None):
        self.max_plate_nesting, self.program, self.tracer = max_plate_nesting, program, trace

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if not isinstance(error, ValueError) or isinstance(error, NestedPlates | InvalidParameters):
            return
        text = str(error)
        if "collide at dim" in text:
            where = text.splitlines()[0]
            raise NestedPlates(
                f"The programs nest more than max_plate_nesting={self.max_plate_nesting} plates "
                f"({where}). Pass max_plate_nesting={self.max_plate_nesting + 1} or more."
            ) from error
        if "Shape mismatch inside plate" in text:
            raise ValueError(
                f"In the {self.program}: {text.splitlines()[0]}. Every value in a plate has the "
                "plate's size in its dimension. A guide that keeps parameters for each datum, as "
                "Pyro's AutoNormal does, needs all of its data in every call."
            ) from error
        if "but found invalid values" in text:
            raise InvalidParameters(self._invalid(text)) from None

    def _invalid(self, text: str) -> str:
        """One line in place of torch's text, which prints the whole tensor."""
        what = " ".join(text.split(", but found invalid values")[0].split())
        sites = getattr(getattr(self.tracer, "trace", None), "nodes", {})
        done = [name for name, node in sites.items() if node["type"] == "sample"]
        place = f"after site '{done[-1]}'" if done else "before its first site"
        return (
            f"In the {self.program}, {place}: {what}. It is not finite or out of range; bound it "
            "(softplus or a clamp in place of exp), or lower the learning rate."
        )


class _Detach(Messenger):
    """Give the rest of the program a detached leaf in place of each latent draw; keep the draw
    itself.

    A point mass is not a draw but a function of earlier ones, so it stays attached.
    """

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg) or is_point(msg["fn"]):
            return
        msg["attached"] = msg["value"]
        leaf = msg["value"].detach()
        if leaf.is_floating_point():
            leaf.requires_grad_()
        msg["value"] = leaf


class _Inside(Messenger):
    """Refuse a plate without a dimension of its own that went to the left of the particles."""

    def __init__(self, nesting: int):
        super().__init__()
        self.nesting = nesting

    def _pyro_sample(self, msg: Any) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.vectorized and -frame.dim > self.nesting + 1:
                raise NestedPlates(
                    f"The programs nest more than max_plate_nesting={self.nesting} plates (site "
                    f"'{msg['name']}' is in '{frame.name}'). Pass max_plate_nesting="
                    f"{self.nesting + 1} or more."
                )


class _Given(Messenger):
    """Give sites the values of one particle, without the dimensions that only other sites need.

    With ``particle=None``, give them the values of all particles as they are.
    """

    def __init__(self, nodes: dict[str, Any], particle: int | None):
        super().__init__()
        self.nodes, self.particle = nodes, particle

    def _pyro_sample(self, msg: Any) -> None:
        node = self.nodes.get(msg["name"])
        if node is None or msg["is_observed"]:
            return
        msg["done"] = True
        if site_is_subsample(msg):
            msg["value"] = node["value"]
            return
        if not node.get("given"):  # values of a caller say nothing about a site
            msg["infer"] = node["infer"]
        if self.particle is None:
            msg["value"] = node["value"]
            return
        value = node["raw"][self.particle] if "raw" in node else node["value"][self.particle]
        frames = [-frame.dim for frame in msg["cond_indep_stack"] if frame.vectorized]
        rank = max(frames, default=0) + len(msg["fn"].event_shape)
        if value.dim() > rank:
            value = value.reshape(value.shape[value.dim() - rank :])
        msg["value"] = value


def run(
    program: Program,
    num_particles: int,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    max_plate_nesting: int,
    trace: Any = None,
    detach: bool = False,
    plate: bool = True,
    role: str = "program",
) -> Any:
    """Trace of a program with K particles; every value and distribution has them in its first
    dimension.

    The program runs once, under a plate of K particles. If that fails, it runs once for each
    particle without the plate, and from then on always so, provided that it then works.

    Args:
        trace: A trace whose latent values are taken in place of draws.
        detach: Hand detached leaves on to the rest of the program.
        plate: Try the plate at all.
        role: ``"guide"`` or ``"model"``, for errors.
    """
    options: dict[str, Any] = {"max_plate_nesting": max_plate_nesting, "detach": detach}
    options |= {"trace": trace, "role": role}
    if not plate or runs_separately(program):
        return _separately(program, num_particles, args, kwargs, **options)
    inside = _Inside(max_plate_nesting)(program)
    plated = particle_plate(num_particles, max_plate_nesting)(inside)
    if trace is not None:
        plated = _Given(dict(trace.nodes), None)(plated)
    mark = Mark()
    try:
        return _trace(plated, args, kwargs, max_plate_nesting, detach, role)
    except (NestedPlates, InvalidParameters, torch.OutOfMemoryError):
        raise
    except Exception:
        mark.undo()
        found = _separately(program, num_particles, args, kwargs, **options)
        remember(program, num_particles)
        return found


def _check_places(trace: Any) -> None:
    """Raise ValueError where a dimension has no plate: elements of a datum without ``to_event``, or
    particles in another dimension than theirs, as after ``z[..., 0, :]``. Such a site would be
    added up wrongly. This needs no second run to compare with: one datum will do.
    """
    for observed in (False, True):
        for name, site in sites_of(trace, observed=observed).items():
            plates = {frame.dim: frame.size for frame in site["cond_indep_stack"]}
            shape = getattr(site["fn"], "batch_shape", ())
            wrong = [dim for dim in range(-len(shape), 0) if shape[dim] not in (1, plates.get(dim))]
            if wrong:
                raise ValueError(
                    f"Site '{name}' has the batch shape {tuple(shape)}, but no plate of "
                    f"{shape[wrong[0]]} at dim={wrong[0]}. Say with to_event which dimensions "
                    "belong to one datum, or put them into a plate."
                )


def _separately(
    program: Program,
    num_particles: int,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    max_plate_nesting: int,
    trace: Any,
    detach: bool,
    role: str,
) -> Any:
    """One run of the program for each particle, joined to one trace."""
    traces: list[Any] = []
    nodes = {} if trace is None else dict(trace.nodes)
    for particle in range(num_particles):
        one = _Given(nodes, particle)(program)
        traces.append(_trace(one, args, kwargs, max_plate_nesting, detach, role))
        if particle == 0:  # all particles see the same subsample of the data
            found = traces[0].nodes.items()
            nodes |= {
                name: n for name, n in found if n["type"] == "sample" and site_is_subsample(n)
            }
    joined = traces[0].copy()
    for name, site in traces[0].nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site):
            joined.nodes[name] = _join([found.nodes[name] for found in traces], max_plate_nesting)
    return joined


def _join(sites: list[Any], nesting: int) -> dict[str, Any]:
    """One site of several runs."""
    first = sites[0]
    fn = Separate([site["fn"] for site in sites], nesting, [site["value"] for site in sites])
    joined = {**first, "fn": fn, "value": fn.stacked, "raw": fn.values}
    if "attached" in first:
        joined["drawn"] = [site["attached"] for site in sites]
        joined["attached"] = stack(joined["drawn"], nesting - len(first["fn"].batch_shape))
    masks = [site["mask"] for site in sites]
    if isinstance(first["mask"], Tensor) and any(mask is not first["mask"] for mask in masks):
        joined["mask"] = stack(masks, nesting - first["mask"].dim())
    return joined


def _trace(
    program: Program, args: tuple, kwargs: dict, nesting: int, detach: bool, role: str
) -> Any:
    tracer = poutine.trace(program)
    with run_errors(nesting, role, tracer), _Detach() if detach else nullcontext():
        trace = tracer.get_trace(*args, **kwargs)
    _check_places(trace)
    return trace


def nesting_of(*programs: Program, args: tuple, kwargs: dict[str, Any]) -> int:
    """How many batch dimensions the programs use, from one run of each without effect on the random
    state.
    """
    deepest = 1
    with torch.no_grad(), torch.random.fork_rng(), poutine.block():
        for program in programs:
            for site in poutine.trace(program).get_trace(*args, **kwargs).nodes.values():
                frames: Any = site.get("cond_indep_stack", ())
                deepest = max([deepest, *(-frame.dim for frame in frames if frame.vectorized)])
    return deepest


def sites_of(trace: Any, *, observed: bool) -> dict[str, Any]:
    """The sample sites of a trace, observed or latent ones, without ``pyro.deterministic``."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and site["is_observed"] == observed
        and not site_is_subsample(site)
        and not is_deterministic(site)
    }


def given(values: dict[str, Tensor]) -> Any:
    """A trace of latent values, to replay a program against."""
    trace = poutine.Trace()
    for name, value in values.items():
        trace.add_node(name, name=name, type="sample", value=value, is_observed=False, infer={})
        trace.nodes[name]["given"] = True  # type: ignore[reportGeneralTypeIssues]
    return trace


def is_point(distribution: Any) -> bool:
    """Whether a distribution is a point mass."""
    return isinstance(innermost(distribution, (*WRAPPERS, TransformedDistribution)), Delta)

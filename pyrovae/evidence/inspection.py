"""Check programs and data before any estimate, and record what the programs are like."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyrovae.evidence.sampler import Sampler, check_log_weights
from pyrovae.evidence.streams import DatumStreams, data_keys, fingerprint
from pyrovae.evidence.summing import Supports, join_supports
from pyrovae.particles import SummedSites, draw, find_supports
from pyrovae.programs import Program, evaluation_mode, modules_of

__all__ = ["Inspection", "check_arguments", "evaluating", "in_pieces", "inspect"]

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Inspection:
    """Two programs, checked data, and what one particle of every datum showed.

    Attributes:
        model, guide: The two programs.
        args: Arguments of both programs, as tensors with one leading dimension.
        keys: ``(B,)`` random streams of the data.
        device: Where the programs run.
        seed: Seed of all random numbers.
        max_plate_nesting: Number of batch dimensions that the programs use themselves.
        memory_budget: Bytes that one piece of work may take.
        progress: Whether to show a progress bar.
        num_dims: Mean number of observed elements of a datum; masked elements do not count.
        discrete: Whether log p(x) is a log-probability.
        latents: Names of the latent sites.
        completed: Latent sites that the guide lacks.
        points: Sites at which the guide is a point mass, without a density.
        supports: Values of the discrete sites that can be summed, and why others cannot.
    """

    model: Program
    guide: Program
    args: tuple[Tensor, ...]
    keys: np.ndarray
    device: torch.device
    seed: int
    max_plate_nesting: int
    memory_budget: int
    progress: bool
    num_dims: float
    discrete: bool
    latents: tuple[str, ...]
    completed: tuple[str, ...]
    points: tuple[str, ...]
    supports: Supports

    @property
    def num_data(self) -> int:
        """B."""
        return len(self.keys)

    @property
    def fingerprint(self) -> str:
        """Hash of the data in their order."""
        return fingerprint(self.args)

    def sampler(self, summed: SummedSites | None = None, scorer: Any = None) -> Sampler:
        """The sampler of all data."""
        programs = self.model, self.guide
        return Sampler(
            *programs, self.args, self.keys, self.device, self.max_plate_nesting, summed, scorer
        )

    def evaluating(self) -> Any:
        """The context in which methods run: :func:`evaluating`."""
        return evaluating(self.model, self.guide, device=self.device)


def inspect(
    model: Program,
    guide: Program,
    data: Any,
    *,
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int = 1,
    progress: bool = False,
) -> Inspection:
    """Check data and settings, and run both programs once on every datum, with Pyro's validation on.

    Arguments are those of :func:`~pyrovae.evidence.log_marginal`.

    Raises:
        TypeError: If the data are not arrays, or the seed is not an integer.
        ValueError: If the data are empty, of unequal lengths or not finite; if a setting is out of range; if the
            programs refuse the data or are scaled.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an integer, found {seed!r}.")
    if memory_budget is not None and memory_budget < 1:
        raise ValueError(
            f"memory_budget must be a positive number of bytes, found {memory_budget}."
        )
    if isinstance(max_plate_nesting, bool) or max_plate_nesting < 1:
        raise ValueError(
            f"max_plate_nesting must be at least 1 (the data plate), found {max_plate_nesting}."
        )
    with evaluating(model, guide, device=device):
        args, place = check_arguments(model, guide, data, device)
        if memory_budget is None:
            memory_budget = (256 if place.type == "cpu" else 4096) * MEBIBYTE
        keys = data_keys(args, int(seed))
        found = _run_once(model, guide, args, keys, place, memory_budget, max_plate_nesting)
    return Inspection(
        model=model,
        guide=guide,
        args=args,
        keys=keys,
        device=place,
        seed=int(seed),
        max_plate_nesting=max_plate_nesting,
        memory_budget=int(memory_budget),
        progress=progress,
        **found,
    )


def _run_once(
    model: Program,
    guide: Program,
    args: tuple[Tensor, ...],
    keys: np.ndarray,
    device: torch.device,
    memory_budget: int,
    max_plate_nesting: int,
) -> dict[str, Any]:
    """The fields of :class:`Inspection` that one particle of every datum shows."""
    width = sum(arg[0].numel() * arg.element_size() for arg in args)
    size = max(1, min(len(keys), memory_budget // (64 * max(width, 1))))
    supports: Supports | None = None
    observed = _CountObserved()
    for index in in_pieces(len(keys), size):
        rows = tuple(arg[index].to(device) for arg in args)
        streams = DatumStreams(keys[index], 1, axis=max_plate_nesting)
        with pyro.validation_enabled(True), streams, _RefuseTraining(), observed:
            particles = draw(
                model, guide, 1, rows, max_plate_nesting=max_plate_nesting, complete=True
            )
        if particles.scaled:
            raise ValueError(
                "A handler scales the programs (KLScale or poutine.scale with a factor other than 1). "
                "beta belongs to training: pass model and guide without it."
            )
        check_log_weights(particles.log_weights)
        few = find_supports(particles)
        supports = few if supports is None else join_supports(supports, few)
        observed.finish_piece()
    latents = particles.latents
    return {
        "num_dims": observed.total / len(keys),
        "discrete": particles.discrete,
        "latents": tuple(latents),
        "completed": particles.completed,
        "points": tuple(name for name, site in latents.items() if _is_point(site.posterior)),
        "supports": supports,
    }


class _CountObserved(Messenger):
    """Counts the observed elements that no mask hides, over several pieces of data."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._sites: dict[str, int] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"] or site_is_subsample(msg):
            return
        fn = msg["fn"]
        seen = torch.ones(fn.shape(), dtype=torch.bool)
        masks = [(msg["mask"], len(fn.event_shape))]
        inner = fn
        while hasattr(inner, "base_dist"):
            if isinstance(inner, MaskedDistribution):
                reinterpreted = len(fn.batch_shape) + len(fn.event_shape) - len(inner.batch_shape)
                masks.append((inner._mask, reinterpreted))
            inner = inner.base_dist
        for mask, event_dim in masks:
            if mask is not None:
                mask = torch.as_tensor(mask).cpu()
                seen = seen & mask[(...,) + (None,) * event_dim]
        self._sites[msg["name"]] = int(seen.sum())

    def finish_piece(self) -> None:
        """Add the counts of the last run."""
        self.total += sum(self._sites.values())
        self._sites.clear()


class _RefuseTraining(TorchFunctionMode):
    """Refuses dropout and batch statistics of modules that eval mode did not reach."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _TRAINABLE and (kwargs or {}).get("training"):
            raise ValueError(
                f"The programs call {name} in training mode, which makes log p(x) depend on chance or on the other "
                "data. Call .eval() on the module, or let the programs call it as a module, which pyrovae then finds."
            )
        return func(*args, **(kwargs or {}))


_TRAINABLE = {
    "alpha_dropout",
    "batch_norm",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
}
"""Functions of :mod:`torch.nn.functional` with an argument ``training``."""


def _is_point(distribution: Any) -> bool:
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


@contextmanager
def evaluating(model: Program, guide: Program, *, device: Any = None) -> Iterator[None]:
    """Eval mode, no gradients, no validation by Pyro; modes, settings and random state come back afterwards.

    ``torch.inference_mode`` is off inside, because methods that follow gradients need tensors that can have them.
    """
    cuda = torch.cuda.is_initialized() or (
        device is not None and torch.device(device).type == "cuda"
    )
    devices = list(range(torch.cuda.device_count())) if cuda else []
    with (
        torch.inference_mode(False),
        torch.random.fork_rng(devices=devices),
        evaluation_mode(model, guide),
        torch.no_grad(),
        pyro.validation_enabled(False),
    ):
        yield


def in_pieces(
    num_data: int, size: int, *, progress: bool = False, label: str = ""
) -> Iterator[np.ndarray]:
    """Indices of consecutive data, ``size`` at a time, with a progress bar where asked for.

    All work on data goes through this loop: a piece is done when the next one is asked for.
    """
    from tqdm import tqdm

    with tqdm(total=num_data, desc=label, unit="datum", disable=not progress) as bar:
        for first in range(0, num_data, size):
            index = np.arange(first, min(first + size, num_data))
            yield index
            bar.update(len(index))


def check_arguments(
    model: Program, guide: Program, data: Any, device: Any = None
) -> tuple[tuple[Tensor, ...], torch.device]:
    """The data as tensors, in the dtype of the parameters, and the device on which the programs run.

    Raises:
        TypeError: If the data are not arrays.
        ValueError: If they are empty, of unequal lengths or not finite, or if the parameters are elsewhere.
    """
    floating = (
        p for m in modules_of(model, guide) for p in m.parameters() if p.is_floating_point()
    )
    like = next(floating, None)
    values = data if isinstance(data, tuple) else (data,)
    args = tuple(_as_tensor(value, i, like) for i, value in enumerate(values))
    if not args:
        raise ValueError(
            "There are no data: found an empty tuple. Pass an array, or a tuple of arrays."
        )
    lengths = [len(arg) for arg in args]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"The data arrays have unequal lengths {lengths}; their first dimension counts the data."
        )
    if lengths[0] == 0:
        raise ValueError(
            f"The data set is empty: found shape {tuple(args[0].shape)}, expected at least one datum."
        )
    if device is None:
        device = like.device if like is not None else args[0].device
    device = torch.device(device)
    if like is not None and like.device.type != device.type:
        raise ValueError(
            f"The programs' parameters are on {like.device}, the device asked for is {device}. "
            "Move them first: vae.to(device)."
        )
    return args, device


def _as_tensor(value: Any, place: int, like: Tensor | None) -> Tensor:
    try:
        tensor = torch.as_tensor(value).detach()
    except Exception as error:
        raise TypeError(
            f"Argument {place} of the programs must be an array or tensor, found {type(value).__name__} ({error})."
        ) from error
    if tensor.dim() == 0:
        raise ValueError(
            f"Argument {place} of the programs is a single number; its first dimension counts the data."
        )
    if tensor.is_floating_point():
        bad = ~torch.isfinite(tensor)
        if bad.any():
            rows = bad.reshape(len(tensor), -1).any(1).nonzero().flatten()
            raise ValueError(
                f"Argument {place} of the programs holds {int(bad.sum())} NaN or infinite values, the first in datum "
                f"{int(rows[0])}. Remove those data, or pass a mask to the programs and fill the gaps with any number."
            )
        if like is not None:
            tensor = tensor.to(like.dtype)
    return tensor.clone() if tensor.is_inference() else tensor

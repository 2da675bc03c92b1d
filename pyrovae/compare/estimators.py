"""Compare ELBO estimators at fixed weights: bounds, gradients, and what they cost."""

import copy
import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import pyro.infer
import torch
from torch import Tensor

from pyrovae.compare.bench import Bench, as_dataset
from pyrovae.compare.comparison import EstimatorComparison
from pyrovae.compare.gradients import parameter_groups
from pyrovae.data.arguments import as_tensors
from pyrovae.declare import is_count
from pyrovae.estimators import Estimator
from pyrovae.evidence import Evidence, log_marginal
from pyrovae.particles import nesting_of
from pyrovae.programs import (
    Program,
    alone,
    check_data,
    evaluation_mode,
    floating_parameter,
    parameters_of,
    store_as_found,
)

if TYPE_CHECKING:
    import xarray

__all__ = ["EstimatorComparison", "compare_estimators"]


def compare_estimators(
    model: Program,
    guide: Program,
    data: Any,
    estimators: Mapping[str, pyro.infer.ELBO],
    *,
    num_particles: int | Sequence[int] | None = None,
    num_replicates: int = 100,
    reference: "float | Tensor | Evidence | None" = None,
    reference_particles: int = 5_000,
    gradient_reference: bool = True,
    max_plate_nesting: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> "EstimatorComparison":
    r"""Run each estimator many times at the same weights, in eval mode, and compare.

    Args:
        model, guide: Pyro programs.
        data: An array or a tuple of arrays, handed to both programs; one batch, so keep it small.
        estimators: Names and estimators, ours or stock Pyro's.
        num_particles: The same number of draws for all, or several of them to sweep; an estimator
            that cannot make so many draws has NaN there. Default: each as given.
        num_replicates: Runs R of each, at least four.
        reference: log p(x) where it is known (the mean, or for each datum), or an
            :class:`~pyrovae.Evidence`; default, importance sampling with ``reference_particles``.
        reference_particles: See there; also the most of the reference for the model's gradient.
        gradient_reference: Whether to test gradients for bias, which costs several times the rest.
        max_plate_nesting: Batch dimensions that the programs use themselves; default, what they
            are seen to use.
        seed: Of all draws; the global random state is left alone.
        progress: Show a progress bar.

    Raises:
        TypeError: If an estimator is none.
        ValueError: If there are none, too few replicates, or programs and data do not fit.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.estimators import ELBO, IWAE
        >>> oracle = pv.testing.LinearGaussian(shift=0.5)
        >>> x = oracle.sample(10)
        >>> found = compare_estimators(
        ...     oracle.model, oracle.guide, x, {"ELBO": ELBO(), "IWAE": IWAE(50)},
        ...     num_replicates=20, reference=oracle.log_prob(x), gradient_reference=False,
        ... )
        >>> bias = found.dataset["bias"]
        >>> bool(bias.sel(estimator="ELBO") < bias.sel(estimator="IWAE") < 0.1)
        True
    """
    _check(estimators, num_replicates, num_particles)
    with alone(), store_as_found(model, guide):
        parameters, arguments = _prepare(model, guide, data)
    devices = [parameters[0].device] if parameters[0].device.type == "cuda" else []
    with (
        alone(),
        store_as_found(model, guide),
        evaluation_mode(model, guide),
        torch.random.fork_rng(devices=devices),
        torch.enable_grad(),
    ):
        used = nesting_of(guide, model, args=arguments, kwargs={})
        max_plate_nesting = max(max_plate_nesting or 1, used)
        groups = parameter_groups(model, guide, arguments, parameters, max_plate_nesting)
        log_px, log_px_error = _reference(
            reference, model, guide, arguments, reference_particles, seed, max_plate_nesting
        )
        bench = Bench(model, guide, arguments, parameters, groups, num_replicates, seed)
        if gradient_reference:
            bench.find_model_truth(reference_particles, max_plate_nesting)
        dataset = _measure(bench, estimators, num_particles, max_plate_nesting, progress)
    dataset["bias"] = dataset["bound"] - log_px
    dataset["bias_error"] = np.hypot(dataset["bound_error"], log_px_error)
    dataset.attrs.update(
        log_marginal=log_px,
        log_marginal_error=log_px_error,
        num_replicates=num_replicates,
        num_data=int(arguments[0].shape[0]),
        seed=seed,
        device=str(parameters[0].device),
        **{f"estimator: {name}": _name(estimator) for name, estimator in estimators.items()},
    )
    return EstimatorComparison(dataset)


def _prepare(model: Program, guide: Program, data: Any) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """The parameters of the programs, and the data in their precision and place."""
    parameters = parameters_of(model, guide, *_on_device(model, guide, data))
    if not parameters:
        raise ValueError("The programs have no parameters, so there are no gradients to compare.")
    arguments = as_tensors(
        data, device=parameters[0].device, dtype=parameters[0].dtype, program=model
    )
    check_data((model, guide), *arguments)
    return parameters, arguments


def _measure(
    bench: Bench,
    estimators: Mapping[str, pyro.infer.ELBO],
    num_particles: int | Sequence[int] | None,
    nesting: int,
    progress: bool,
) -> "xarray.Dataset":
    """A row for each estimator, at each number of particles."""
    from tqdm.auto import tqdm

    single = num_particles is None or isinstance(num_particles, Integral)
    counts: list[Any] = [num_particles] if single else list(num_particles)  # type: ignore[arg-type]
    tables = []
    bar = tqdm(total=len(counts) * len(estimators), desc="compare", disable=not progress)
    with bar, pyro.validation_enabled(False):
        for count in counts:
            rows = {}
            for name, estimator in estimators.items():
                rows[name] = bench.row(_with_draws(estimator, count, nesting))
                bar.update()
            tables.append(rows)
    swept = None if single else counts
    dataset = as_dataset(tables, list(estimators), list(bench.groups), swept)
    # Averages of as many gradients as the slowest estimator's time allows.
    repeats = dataset["seconds"].max("estimator") / dataset["seconds"]
    dataset["snr_equal_cost"] = dataset["snr"] * np.sqrt(repeats)
    dataset["bound_error_equal_cost"] = dataset["bound_error"] / np.sqrt(repeats)
    return dataset


def _name(estimator: Any) -> str:
    if isinstance(estimator, Estimator):
        return repr(estimator)
    return f"pyro.infer.{type(estimator).__name__}(num_particles={estimator.num_particles})"


def _with_draws(estimator: Any, count: int | None, nesting: int) -> Any:
    """The estimator with so many draws, or None where it cannot have them."""
    if count is None:
        return estimator
    if isinstance(estimator, Estimator):
        try:
            return estimator.with_draws(count)
        except ValueError:
            return None
    made = copy.copy(estimator)
    # Pyro counts the plate of vectorised particles in.
    own = made.max_plate_nesting - int(made.vectorize_particles and made.num_particles > 1)
    made.num_particles, made.vectorize_particles = count, count > 1
    made.max_plate_nesting = (nesting if math.isinf(own) else own) + int(count > 1)
    return made


def _reference(
    reference: Any,
    model: Program,
    guide: Program,
    data: Any,
    particles: int,
    seed: int,
    nesting: int,
) -> tuple[float, float]:
    """Mean log p(x) in nats per datum, and its standard error."""
    if reference is None:
        reference = log_marginal(
            model,
            guide,
            data,
            num_particles=particles,
            seed=seed,
            max_plate_nesting=nesting,
            device=data[0].device,
        )
    if isinstance(reference, Evidence):
        return reference.mean(), reference.monte_carlo_error()
    values = torch.as_tensor(reference, dtype=torch.float64).detach()
    if values.numel() not in (1, data[0].shape[0]):
        raise ValueError(
            f"reference must be the mean log p(x) or one for each of {data[0].shape[0]} data, "
            f"found shape {tuple(values.shape)}."
        )
    return values.mean().item(), 0.0


def _on_device(model: Program, guide: Program, data: Any) -> tuple[Tensor, ...]:
    """The data in the precision and place of the modules behind the programs."""
    like = floating_parameter(guide, model)
    if like is None:
        return as_tensors(data, program=model)
    return as_tensors(data, device=like.device, dtype=like.dtype, program=model)


def _check(estimators: Mapping[str, Any], num_replicates: int, num_particles: Any) -> None:
    if not isinstance(estimators, Mapping):
        raise TypeError(
            'compare_estimators takes a mapping {"name": estimator}, found '
            f"{type(estimators).__name__}."
        )
    if not estimators:
        raise ValueError("Give at least one estimator, such as {'ELBO': estimators.ELBO()}.")
    for name, estimator in estimators.items():
        if not isinstance(estimator, pyro.infer.ELBO):
            raise TypeError(
                f"Estimator {name!r} must be an instance of a pyrovae.estimators class or a Pyro "
                f"ELBO, found {estimator!r}."
            )
    if not is_count(num_replicates, 4):
        raise ValueError(
            f"num_replicates must be an integer of at least 4, found {num_replicates!r}."
        )
    counts = num_particles if isinstance(num_particles, Sequence) else [num_particles]
    if num_particles is not None and not (counts and all(map(is_count, counts))):
        raise ValueError(
            f"num_particles must be a positive integer or several, found {num_particles!r}."
        )
    for count in () if num_particles is None else counts:
        if not any(_with_draws(estimator, count, 1) for estimator in estimators.values()):
            raise ValueError(
                f"None of {', '.join(estimators)} can make {count} draws; give more num_particles."
            )

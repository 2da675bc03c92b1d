"""Compare ELBO estimators at fixed weights: bounds, gradients, and what they cost."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import pyro.infer
import torch
from torch import Tensor

from pyrovae.compare.comparison import EstimatorComparison
from pyrovae.compare.gradients import Replicates, parameter_groups, replicate, squared_norm
from pyrovae.data.batches import as_tensors
from pyrovae.estimators import ELBO, IWAE, MIWAE, RWS, Estimator
from pyrovae.evidence import Evidence, log_marginal
from pyrovae.particles import nesting_of
from pyrovae.programs import Program, check_data, evaluation_mode, parameters_of

if TYPE_CHECKING:
    import xarray

__all__ = ["EstimatorComparison", "compare_estimators"]

REFERENCE_FACTOR = 8
"""Draws of a gradient's reference, in multiples of the estimator's own."""
MOST_EVALUATIONS = 50_000
"""Pairs of draw and datum in one run of the reference for the model's gradient, for the sake of memory."""


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
    max_plate_nesting: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> "EstimatorComparison":
    r"""Run each estimator many times at the same weights, in eval mode, and compare.

    Args:
        model, guide: Pyro programs.
        data: An array or a tuple of arrays, handed to both programs; one batch, so keep it small.
        estimators: Names and estimators, ours or stock Pyro's.
        num_particles: The same number of draws for all, or several of them to sweep; an estimator that cannot
            make so many draws has NaN there. Default: each as given.
        num_replicates: Runs R of each, at least four.
        reference: log p(x) where it is known (the mean, or for each datum), or an :class:`~pyrovae.Evidence`;
            default, importance sampling with ``reference_particles``.
        reference_particles: See there; also the most of the reference for the model's gradient.
        gradient_reference: Whether to test gradients for bias, which costs several times the rest.
        max_plate_nesting: Batch dimensions that the programs use themselves.
        seed: Of all draws; the global random state is left alone.
        progress: Show a progress bar.

    Returns:
        The :class:`EstimatorComparison`.

    Raises:
        TypeError: If an estimator is none.
        ValueError: If there are none, too few replicates, or programs and data do not fit.
    """
    _check(estimators, num_replicates)
    parameters = parameters_of(model, guide, *_on_device(model, guide, data))
    if not parameters:
        raise ValueError("The programs have no parameters, so there are no gradients to compare.")
    arguments = as_tensors(data, device=parameters[0].device, dtype=parameters[0].dtype)
    check_data((model, guide), *arguments)
    devices = [parameters[0].device] if parameters[0].device.type == "cuda" else []
    with evaluation_mode(model, guide), torch.random.fork_rng(devices=devices), torch.enable_grad():
        used = nesting_of(guide, model, args=arguments, kwargs={})
        max_plate_nesting = max(max_plate_nesting, used)
        groups = parameter_groups(model, guide, arguments, parameters, max_plate_nesting)
        log_px, log_px_error = _reference(
            reference, model, guide, arguments, reference_particles, seed, max_plate_nesting
        )
        bench = _Bench(model, guide, arguments, parameters, groups, num_replicates, seed)
        with pyro.validation_enabled(False):
            model_truth = None
            if gradient_reference:
                # Normalised weights leave a bias of order 1 / particles; the reference's own error is in the test.
                many = max(64, min(reference_particles, MOST_EVALUATIONS // len(arguments[0])))
                wide = RWS(many, max_plate_nesting=max_plate_nesting)
                model_truth = bench.run(wide, runs=max(4, min(20, num_replicates // 5)), offset=2)
            swept = (
                None
                if num_particles is None or isinstance(num_particles, int)
                else list(num_particles)
            )
            counts: list[Any] = [num_particles] if swept is None else swept
            from tqdm.auto import tqdm

            tables = []
            with tqdm(
                total=len(counts) * len(estimators), desc="compare", disable=not progress
            ) as bar:
                for count in counts:
                    rows = {}
                    for name, estimator in estimators.items():
                        rows[name] = _row(
                            bench,
                            _with_draws(estimator, count, max_plate_nesting),
                            model_truth,
                            gradient_reference,
                        )
                        bar.update()
                    tables.append(rows)
    dataset = _dataset(tables, list(estimators), list(groups), swept)
    dataset["bias"] = dataset["bound"] - log_px
    dataset["bias_error"] = np.hypot(dataset["bound_error"], log_px_error)
    # Averages of as many gradients as the slowest estimator's time allows.
    repeats = dataset["seconds"].max("estimator") / dataset["seconds"]
    dataset["snr_equal_cost"] = dataset["snr"] * np.sqrt(repeats)
    dataset["bound_error_equal_cost"] = dataset["bound_error"] / np.sqrt(repeats)
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


class _Bench:
    """The programs, data and parameters that every estimator is run on."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        data: tuple[Tensor, ...],
        parameters: list[Tensor],
        groups: dict[str, list[int]],
        runs: int,
        seed: int,
    ):
        self.model, self.guide, self.data, self.parameters = model, guide, data, parameters
        self.groups, self.runs, self.seed = groups, runs, seed
        self._targets: dict[str, Replicates | None] = {}

    def run(
        self, estimator: pyro.infer.ELBO, *, runs: int | None = None, offset: int = 0
    ) -> Replicates:
        # Every estimator sees the same seed; references, other ones, so that errors are independent.
        return replicate(
            estimator,
            self.model,
            self.guide,
            self.data,
            self.parameters,
            runs=runs or self.runs,
            seed=self.seed + offset,
        )

    def target(self, estimator: pyro.infer.ELBO) -> Replicates | None:
        """Replicates of a high-particle estimator with the expected gradient that this one means to have."""
        wide = _wide(estimator)
        if wide is None:
            return None
        key = repr(wide)
        if key not in self._targets:
            try:
                self._targets[key] = self.run(wide, offset=1)
            except (
                ValueError
            ):  # a discrete site, which the plain estimator cannot differentiate through
                self._targets[key] = None
        return self._targets[key]


def _wide(estimator: Any) -> Estimator | None:
    if not isinstance(estimator, Estimator):
        return None
    target = estimator.target()
    options = {"max_plate_nesting": int(estimator.max_plate_nesting)}
    if type(target) is type(estimator):
        return None
    if type(target) is ELBO:
        return ELBO(REFERENCE_FACTOR * target.num_draws, **options)
    if type(target) is IWAE:
        return MIWAE(REFERENCE_FACTOR, target.num_draws, **options)
    return target  # its expected gradient moves with the number of particles, so no more of them


def _row(
    bench: _Bench, estimator: Any, model_truth: Replicates | None, test_bias: bool
) -> dict[str, Any] | None:
    if estimator is None:
        return None
    found = bench.run(estimator)
    target = bench.target(estimator) if test_bias else None
    row: dict[str, Any] = {
        "bound": found.bound.mean().item(),
        "bound_error": found.bound.std().item() / len(found.bound) ** 0.5,
        "draws": getattr(estimator, "num_draws", estimator.num_particles),
        "seconds": found.seconds,
        "decoder_evaluations": found.decodings,
    }
    for name, index in bench.groups.items():
        blocks = [found.blocks[i] for i in index]
        variance = sum(found.variance[i].sum().item() for i in index)
        norm = max(squared_norm(blocks)[0], 0.0) ** 0.5
        cell = {
            "gradient_norm": norm,
            "gradient_variance": variance,
            "snr": norm / variance**0.5 if variance > 0 else (math.inf if norm > 0 else math.nan),
        }
        cell |= _bias("gradient_bias", blocks, target, index)
        cell |= _bias(
            "evidence_bias", blocks, model_truth if name.startswith("model") else None, index
        )
        row[name] = cell
    return row


def _bias(
    label: str, blocks: list[Tensor], truth: Replicates | None, index: list[int]
) -> dict[str, float]:
    if truth is None:
        return {label: math.nan, f"{label}_z": math.nan}
    others = [truth.blocks[i] for i in index]
    num = min(len(blocks[0]), len(others[0]))
    blocks, others = ([_coarser(b, num) for b in side] for side in (blocks, others))
    squared, error = squared_norm([a - b for a, b in zip(blocks, others, strict=True)])
    size = max(squared_norm(others)[0], 0.0) ** 0.5
    return {
        label: max(squared, 0.0) ** 0.5 / size if size > 0 else math.nan,
        f"{label}_z": squared / error if error > 0 else math.nan,
    }


def _coarser(blocks: Tensor, num: int) -> Tensor:
    """Block means of ``num`` blocks, by averaging successive ones."""
    return torch.stack([part.mean(0) for part in blocks.tensor_split(num)])


CELLS = (
    "gradient_norm",
    "gradient_variance",
    "snr",
    "gradient_bias",
    "gradient_bias_z",
    "evidence_bias",
    "evidence_bias_z",
)
ROWS = ("bound", "bound_error", "draws", "seconds", "decoder_evaluations")


def _dataset(
    tables: list[dict[str, Any]], names: list[str], groups: list[str], swept: Sequence[int] | None
) -> "xarray.Dataset":
    import xarray

    def value(row: Any, *keys: str) -> float:
        for key in keys:
            row = math.nan if row is None else row[key]
            if row is math.nan:
                break
        return float(row)

    outer = ("num_particles", "estimator")
    variables: dict[str, Any] = {
        label: (outer, [[value(table[name], label) for name in names] for table in tables])
        for label in ROWS
    }
    for label in CELLS:
        cells = [
            [[value(table[name], group, label) for group in groups] for name in names]
            for table in tables
        ]
        variables[label] = ((*outer, "group"), cells)
    coords = {"estimator": names, "group": groups}
    dataset = xarray.Dataset(variables, coords={**coords, "num_particles": list(swept or [0])})
    return dataset if swept is not None else dataset.isel(num_particles=0, drop=True)


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
            f"reference must be the mean log p(x) or one for each of {data[0].shape[0]} data, found shape "
            f"{tuple(values.shape)}."
        )
    return values.mean().item(), 0.0


def _on_device(model: Program, guide: Program, data: Any) -> tuple[Tensor, ...]:
    """The data in the precision and place of the modules behind the programs."""
    from pyrovae.programs import modules_of

    like = next((p for m in modules_of(guide, model) for p in m.parameters()), None)
    if like is None:
        return as_tensors(data)
    return as_tensors(data, device=like.device, dtype=like.dtype)


def _check(estimators: Mapping[str, Any], num_replicates: int) -> None:
    if not estimators:
        raise ValueError("Give at least one estimator, such as {'ELBO': estimators.ELBO()}.")
    for name, estimator in estimators.items():
        if not isinstance(estimator, pyro.infer.ELBO):
            raise TypeError(
                f"Estimator {name!r} must be an instance of a pyrovae.estimators class or a Pyro ELBO, found "
                f"{estimator!r}."
            )
    if (
        isinstance(num_replicates, bool)
        or not isinstance(num_replicates, int)
        or num_replicates < 4
    ):
        raise ValueError(
            f"num_replicates must be an integer of at least 4, found {num_replicates!r}."
        )

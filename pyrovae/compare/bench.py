"""Each estimator run on the same programs, data and parameters: the rows of a comparison."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyro
import pyro.infer
import torch
from torch import Tensor

from pyrovae.compare.gradients import Replicates, replicate, squared_norm
from pyrovae.estimators import ELBO, IWAE, MIWAE, RWS, Estimator
from pyrovae.programs import Program

if TYPE_CHECKING:
    import xarray

REFERENCE_FACTOR = 8
"""Draws of a gradient's reference, in multiples of the estimator's own."""
MOST_EVALUATIONS = 50_000
"""Pairs of draw and datum in one run of the reference for the model's gradient, for the sake of
memory.
"""


class Bench:
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
        self.model_truth: Replicates | None = None
        self.test_bias = False

    def run(
        self, estimator: pyro.infer.ELBO, *, runs: int | None = None, offset: int = 0
    ) -> Replicates:
        # Every estimator sees the same seed; references, other ones, so that errors are
        # independent.
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
        """Replicates of a high-particle estimator with the expected gradient that this one means to
        have.
        """
        wide = _wide(estimator)
        if wide is None:
            return None
        key = repr(wide)
        if key not in self._targets:
            try:
                self._targets[key] = self.run(wide, offset=1)
            except ValueError:  # a discrete site, which the plain estimator has no gradient through
                self._targets[key] = None
        return self._targets[key]

    def find_model_truth(self, most_particles: int, nesting: int) -> None:
        """Estimate the gradient of log p(x), against which biases are tested from here on."""
        # Normalised weights leave a bias of order 1 / particles; the reference's error is part of
        # the test.
        many = max(64, min(most_particles, MOST_EVALUATIONS // len(self.data[0])))
        wide = RWS(many, max_plate_nesting=nesting)
        with pyro.validation_enabled(False):
            self.model_truth = self.run(wide, runs=max(4, min(20, self.runs // 5)), offset=2)
        self.test_bias = True

    def row(self, estimator: Any) -> dict[str, Any] | None:
        """Bound, cost, and for each group of parameters the gradient; None where there is no
        estimator.
        """
        if estimator is None:
            return None
        found = self.run(estimator)
        target = self.target(estimator) if self.test_bias else None
        row: dict[str, Any] = {
            "bound": found.bound.mean().item(),
            "bound_error": found.bound.std().item() / len(found.bound) ** 0.5,
            "draws": getattr(estimator, "num_draws", estimator.num_particles),
            "seconds": found.seconds,
            "decoder_evaluations": found.decodings,
        }
        for name, index in self.groups.items():
            blocks = [found.blocks[i] for i in index]
            variance = sum(found.variance[i].sum().item() for i in index)
            norm = max(squared_norm(blocks)[0], 0.0) ** 0.5
            cell = {
                "gradient_norm": norm,
                "gradient_variance": variance,
                "snr": norm / variance**0.5
                if variance > 0
                else (math.inf if norm > 0 else math.nan),
            }
            cell |= _bias("gradient_bias", blocks, target, index)
            cell |= _bias(
                "evidence_bias",
                blocks,
                self.model_truth if name.startswith("model") else None,
                index,
            )
            row[name] = cell
        return row


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


def as_dataset(
    tables: list[dict[str, Any]], names: list[str], groups: list[str], swept: Sequence[int] | None
) -> "xarray.Dataset":
    """The rows as a data set, over numbers of particles too where these were swept."""
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

"""What differs between models of different shapes: the data that their programs take, and what they draw for."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrovae.cli.options import chosen_shape
from pyrovae.data import Splits
from pyrovae.runs.run import Run, load_data

__all__ = ["Drawing", "arguments", "check_alike", "describe", "drawing", "is_conditional", "settle"]

_WIDEST = 20  # labels that a grid gives a column each


def is_conditional(vae: Any) -> bool:
    """Whether its programs take a condition y beside x."""
    return hasattr(vae, "condition_dim")


def arguments(vae: Any, splits: Splits, part: str) -> Tensor | tuple[Tensor, ...]:
    """What the programs take of a part of the data: x, or (x, y)."""
    return splits.labelled(part) if is_conditional(vae) else getattr(splits, part)


def settle(given: Any) -> Any:
    """The ``train`` command with the size of a condition, where that is left to the data."""
    shape = given.shape_options
    if getattr(shape, "condition_dim", 0) is not None:
        return given
    # Of all the data there are: a limited part may lack a label.
    every = dataclasses.replace(
        given, data_options=dataclasses.replace(given.data_options, limit=None)
    )
    size = load_data(dataclasses.replace(every, binarize="none")).condition_dim
    return dataclasses.replace(given, shape_options=dataclasses.replace(shape, condition_dim=size))


def describe(vae: Any, splits: Splits) -> dict[str, str]:
    """What a run must remember of its conditions to draw without the data."""
    if not is_conditional(vae):
        return {}
    return {
        "condition": "covariates" if splits.labelled("train")[1].is_floating_point() else "labels"
    }


def check_alike(paths: Sequence[Path]) -> None:
    """Raise a ValueError if some runs give log p(x | y) and others log p(x)."""
    takes = [
        any(a.name == "condition_dim" for a in chosen_shape(Run.open(path).given).entry.arguments)
        for path in paths
    ]
    if len(set(takes)) > 1:
        given, plain = paths[takes.index(True)], paths[takes.index(False)]
        raise ValueError(
            f"{given} gives log p(x | y), but {plain} log p(x): their difference is also what y tells of x. Compare "
            "runs that are given the same."
        )


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Draws from a model, and how to show them.

    Attributes:
        draw: Makes ``(num, *data_shape)``.
        columns: Of a grid.
        given: What they are draws for, to end a caption.
    """

    draw: Callable[[], Tensor]
    columns: int = 8
    given: str = ""


def drawing(
    vae: Any,
    num: int,
    *,
    mean: bool,
    condition: str | None,
    splits: Callable[[], Splits],
    label: tuple[int, ...] = (),
    covariates: tuple[float, ...] = (),
    cluster: int | None = None,
) -> Drawing:
    """How to draw from a model of any shape.

    Args:
        vae: The model.
        num: How many.
        mean: E[x | z] of each drawn z, not a draw of x.
        condition: ``"labels"`` or ``"covariates"`` of a conditional model.
        splits: Gives the data, where covariates are to be theirs.
        label, covariates, cluster: What to draw for, where it was said.

    Raises:
        ValueError: If the model has no such thing.
    """
    if num < 1:
        raise ValueError(f"--num must be at least 1, found {num}.")
    for name, value, takes in (
        ("label", label, condition == "labels"),
        ("covariates", covariates, condition == "covariates"),
        ("cluster", None if cluster is None else (cluster,), hasattr(vae, "num_clusters")),
    ):
        if value and not takes:
            kind = f" conditioned on {condition}" if condition else ""
            raise ValueError(
                f"--{name} does not go with this run's {type(vae).__name__}{kind}. Leave it out."
            )
    if cluster is not None:
        return Drawing(
            lambda: vae.sample(num, cluster=cluster, mean=mean), given=f", cluster {cluster}"
        )
    if not is_conditional(vae):
        return Drawing(lambda: vae.sample(num, mean=mean))
    if condition == "labels":
        cycle = torch.tensor(label or range(vae.condition_dim))
        y, columns = cycle.repeat(-(-num // len(cycle)))[:num], len(cycle)
        known = (
            f"label{'s' * (len(label) != 1)} {' '.join(map(str, label))}"
            if label
            else "each label in turn"
        )
        return Drawing(_for(vae, y, mean), columns if 1 < columns <= _WIDEST else 8, f", {known}")
    if covariates:
        if len(covariates) != vae.condition_dim:
            raise ValueError(
                f"--covariates must be {vae.condition_dim} numbers, found {len(covariates)}."
            )
        return Drawing(
            _for(vae, torch.tensor([covariates] * num), mean), given=", given covariates"
        )
    y = splits().labelled("test")[1]
    return Drawing(
        _for(vae, y[torch.arange(num) % len(y)], mean), given=", covariates of test data"
    )


def _for(vae: Any, y: Tensor, mean: bool) -> Callable[[], Tensor]:
    return lambda: vae.sample(y.to(next(vae.parameters()).device), mean=mean)

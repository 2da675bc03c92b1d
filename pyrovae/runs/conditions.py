"""What conditional and clustering models need beside x: data with labels, and draws for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.data import Splits

__all__ = ["Drawing", "arguments", "condition_of", "drawing", "is_conditional"]

_WIDEST = 20  # labels that get a column of the grid each


def is_conditional(vae: Any) -> bool:
    """Whether the programs take a condition y beside x."""
    return hasattr(vae, "condition_dim")


def arguments(vae: Any, splits: Splits, part: str) -> Tensor | tuple[Tensor, ...]:
    """What the programs take of a part of the data: x, or (x, y)."""
    return splits.labelled(part) if is_conditional(vae) else getattr(splits, part)


def condition_of(vae: Any, splits: Splits) -> dict[str, str]:
    """What a run must remember of its condition to draw without the data."""
    if not is_conditional(vae):
        return {}
    floating = splits.labelled("train")[1].is_floating_point()
    return {"condition": "covariates" if floating else "labels"}


@dataclass(frozen=True)
class Drawing:
    """Draws from a model, and how to show them.

    Attributes:
        draw: Makes ``(num, *data_shape)``.
        columns: Columns of a grid.
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
    label: Sequence[int] = (),
    covariates: Sequence[float] = (),
    cluster: int | None = None,
) -> Drawing:
    """How to draw from a model of any kind.

    Args:
        vae: The model.
        num: How many.
        mean: E[x | z] of each drawn z instead of a draw of x.
        condition: ``"labels"`` or ``"covariates"`` of a conditional model.
        splits: Gives the data, for the covariates of test data.
        label, covariates, cluster: What to draw for, where it was given.

    Raises:
        ValueError: If the model does not take one of them.
    """
    _check(vae, num, condition, label, covariates, cluster)
    if cluster is not None:
        return Drawing(
            lambda: vae.sample(num, cluster=cluster, mean=mean), given=f", cluster {cluster}"
        )
    if not is_conditional(vae):
        return Drawing(lambda: vae.sample(num, mean=mean))
    columns, given = 8, ", given covariates"
    if condition == "labels":
        cycle = torch.tensor(label or range(vae.condition_dim))
        y = cycle.repeat(-(-num // len(cycle)))[:num]
        columns = len(cycle) if 1 < len(cycle) <= _WIDEST else 8
        given = f", label{'s' * (len(label) != 1)} {' '.join(map(str, label))}"
        given = given if label else ", each label in turn"
    elif covariates:
        y = torch.tensor([list(covariates)] * num)
    else:
        y = splits().labelled("test")[1]
        y, given = y[torch.arange(num) % len(y)], ", covariates of test data"
    device = next(vae.parameters()).device
    return Drawing(lambda: vae.sample(y.to(device), mean=mean), columns, given)


def _check(
    vae: Any,
    num: int,
    condition: str | None,
    label: Sequence[int],
    covariates: Sequence[float],
    cluster: int | None,
) -> None:
    if num < 1:
        raise ValueError(f"--num must be at least 1, found {num}.")
    for name, is_given, takes in (
        ("label", bool(label), condition == "labels"),
        ("covariates", bool(covariates), condition == "covariates"),
        ("cluster", cluster is not None, hasattr(vae, "num_clusters")),
    ):
        if is_given and not takes:
            kind = f" conditioned on {condition}" if condition else ""
            raise ValueError(
                f"--{name} does not go with this run's {type(vae).__name__}{kind}. Leave it out."
            )
    if covariates and len(covariates) != vae.condition_dim:
        raise ValueError(
            f"--covariates must be {vae.condition_dim} numbers, found {len(covariates)}."
        )

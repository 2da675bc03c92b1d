"""The axes of a sweep: options with their values, and how the values are named."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pyrovae.runs.declared import CLASSES

__all__ = ["Axis", "Range", "examples", "in_words", "nested", "short", "values_of"]


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, on a logarithmic scale or in steps, for a sampler."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: Any, option: str) -> None:
        """Let the sampler of an Optuna trial choose a number: an integer where both ends are."""
        if all(isinstance(end, int) for end in (self.low, self.high)):
            step = 1 if self.step is None else int(self.step)
            trial.suggest_int(option, int(self.low), int(self.high), log=self.log, step=step)
        else:
            trial.suggest_float(option, self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True)
class Axis:
    """An option with its values, or a range of them."""

    option: str
    values: tuple[Any, ...] | Range

    @property
    def names(self) -> list[Any]:
        """What the study calls the values: numbers, words and None are themselves."""
        assert isinstance(self.values, tuple)
        return [short(value) for value in self.values]

    def value(self, name: Any) -> Any:
        """The value of a name."""
        if isinstance(self.values, Range):
            return name
        return self.values[self.names.index(name)]

    def suggest(self, trial: Any) -> None:
        """Let the sampler of an Optuna trial choose."""
        if isinstance(self.values, Range):
            self.values.suggest(trial, self.option)
        else:
            trial.suggest_categorical(self.option, self.names)


def values_of(option: str, value: Any) -> tuple[Any, ...] | Range | None:
    """The values of an axis; None if the option is fixed."""
    parts = {f.name for f in fields(Range)}
    if isinstance(value, Mapping) and {"low", "high"} <= set(value) <= parts:
        if not value["low"] < value["high"]:
            raise ValueError(f"{option}: low must be less than high, found {value}.")
        return Range(**value)
    if not isinstance(value, list):
        return None
    if not value:
        raise ValueError(f"{option} has no value. Give at least one, or leave it out.")
    names = [short(one) for one in value]
    if len(set(map(repr, names))) < len(names):
        raise ValueError(f"{option} has a value twice: {', '.join(map(str, names))}.")
    return tuple(value)


def examples(axis: Axis) -> list[Any]:
    """Names to try: all, or the ends of a range."""
    if isinstance(axis.values, Range):
        return [axis.values.low, axis.values.high]
    return axis.names


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with dots, as ``prior.num_components``, put into the class that they belong to.

    Raises:
        ValueError: If the option before the dot declares no class.
    """
    found = {name: value for name, value in options.items() if "." not in name}
    for name, value in options.items():
        if "." not in name:
            continue
        first, *rest = name.split(".")
        if first not in CLASSES or first not in found:
            raise ValueError(f"{name} belongs to a class: give {first}, too.")
        found[first] = _with(found[first], rest, value, name)
    return found


def _with(declared: Any, path: list[str], value: Any, name: str) -> Any:
    if isinstance(declared, str):
        declared = {"class_path": declared}
    if not isinstance(declared, Mapping) or "class_path" not in declared:
        raise ValueError(f"{name} belongs to a class, and {declared!r} is none.")
    arguments = dict(declared.get("init_args") or {})
    first, *rest = path
    arguments[first] = _with(arguments.get(first), rest, value, name) if rest else value
    return {**declared, "init_args": arguments}


def short(value: Any) -> Any:
    """A value as the study names it: a class with its arguments is written as in Python."""
    if isinstance(value, Mapping) and "class_path" in value:
        given = value.get("init_args") or {}
        arguments = ", ".join(f"{key}={short(item)}" for key, item in given.items())
        name = str(value["class_path"]).rpartition(".")[2].rpartition(":")[2]
        return f"{name}({arguments})" if arguments else name
    if isinstance(value, str) and ".py:" in value:
        return value.rpartition(":")[2]
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith("pyrovae.") else value
    if value is None or isinstance(value, bool | int | float):
        return value
    return json.dumps(value)


def in_words(values: Mapping[str, Any]) -> str:
    """The values of a run, by option."""
    return ", ".join(f"{option}={value}" for option, value in values.items())

"""What a sweep declares: options that are fixed, and axes of options that are varied."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from pyrovae.runs.config import Config, check_options
from pyrovae.runs.messages import nearest
from pyrovae.runs.own_classes import file_and_name
from pyrovae.runs.sweeps.axes import Axis, Range, examples, nested, values_of

__all__ = ["Declaration"]

Values = dict[str, Any]
"""A value for each axis."""

_FIELDS = [f.name for f in fields(Config)]
_OWN = {"config", "sampler", "pruner", "trials", "seed"}


@dataclass(frozen=True)
class Declaration:
    """A sweep: the base configuration, its axes, its training seeds, and how they are gone through.

    Args:
        fixed: Options that every run has.
        axes: Options that differ.
        seeds: Training seeds of each combination.
        sampler, pruner: Classes of Optuna's with arguments; a grid without a sampler.
        trials: How many combinations a sampler draws.
        given: The mapping that all of this was read from, with absolute paths.
    """

    fixed: dict[str, Any]
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...] = (0,)
    sampler: Any = None
    pruner: Any = None
    trials: int | None = None
    given: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | PathLike, *, trust: bool = False) -> "Declaration":
        """The sweep that a YAML file declares.

        Args:
            path: The file.
            trust: Whether it, and the configuration that it starts from, may name classes that are
                not pyrovae's own.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it declares no sweep, or names such classes without ``trust``.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no sweep at {path}.")
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
            if not trust:
                check_options(given, path)
            return cls.of(given, path.parent, trust=trust)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def of(cls, given: Any, folder: Path | None = None, *, trust: bool = False) -> "Declaration":
        """The sweep that a mapping declares; files in it are relative to ``folder``. ``trust`` is
        that of the configuration that it starts from.

        Raises:
            ValueError: If an option is unknown or has the wrong form.
        """
        if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
            raise ValueError(
                "A sweep is a mapping of options, such as {prior: [StandardNormal, Vamp], "
                f"seed: 3}}, found {given!r:.60}."
            )
        plain = json.loads(json.dumps(dict(given), default=str))
        given = _absolute(plain, (folder or Path()).resolve())
        if given.get("config") is not None:
            given["config"] = str((folder or Path()).resolve() / given["config"])
        kept = dict(given)
        for name in given:
            if name not in _OWN and name.partition(".")[0] not in _FIELDS:
                raise ValueError(f"There is no option {name!r}.{nearest(name, [*_FIELDS, *_OWN])}")
        fixed, axes = _base(given.pop("config", None), trust), []
        seeds = _seeds(given.pop("seed", None))
        own = {name: given.pop(name, None) for name in ("sampler", "pruner", "trials")}
        for option, value in given.items():
            values = values_of(option, value)
            if values is None:
                fixed[option] = value
            else:
                fixed.pop(option, None)
                axes.append(Axis(option, values))
        made = cls(fixed, tuple(axes), seeds, given=kept, **own)
        made._check_search()
        return made

    def _check_search(self) -> None:
        ranges = [axis.option for axis in self.axes if isinstance(axis.values, Range)]
        if self.sampler is None and ranges:
            raise ValueError(
                f"{ranges[0]} is a range, which no grid goes through. Give a list of values, or a "
                "sampler such as TPESampler."
            )
        if (self.trials is None) != (self.sampler is None):
            raise ValueError(
                "A sampler needs trials, the number of combinations to draw."
                if self.trials is None
                else "trials is for a sampler: a grid has every combination once. Leave it out, or "
                "give a sampler such as TPESampler."
            )
        if self.trials is not None and not (isinstance(self.trials, int) and self.trials > 0):
            raise ValueError(f"trials must be a positive integer, found {self.trials!r}.")
        if self.sampler is None and self.pruner is None:
            return
        for axis in self.axes:
            if axis.option.partition(".")[0] in _INCOMPARABLE:
                who = "A sampler" if self.sampler is not None else "A pruner"
                raise ValueError(
                    f"{who} compares validation bounds, and those of runs with another "
                    f"{axis.option} mean something else. Take the whole grid, without a pruner."
                )

    def grid(self) -> list[Values]:
        """Every combination once, in the order of the file; the last axis changes fastest."""
        options = [axis.option for axis in self.axes]
        names = [axis.names for axis in self.axes]
        return [dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*names)]

    def config(self, values: Values, seed: int) -> Config:
        """The configuration of one run.

        Raises:
            ValueError: If the parts do not go together.
        """
        by_option = {axis.option: axis for axis in self.axes}
        chosen = {option: by_option[option].value(name) for option, name in values.items()}
        return Config(**nested({**self.fixed, **chosen, "seed": seed}))

    def check(self) -> Config:
        """A configuration that can be made; every value must take part in one.

        Raises:
            ValueError: If a value is refused whatever else is chosen.
        """
        if not self.axes:
            return self.config({}, self.seeds[0])
        found = [self._first_with(axis, name) for axis in self.axes for name in examples(axis)]
        return found[0]

    def _first_with(self, axis: Axis, name: Any) -> Config:
        others = [other for other in self.axes if other is not axis]
        refusals = []
        for rest in itertools.product(*map(examples, others)):
            beside = {other.option: value for other, value in zip(others, rest, strict=True)}
            try:
                return self.config({axis.option: name, **beside}, self.seeds[0])
            except ValueError as error:
                refusals.append(error)
        raise refusals[0]

    def epochs(self, values: Values) -> int | None:
        """How many epochs a run has at most, as declared; None where the default holds."""
        return values.get("epochs", self.fixed.get("epochs"))


_INCOMPARABLE = {"estimator", "binarize", "dequantize", "limit", "valid_size"} | {
    name for name in _FIELDS if name == "data" or name.startswith("data_")
}


def _absolute(value: Any, folder: Path) -> Any:
    """A value in which classes in files have the whole path of the file."""
    if isinstance(value, dict):
        return {key: _absolute(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    if isinstance(value, str) and (found := file_and_name(value)):
        return f"{folder / Path(found[0]).expanduser()}:{found[1]}"
    return value


def _base(config: str | None, trust: bool) -> dict[str, Any]:
    """The options of a run's configuration that a sweep starts from."""
    if config is None:
        return {}
    Config.load(config, trust=trust)  # says in one line what is wrong with it
    text = Path(config).read_text(encoding="utf-8-sig")
    base = _absolute(yaml.safe_load(text), Path(config).parent)
    return {name: value for name, value in base.items() if name != "seed"}


def _seeds(given: Any) -> tuple[int, ...]:
    """``5`` means 0 to 4, a list is itself."""
    if given is None:
        return (0,)
    seeds = list(range(given)) if isinstance(given, int) and given > 0 else given
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(isinstance(s, int) and s >= 0 for s in seeds)
    ):
        raise ValueError(f"seed is a number of training seeds, or a list of them, found {given!r}.")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seed names a training seed twice: {given}.")
    return tuple(seeds)

"""From the words of a command to its function and arguments."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from pyrovae import runs
from pyrovae.cli import COMMANDS, UsageError, commands
from pyrovae.estimators import Estimator
from pyrovae.runs import Config
from pyrovae.runs.declared import CLASSES, add_arguments, instantiate, with_widths
from pyrovae.runs.messages import one_line
from pyrovae.runs.own_classes import MODE, imported

__all__ = ["parse"]

_OF_TRAIN = {
    "config": "A YAML file such as RUN/config.yaml; options on the command line win over it.",
    "out": "The folder to write to, new or empty; default runs/DATA-1, -2, ...",
    "resume": "The folder of an interrupted run to go on with, by its own configuration.",
}
_SWITCHES = {
    "print_config": "Print the configuration as YAML instead of training.",
    "trust": "Let --config and --resume use classes that are not pyrovae's own, which runs code.",
    "verbose": "Print a line for each epoch.",
    "tensorboard": "Write each epoch for TensorBoard, to RUN/tensorboard.",
}


def parse(name: str, words: list[str]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that the words ask for, and its arguments.

    Raises:
        UsageError: If the words are not options of the command.
        SystemExit: After ``--help`` and ``--print_config``.
    """
    try:
        if name == "train":
            return _train(words)
        function = getattr(commands, name)
        given = _parse(name, words, lambda parser: add_arguments(parser, function))
    except (ArgumentError, argparse.ArgumentError, FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    return function, {key: instantiate(value) for key, value in vars(given).items()}


def _train(words: list[str]) -> tuple[Callable[..., Any], dict[str, Any]]:
    # The configuration first: it says which classes the options of other words belong to.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in _OF_TRAIN:
        first.add_argument(f"--{option}", type=Path)
    for option in _SWITCHES:
        first.add_argument(f"--{option}", action="store_true")
    ahead, rest = first.parse_known_args(words)
    if ahead.resume is not None:
        others = [f"--{key}" for key in ("config", "out") if getattr(ahead, key)]
        others += [word for word in rest if word.startswith("--") and word != "--help"]
        if others:
            raise UsageError(
                f"--resume goes on with the run's own configuration: leave out {', '.join(others)}."
            )
    base = Config() if ahead.config is None else Config.load(ahead.config, trust=ahead.trust)

    def add(parser: ArgumentParser) -> None:
        for option, about in _OF_TRAIN.items():
            parser.add_argument(f"--{option}", type=Path, help=about)
        for option, about in _SWITCHES.items():
            parser.add_argument(f"--{option}", action="store_true", help=about)
        add_arguments(parser, Config, CLASSES, {k: with_widths(v) for k, v in vars(base).items()})

    given = _parse("train", rest, add)
    watched = {name: getattr(ahead, name) for name in ("verbose", "tensorboard")}
    if ahead.resume is not None:
        return runs.resume, {"path": ahead.resume, "trust": ahead.trust, **watched}
    config = Config(**{field.name: given[field.name] for field in fields(Config)})
    if ahead.print_config:
        print(config, end="")
        raise SystemExit(0)
    return runs.train, {"config": config, "path": ahead.out, **watched}


def _parse(name: str, words: list[str], add: Callable[[ArgumentParser], None]) -> Namespace:
    """What the words give beside the defaults.

    Where another class is chosen than the default one, jsonargparse hands on the values of the
    old class that the new one takes, defaults included. Python does not: so the words are read once
    to find the classes, and once more with these and their own defaults to begin with.
    """
    parser = ArgumentParser(
        prog=f"pyrovae {name}", description=COMMANDS[name], exit_on_error=False, parser_mode=MODE
    )
    add(parser)
    pairs = zip(["", *words], words, strict=False)
    words = [imported(word) if before.endswith(".help") else word for before, word in pairs]
    try:
        found = parser.parse_args(words).as_dict()
        chosen = {key: value for key, value in found.items() if _is_class(value)}
        before = {key: with_widths(parser.get_default(key)) for key in chosen}
        parser.set_defaults({key: _classes_of(chosen[key], before[key]) for key in chosen})
        return parser.parse_args(words)
    except ArgumentError as error:
        options = [action.dest for action in parser._actions]
        kinds = {**CLASSES, "names": Estimator}
        raise UsageError(one_line(error, kinds, options)) from error


def _is_class(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def _classes_of(found: dict[str, Any], before: Any) -> dict[str, Any]:
    """The classes that were found, with the arguments that they had before if they are the same."""
    same = _is_class(before) and before["class_path"] == found["class_path"]
    init_args = dict(before.get("init_args") or {}) if same else {}
    for name, value in (found.get("init_args") or {}).items():
        if _is_class(value):
            init_args[name] = _classes_of(value, init_args.get(name))
    return with_widths({"class_path": found["class_path"], "init_args": init_args})

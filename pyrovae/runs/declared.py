"""Classes that are declared by name, with arguments: as options, and as objects."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

# Imported for their classes: a name stands for a class that is loaded.
from pyrovae import evidence, likelihoods, models, posteriors, priors  # noqa: F401
from pyrovae.data.tables import SUFFIXES
from pyrovae.declare import Declared
from pyrovae.estimators import Estimator
from pyrovae.evidence.methods.base import Method
from pyrovae.likelihoods import Columns, Likelihood
from pyrovae.models.base import Model
from pyrovae.models.declaration import as_plain
from pyrovae.nets import Recipe
from pyrovae.posteriors import Posterior
from pyrovae.priors import Prior
from pyrovae.schedules import Schedule

__all__ = [
    "CLASSES",
    "PARTS",
    "add_arguments",
    "arguments_of",
    "class_of",
    "instantiate",
    "reads_table",
    "without_object",
    "with_widths",
]

CLASSES = {
    "model": Model,
    "prior": Prior | Posterior | None,
    "likelihood": Likelihood | None,
    "posterior": Posterior | None,
    "encoder": Recipe | None,
    "decoder": Recipe | None,
    "estimator": Estimator,
    "beta": float | Schedule,
    "method": Method,
}
"""The base classes of the fields of :class:`Config` that declare a class."""

PARTS = ("prior", "likelihood", "posterior", "encoder", "decoder")
SIZES = {"data_shape", "latent_dim", "latent_dims", "condition_dim"}

_WIDTHS = {
    "pyrovae.nets.MLP": {"hidden": [300, 300]},
    "pyrovae.nets.GatedMLP": {"hidden": [300, 300]},
    "pyrovae.nets.Conv": {"channels": [32, 64]},
    "pyrovae.nets.Residual": {"channels": [32, 64]},
}


def without_object(value: Any, name: str) -> Any:
    """An object, such as ``priors.Vamp(50)``, as the mapping that declares it; anything else as it
    is.

    Raises:
        TypeError: If an argument of the object cannot be written to a file.
    """
    return _joined(as_plain(value, name)) if isinstance(value, Declared) else value


def _joined(value: Any) -> Any:
    """With further positional values in one list with the first, ``MLP([300, 100])``, since options
    have names.
    """
    if isinstance(value, list):
        return [_joined(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _joined(item) for key, item in value.items()}
    if "class_path" in found:
        parameters = inspect.signature(class_of(Namespace(found))).parameters
        given = found["init_args"]
        further = [n for n, p in parameters.items() if p.kind is p.VAR_POSITIONAL and n in given]
        for name in further:
            first = next(iter(parameters))
            given[first] = [given[first], *given.pop(name)]
    return found


def class_of(declared: Namespace) -> type:
    """The class that a ``class_path`` names."""
    module, _, name = declared.class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def reads_table(likelihood: Namespace | None, data: str) -> bool:
    """Whether the data are a table whose cells a likelihood turns into numbers."""
    columns = likelihood is not None and class_of(likelihood) is Columns
    return columns and Path(data).suffix.lower() in SUFFIXES


def instantiate(value: Any) -> Any:
    """A new object for each class with arguments, at any depth; all else as it is.

    Errors are those of the classes themselves.
    """
    if isinstance(value, list):
        return [instantiate(item) for item in value]
    if isinstance(value, dict):
        return {key: instantiate(item) for key, item in value.items()}
    if not isinstance(value, Namespace) or "class_path" not in value:
        return value
    return class_of(value)(**arguments_of(value))


def arguments_of(declared: Namespace) -> dict[str, Any]:
    """The arguments of a class, with new objects among them."""
    given = dict(declared.get("init_args", Namespace()).items(branches=True, nested=False))
    taken = inspect.signature(class_of(declared)).parameters
    for name, value in given.items():
        if isinstance(value, list) and name in taken and isinstance(taken[name].default, tuple):
            given[name] = tuple(value)  # YAML has no tuples
    given |= declared.get("dict_kwargs", {})
    return {name: instantiate(value) for name, value in given.items()}


def with_widths(value: Any) -> Any:
    """The same as plain dictionaries, with the usual widths of networks that are given none."""
    value = value.as_dict() if isinstance(value, Namespace) else value
    if not isinstance(value, dict) or "class_path" not in value:
        return value
    given = {name: with_widths(item) for name, item in (value.get("init_args") or {}).items()}
    return {**value, "init_args": {**_WIDTHS.get(value["class_path"], {}), **given}}


def add_arguments(
    parser: ArgumentParser,
    function: Callable,
    classes: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """An option for each parameter of a function or class, with the help of its docstring.

    Parameters without a default are positional, lists take several words, and booleans are
    ``--name`` or ``--no_name``. ``classes`` are types in place of the annotations.
    """
    from docstring_parser import parse

    helps = {p.arg_name: p.description for p in parse(inspect.getdoc(function) or "").params}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = (classes or {}).get(name, parameter.annotation)
        default = parameter.default
        if defaults is not None:
            default = defaults.get(name)
        options: dict[str, Any] = {"help": helps.get(name)}
        if get_origin(kind) is list:
            kind = get_args(kind)[0]
            options["nargs"] = "+"
        if default is parameter.empty:
            parser.add_argument(name, type=kind, **options)
        else:
            _add_option(parser, name, kind, default=default, **options)


def _add_option(parser: ArgumentParser, name: str, kind: Any, **options: Any) -> None:
    if kind is bool:
        parser.add_argument(f"--{name}", action=ActionYesNo, **options)
    elif kind is Model:  # sizes and parts are options of their own
        skip = {*SIZES, *PARTS}
        parser.add_subclass_arguments(Model, name, skip=skip, **options)
    else:
        parser.add_argument(f"--{name}", type=kind, **options)

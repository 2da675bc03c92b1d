"""What declared objects share: how they print, and what counts as a count among their arguments."""

import html
import inspect
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

__all__ = ["Declared", "html_table", "is_count", "is_loaded", "number", "plain", "with_minus"]

WIDTH = 100


def is_count(value: Any, least: int = 1) -> bool:
    """Whether a value is an integer, Python's or NumPy's, of at least ``least``. True and False are
    none.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(value >= least)


def number(value: float, places: int = 3) -> str:
    """A number as figures and pages show it.

    >>> number(-17.1951)
    '\N{MINUS SIGN}17.195'
    """
    return with_minus(f"{value:.{places}f}")


def with_minus(text: str) -> str:
    """Numbers in a text, with the sign of print in place of the hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def is_loaded(path: str, bases: type | tuple[type, ...]) -> bool:
    """Whether ``module.Class`` names a subclass of ``bases`` that this process has loaded: to use
    it runs no new code, so it needs no trust.
    """
    module, _, name = path.rpartition(".")
    known = getattr(sys.modules.get(module), name, None)
    return isinstance(known, type) and issubclass(known, bases)


def plain(value: Any) -> Any:
    """Numbers of NumPy as Python's, within tuples and lists too; anything else as it is.

    >>> import numpy as np
    >>> plain([np.int64(2), "mean", (np.float32(0.5),)])
    [2, 'mean', (0.5,)]
    """
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (tuple, list):
        return type(value)(plain(item) for item in value)
    return value


class _ConstructorSignature:
    """The signature of a class is that of its ``__init__``; that of an instance is of its call."""

    def __get__(self, instance: Any, owner: Any) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        parameters = list(inspect.signature(owner.__init__).parameters.values())[1:]
        kinds = {parameter.kind for parameter in parameters}
        if kinds == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
            parameters = []  # inherited from object or torch.nn.Module, which take nothing
        return inspect.Signature(parameters)


class Declared:
    """Mixin: remember the constructor's arguments, and print them.

    ``repr`` names the class and the arguments that differ from their defaults. Variadic arguments
    are printed by position, and a constructor such as ``Name(first, *more)`` that also takes one
    sequence in their place prints the same either way. Copies and unpickled objects print as the
    original does. Put the mixin before other base classes.

    Example:
        >>> class Circle(Declared):
        ...     def __init__(self, radius: float = 1.0, colour: str = "blue"):
        ...         self.radius = radius
        >>> Circle(2.0)
        Circle(radius=2.0)
        >>> Circle(2.0).redeclare(colour="red")
        Circle(radius=2.0, colour='red')

    Raises:
        TypeError: If the constructor does not take the arguments.
    """

    __signature__ = _ConstructorSignature()
    _declaration: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        instance = super().__new__(cls)
        arguments: dict[str, Any] = {}
        # copy and pickle make objects without arguments, and set the state, declaration included.
        if args or kwargs:
            try:
                arguments = inspect.signature(cls).bind(*args, **kwargs).arguments
            except TypeError as error:
                raise TypeError(
                    f"{cls.__name__}: {error}. Its arguments are {_names(cls)}."
                ) from None
        known = {name: plain(value) for name, value in arguments.items()}
        object.__setattr__(instance, "_declaration", known)
        return instance

    @property
    def declaration(self) -> dict[str, Any]:
        """The arguments that were given, by name; a variadic one holds a tuple."""
        return dict(self._declaration)

    def redeclare(self, **changes: Any) -> Self:
        """A new object, declared as this one but for ``changes``."""
        signature = inspect.signature(type(self))
        unknown = set(changes) - set(signature.parameters)
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no argument {', '.join(sorted(unknown))}. "
                f"Its arguments are {_names(type(self))}."
            )
        arguments: Any = {**self.declaration, **changes}
        bound = inspect.BoundArguments(signature, arguments)
        return type(self)(*bound.args, **bound.kwargs)

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self)).parameters
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
        arguments: list[str] = []
        for name, value in self.declaration.items():
            parameter = parameters[name]
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments += [f"{key}={_text(item)}" for key, item in value.items()]
            elif parameter.kind is not parameter.KEYWORD_ONLY and variadic:
                arguments += map(_text, value if isinstance(value, list | tuple) else [value])
            elif not _equal(value, parameter.default):
                arguments.append(f"{name}={_text(value)}")
        line = f"{type(self).__name__}({', '.join(arguments)})"
        if len(line) <= WIDTH and "\n" not in line:
            return line
        lines = textwrap.indent(",\n".join(arguments), "    ")
        return f"{type(self).__name__}(\n{lines},\n)"


def _names(cls: type) -> str:
    return ", ".join(inspect.signature(cls).parameters) or "none"


def _equal(left: Any, right: Any) -> bool:
    """Whether two values are the same to a reader: a list from a file stands for a tuple."""
    if isinstance(left, list) and isinstance(right, tuple):
        left = tuple(left)
    if left is right or type(left) is not type(right):
        return left is right
    try:
        return bool(left == right)
    except (RuntimeError, ValueError):  # tensors and arrays compare element by element
        return False


def _text(value: Any) -> str:
    if isinstance(value, dict):
        lines = "".join(f"{key!r}: {_text(item)},\n" for key, item in value.items())
        declared = any(isinstance(item, Declared) for item in value.values())
        return "{\n" + textwrap.indent(lines, "    ") + "}" if declared else repr(value)
    if hasattr(value, "shape") and hasattr(value, "item"):  # tensors and arrays
        kind, shape = type(value).__name__.lower(), tuple(value.shape)
        return f"<{kind} {shape}>" if any(size != 1 for size in shape) else repr(value.item())
    text = repr(value)
    if "\n" in text and not isinstance(value, Declared):
        return f"{type(value).__name__}(...)"  # such as a network of many layers
    return text


def html_table(caption: str, rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """A table as a notebook shows it. Texts of several lines keep them.

    Columns under a ``head`` stand to the right, but for the first, as numbers do. A table of names
    and values, without a head, stands to the left.

    Example:
        >>> html_table("VAE", [("latent_dim", 2)]).count("text-align: left")
        3
    """

    def line(cells: Sequence[Any], tag: str = "td") -> str:
        sides = ["left", *["right" if head else "left"] * (len(cells) - 1)]
        return f"<tr>{''.join(map(cell, cells, sides, [tag] * len(cells)))}</tr>"

    def cell(value: Any, side: str, tag: str) -> str:
        text = html.escape(str(value))
        text = f'<pre style="margin: 0">{text}</pre>' if "\n" in text else text
        return f'<{tag} style="text-align: {side}; padding: 0.15em 0.6em">{text}</{tag}>'

    title = f'<caption style="text-align: left">{html.escape(caption)}</caption>'
    lines = [line(head, "th")] if head else []
    return f"<table>{title}{''.join([*lines, *map(line, rows)])}</table>"

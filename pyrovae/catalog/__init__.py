"""The parts there are, read from their source code.

The command line must name every part and its arguments without importing torch. So this module follows the
``__all__`` of :mod:`pyrovae.priors`, :mod:`pyrovae.likelihoods`, ... through the syntax trees, and reads each
class's arguments from its ``__init__`` and its docstring. There is no list of parts to keep: a new class that
its package exports is found. The class itself is imported when it is built. An argument that is itself a part,
by its annotation, is one that text can choose, too.
"""

import ast
import difflib
import functools
import operator
import re
import types
from dataclasses import dataclass, replace
from typing import Any, Literal, Optional, Union

from pyrovae.catalog.source import (
    SourceClass,
    dotted,
    exports,
    find_class,
    import_module,
    path_of,
    resolve,
)

__all__ = ["KINDS", "Argument", "Entry", "Kind", "alternatives", "choices", "everything", "find"]

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""Default of an argument that has none."""


@dataclass(frozen=True)
class Kind:
    """A family of parts.

    Attributes:
        module: The module that exports them.
        base: The class they descend from.
        default: Name of the usual one.
        more: Further modules that export some.
        suffix: What names on the command line leave out.
    """

    module: str
    base: str
    default: str
    more: tuple[str, ...] = ()
    suffix: str = ""


KINDS = {
    "shape": Kind("pyrovae.models", "Model", "vae", suffix="VAE"),
    "prior": Kind("pyrovae.priors", "Prior", "standard-normal"),
    "likelihood": Kind("pyrovae.likelihoods", "Likelihood", "bernoulli"),
    "posterior": Kind("pyrovae.posteriors", "Posterior", "diagonal-normal"),
    "encoder": Kind("pyrovae.nets", "Recipe", "mlp"),
    "decoder": Kind("pyrovae.nets", "Recipe", "mlp"),
    "estimator": Kind("pyrovae.estimators", "Estimator", "elbo"),
    "beta": Kind("pyrovae.schedules", "Schedule", "constant"),
    "method": Kind("pyrovae.evidence", "Method", "importance-sampling"),
}


@dataclass(frozen=True)
class Argument:
    """An argument of a part that can be written as text.

    Attributes:
        name: As in Python.
        type: A plain type: int, float, str, bool, None, and unions, tuples and literals of them.
        default: :data:`REQUIRED` where there is none.
        help: From the docstring.
        variadic: Whether it is ``*name``.
        kinds: Families of :data:`KINDS` whose parts it takes; those of the first go by their names alone, those of
            others by such as ``posteriors.diagonal-normal``. Then ``type`` is what it takes besides, if anything.
    """

    name: str
    type: Any
    default: Any
    help: str
    variadic: bool = False
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A part: where its class is, and what it takes.

    Attributes:
        name: On the command line, such as ``"full-rank-normal"``, or ``"module:Class"``.
        module: Name of the module that defines or exports the class, or a path to a file.
        qualname: The class.
        summary: First sentence of its docstring.
        arguments: Those that can be written as text.
        unwritable: Names of arguments without a default that cannot.
        references: What the docstring says under ``References``.
    """

    name: str
    module: str
    qualname: str
    summary: str
    arguments: tuple[Argument, ...]
    unwritable: tuple[str, ...] = ()
    references: str = ""

    def build(self, **values: Any) -> Any:
        """Import the class and call it.

        Raises:
            ValueError: If an argument can only be given in Python.
        """
        if self.unwritable:
            raise ValueError(
                f"{self.qualname} takes {', '.join(self.unwritable)}, which only Python can give."
            )
        cls = getattr(import_module(self.module), self.qualname)
        rest = [v for a in self.arguments if a.variadic for v in values.pop(a.name, ())]
        return cls(*rest, **values)


def choices(kind: str) -> dict[str, Entry]:
    """The parts of one of :data:`KINDS` that text can declare, by their names on the command line.

    Parts that need an argument which no text can express, such as another part, are left to Python.
    """
    return {name: entry for name, entry in everything(kind).items() if not entry.unwritable}


@functools.cache
def everything(kind: str) -> dict[str, Entry]:
    """All parts of one of :data:`KINDS`, in the order of the package."""
    spec = KINDS[kind]
    found = {}
    for module in (spec.module, *spec.more):
        for exported in exports(module):
            cls = find_class(module, exported)
            if (
                cls is None
                or exported == spec.base
                or not cls.descends(spec.base)
                or cls.is_abstract()
            ):
                continue
            name = kebab(exported.removesuffix(spec.suffix) or exported)
            found[name] = _entry(name, module, exported, cls)
    return found


def alternatives(kinds: tuple[str, ...]) -> dict[str, Entry]:
    """What an argument of these :attr:`Argument.kinds` takes, by name."""
    found = dict(choices(kinds[0]))
    for kind in kinds[1:]:
        family = KINDS[kind].module.rpartition(".")[2]
        for name, entry in choices(kind).items():
            found[f"{family}.{name}"] = replace(entry, name=f"{family}.{name}")
    return found


def find(kind: str | tuple[str, ...], name: str, role: str = "") -> Entry:
    """The part of that name; case, hyphens and underscores do not matter.

    ``module:Class`` and ``path/to/file.py:Class`` are a user's own.

    Args:
        kind: One of :data:`KINDS`, or the :attr:`Argument.kinds` of an argument.
        name: What was asked for; the class's own name will do.
        role: What to call it in errors; default the first kind.

    Raises:
        ValueError: If there is none; the message names the choices.
    """
    kinds = (kind,) if isinstance(kind, str) else kind
    kind = role or kinds[0]
    if ":" in name:
        return _users(kind, name)
    known = alternatives(kinds)
    for key, entry in known.items():
        if _plain(name) in (_plain(key), entry.qualname.lower()):
            return entry
    close = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(
        f"Unknown {kind} {name!r}. Choose one of {', '.join(known)}, or module:Class of your own.{hint}"
    )


def kebab(name: str) -> str:
    """``GaussianMixture`` to ``gaussian-mixture``, ``AnalyticKL`` to ``analytic-kl``, ``DReG`` to ``dreg``."""
    return re.sub(r"(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", "-", name).lower()


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name).lower()


def _users(kind: str, name: str) -> Entry:
    module, _, qualname = name.rpartition(":")
    path = path_of(module)
    if path is None:
        raise ValueError(
            f"Cannot find {module!r} of {kind} {name!r}: no such module on the path, no such file."
        )
    cls = resolve(module, path, qualname)
    if cls is not None:
        return _entry(name, module, qualname, cls)
    raise ValueError(f"{path} defines no class {qualname!r}, asked for as {kind} {name!r}.")


# Reading classes.


def _entry(name: str, module: str, qualname: str, cls: SourceClass) -> Entry:
    function = cls.init()
    docs = cls.docs()
    arguments, unwritable = _arguments(function, docs) if function else ((), ())
    summary = " ".join(docs[0].split("\n\n")[0].split()) if docs else ""
    references = re.search(
        r"^References:\n((?:[ ]{4}.*\n|\n)+)", (docs[0] if docs else "") + "\n", re.MULTILINE
    )
    cited = " ".join(references[1].split()) if references else ""
    return Entry(name, module, qualname, _plain_text(summary), arguments, unwritable, cited)


def _arguments(
    function: ast.FunctionDef, docs: list[str]
) -> tuple[tuple[Argument, ...], tuple[str, ...]]:
    spec, found, unwritable = function.args, [], []
    positional = [*spec.posonlyargs, *spec.args][1:]
    missing: list[Any] = [None] * (len(positional) - len(spec.defaults))
    pairs = [*zip(positional, [*missing, *spec.defaults], strict=True)]
    pairs += zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    if spec.vararg is not None and spec.vararg.arg != "more":
        inner = _type(spec.vararg.annotation)
        if inner is not None:
            help_ = _help(spec.vararg.arg, docs)
            found.append(Argument(spec.vararg.arg, tuple[inner, ...], (), help_, variadic=True))
    for argument, default in pairs:
        value = REQUIRED if default is None else _literal(default)
        kind, kinds = _type(argument.annotation), _kinds(argument.annotation)
        if argument.annotation is None and value not in (REQUIRED, None):
            kind = type(value)
        if kinds:
            # Of a default that is an expression Python knows more than this module: None leaves it to Python.
            value = None if value is NotImplemented else value
            kind = None if kind is types.NoneType else kind
            found.append(
                Argument(argument.arg, kind, value, _help(argument.arg, docs), kinds=kinds)
            )
            continue
        if kind in (None, types.NoneType) or value is NotImplemented:
            if value is REQUIRED:
                unwritable.append(argument.arg)
            continue
        found.append(Argument(argument.arg, kind, value, _help(argument.arg, docs)))
    return tuple(found), tuple(unwritable)


_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            sides = _literal(node.left), _literal(node.right)
            if all(isinstance(side, int | float) for side in sides):
                return _ARITHMETIC[type(node.op)](*sides)
        return NotImplemented  # an expression: Python's own default stays


_SIMPLE = {"int": int, "float": float, "str": str, "bool": bool, "None": types.NoneType}
_SIMPLE |= {"Widths": tuple[int, ...], "Activation": str, "Initialisation": str, "TransformKind": str}  # of nets


def _type(node: ast.expr | None) -> Any:
    """The plain type that an annotation means, without alternatives that no text can express; else None."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _type(ast.parse(node.value, mode="eval").body)
        return types.NoneType if node.value is None else None
    if isinstance(node, ast.Name):
        return _SIMPLE.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = [t for t in (_type(node.left), _type(node.right)) if t is not None]
        return Union[tuple(sides)] if sides else None  # noqa: UP007
    if isinstance(node, ast.Subscript):
        outer = dotted(node.value).rpartition(".")[2]
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal":
            return Literal[tuple(ast.literal_eval(i) for i in inner)]
        if outer == "Optional":
            return Optional[_type(inner[0])]  # noqa: UP045
        ellipsis = len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is ...
        kinds = [_type(i) for i in (inner[:1] if ellipsis else inner)]
        if None in kinds:
            return None
        if outer in ("list", "Sequence", "List") or (outer in ("tuple", "Tuple") and ellipsis):
            return tuple[kinds[0], ...]
        if outer in ("tuple", "Tuple"):
            return tuple[tuple(kinds)]
    return None


def _kinds(node: ast.expr | None) -> tuple[str, ...]:
    """The families of parts that an annotation names."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _kinds(ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return (*_kinds(node.left), *_kinds(node.right))
    base = dotted(node).rpartition(".")[2] if isinstance(node, ast.Name | ast.Attribute) else ""
    return tuple(name for name, kind in KINDS.items() if kind.base == base)[:1]


def _help(name: str, docs: list[str]) -> str:
    """The description of an argument in the first docstring whose ``Args:`` has it."""
    for doc in docs:
        section = re.search(r"^Args:\n((?:[ ]{4}.*\n|\n)+)", doc + "\n", re.MULTILINE)
        # Each entry starts at four columns and goes on at eight; several names may share one.
        for entry in re.split(r"\n(?=[ ]{4}\S)", "\n" + section[1].rstrip("\n")) if section else ():
            names, colon, text = entry.strip().partition(":")
            if colon and name in re.split(r",\s*", names.replace("*", "")):
                return _plain_text(" ".join(text.split()))
    return ""


def _plain_text(text: str) -> str:
    """Without the marks of reStructuredText, and without formulas that need more than a line of text."""
    text = re.sub(r",?\s*:math:`[^`]*[=\\][^`]*`", "", text)
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    text = re.sub(r":math:`([^`]*)`", r"\1", text)
    return re.sub(r"\s+(?:on|with|of|for|and)(?=\.?$)", "", text.replace("``", ""))

"""The parts there are, read from their source code.

The command line must name every part and its arguments without importing torch. So this module follows the
``__all__`` of :mod:`pyrovae.priors`, :mod:`pyrovae.likelihoods`, ... through the syntax trees, and reads each
class's arguments from its ``__init__`` and its docstring. There is no list of parts to keep: a new class that
its package exports is found. The class itself is imported when it is built.
"""

import ast
import difflib
import functools
import importlib
import importlib.util
import re
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional, Union

__all__ = ["KINDS", "Argument", "Entry", "Kind", "choices", "everything", "find"]

_ROOT = Path(__file__).parent
REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""Default of an argument that has none."""


@dataclass(frozen=True)
class Kind:
    """A family of parts: the module that exports them, and the class they descend from."""

    module: str
    base: str
    default: str


KINDS = {
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
    """

    name: str
    type: Any
    default: Any
    help: str
    variadic: bool = False


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
        cls = getattr(_import(self.module), self.qualname)
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
    for exported in _exports(spec.module):
        cls = _find_class(spec.module, exported)
        if cls is None or exported == spec.base or not _descends(cls, spec.base) or _is_abstract(cls):
            continue
        found[kebab(exported)] = _entry(kebab(exported), spec.module, exported, cls)
    return found


def find(kind: str, name: str) -> Entry:
    """The part of that name; case, hyphens and underscores do not matter.

    ``module:Class`` and ``path/to/file.py:Class`` are a user's own.

    Raises:
        ValueError: If there is none; the message names the choices.
    """
    if ":" in name:
        return _users(kind, name)
    known = choices(kind)
    for key, entry in known.items():
        if _plain(key) == _plain(name):
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
    path = _path_of(module)
    if path is None:
        raise ValueError(
            f"Cannot find {module!r} of {kind} {name!r}: no such module on the path, no such file."
        )
    cls = _resolve(module, path, qualname)
    if cls is not None:
        return _entry(name, module, qualname, cls)
    raise ValueError(f"{path} defines no class {qualname!r}, asked for as {kind} {name!r}.")


# Reading classes.


@dataclass(frozen=True, eq=False)
class _Class:
    node: ast.ClassDef
    module: str
    path: Path

    def parents(self) -> list["_Class"]:
        found = [_resolve(self.module, self.path, _dotted(base)) for base in self.node.bases]
        return [cls for cls in found if cls is not None]


def _entry(name: str, module: str, qualname: str, cls: _Class) -> Entry:
    function = _init(cls)
    docs = [doc for doc in (ast.get_docstring(c.node) for c in _ancestry(cls)) if doc]
    arguments, unwritable = _arguments(function, docs) if function else ((), ())
    summary = " ".join(docs[0].split("\n\n")[0].split()) if docs else ""
    references = re.search(
        r"^References:\n((?:[ ]{4}.*\n|\n)+)", (docs[0] if docs else "") + "\n", re.MULTILINE
    )
    cited = " ".join(references[1].split()) if references else ""
    return Entry(name, module, qualname, _plain_text(summary), arguments, unwritable, cited)


def _arguments(function: ast.FunctionDef, docs: list[str]) -> tuple[tuple[Argument, ...], tuple[str, ...]]:
    spec, found, unwritable = function.args, [], []
    positional = [*spec.posonlyargs, *spec.args][1:]
    missing: list[Any] = [None] * (len(positional) - len(spec.defaults))
    pairs = [*zip(positional, [*missing, *spec.defaults], strict=True)]
    pairs += zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    if spec.vararg is not None:
        inner = _type(spec.vararg.annotation)
        if inner is not None:
            help_ = _help(spec.vararg.arg, docs)
            found.append(Argument(spec.vararg.arg, tuple[inner, ...], (), help_, variadic=True))
    for argument, default in pairs:
        value = REQUIRED if default is None else _literal(default)
        kind = _type(argument.annotation)
        if argument.annotation is None and value not in (REQUIRED, None):
            kind = type(value)
        if kind in (None, types.NoneType) or value is NotImplemented:
            if value is REQUIRED:
                unwritable.append(argument.arg)
            continue
        found.append(Argument(argument.arg, kind, value, _help(argument.arg, docs)))
    return tuple(found), tuple(unwritable)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return NotImplemented  # an expression: Python's own default stays


_SIMPLE = {"int": int, "float": float, "str": str, "bool": bool, "None": types.NoneType}


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
        outer = _dotted(node.value).rpartition(".")[2]
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


def _init(cls: _Class) -> ast.FunctionDef | None:
    for ancestor in _ancestry(cls):
        for statement in ancestor.node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                return statement
    return None


def _ancestry(cls: _Class) -> list[_Class]:
    found = [cls]
    for parent in cls.parents():
        found += [c for c in _ancestry(parent) if all(c.node is not f.node for f in found)]
    return found


def _descends(cls: _Class, base: str) -> bool:
    return any(ancestor.node.name == base for ancestor in _ancestry(cls))


def _is_abstract(cls: _Class) -> bool:
    if cls.node.name.startswith("_"):
        return True
    methods = [s for s in cls.node.body if isinstance(s, ast.FunctionDef)]
    return any(_dotted(d).rpartition(".")[2] == "abstractmethod" for m in methods for d in m.decorator_list)


# Following names through modules.


def _exports(module: str) -> Sequence[str]:
    path = _path_of(module)
    for statement in _tree(path).body if path else ():
        if isinstance(statement, ast.Assign) and _dotted(statement.targets[0]) == "__all__":
            return ast.literal_eval(statement.value)
    return ()


def _find_class(module: str, name: str) -> _Class | None:
    path = _path_of(module)
    return None if path is None else _resolve(module, path, name)


def _resolve(module: str, path: Path, name: str) -> _Class | None:
    """The class that a name means in a module, through ``from ... import``."""
    for statement in _tree(path).body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return _Class(statement, module, path)
        if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            for alias in statement.names:
                if (alias.asname or alias.name) == name and statement.module.startswith("pyrovae"):
                    return _find_class(statement.module, alias.name)
        if isinstance(statement, ast.ImportFrom | ast.Import):
            # `from pyrovae import priors` and then `priors.Prior`; `import pyrovae.priors` and so on.
            head, _, rest = name.rpartition(".")
            for alias in statement.names if head else ():
                whole = f"{statement.module}." if isinstance(statement, ast.ImportFrom) else ""
                if (alias.asname or alias.name) == head and f"{whole}{alias.name}".startswith("pyrovae"):
                    return _find_class(f"{whole}{alias.name}", rest)
    return None


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Subscript | ast.Call):
        return _dotted(node.value if isinstance(node, ast.Subscript) else node.func)
    return node.id if isinstance(node, ast.Name) else ""


@functools.cache
def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ValueError(f"{path} is not valid Python: {error.msg}, line {error.lineno}.") from error


def _path_of(module: str) -> Path | None:
    """The source file of a module, without importing it or its package."""
    if module.endswith(".py"):
        return Path(module) if Path(module).is_file() else None
    if module.split(".")[0] == "pyrovae":
        roots, parts = [_ROOT], module.split(".")[1:]
    else:
        roots, parts = [Path(entry or ".") for entry in ["", *sys.path]], module.split(".")
    for root in roots:
        for path in (root.joinpath(*parts, "__init__.py"), root.joinpath(*parts).with_suffix(".py")):
            if parts and path.is_file():
                return path
    return None


def _import(module: str) -> Any:
    if not module.endswith(".py"):
        return importlib.import_module(module)
    path = Path(module).resolve()
    name = f"pyrovae_user_{path.stem}"
    if getattr(sys.modules.get(name), "__file__", None) == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded

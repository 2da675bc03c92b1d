"""Classes as they stand in source files: found through imports, read as syntax trees, imported only when asked."""

import ast
import functools
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SourceClass", "dotted", "exports", "find_class", "import_module", "path_of", "resolve"]

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, eq=False)
class SourceClass:
    """A class statement, and where it stands."""

    node: ast.ClassDef
    module: str
    path: Path

    def ancestry(self) -> list["SourceClass"]:
        """The class and those it descends from, as far as they are of this package or the same file."""
        found: list[SourceClass] = [self]
        for base in self.node.bases:
            parent = resolve(self.module, self.path, dotted(base))
            for ancestor in parent.ancestry() if parent else ():
                if all(ancestor.node is not f.node for f in found):
                    found.append(ancestor)
        return found

    def init(self) -> ast.FunctionDef | None:
        """The ``__init__`` that it has or inherits."""
        for ancestor in self.ancestry():
            for statement in ancestor.node.body:
                if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                    return statement
        return None

    def docs(self) -> list[str]:
        """Docstrings, its own first."""
        return [doc for doc in (ast.get_docstring(c.node) for c in self.ancestry()) if doc]

    def descends(self, base: str) -> bool:
        """Whether a class of that name is among its ancestors."""
        return any(ancestor.node.name == base for ancestor in self.ancestry())

    def is_abstract(self) -> bool:
        """Whether it is private, or has abstract methods of its own."""
        if self.node.name.startswith("_"):
            return True
        methods = [s for s in self.node.body if isinstance(s, ast.FunctionDef)]
        return any(
            dotted(d).rpartition(".")[2] == "abstractmethod"
            for m in methods
            for d in m.decorator_list
        )


def exports(module: str) -> Sequence[str]:
    """Its ``__all__``."""
    path = path_of(module)
    for statement in _tree(path).body if path else ():
        if isinstance(statement, ast.Assign) and dotted(statement.targets[0]) == "__all__":
            return ast.literal_eval(statement.value)
    return ()


def find_class(module: str, name: str) -> SourceClass | None:
    """The class that a module defines or exports under a name."""
    path = path_of(module)
    return None if path is None else resolve(module, path, name)


def resolve(module: str, path: Path, name: str) -> SourceClass | None:
    """The class that a name means in a module, through ``from ... import``."""
    # What a package loads lazily it imports for type checkers: `if TYPE_CHECKING: from ... import ...`.
    body = [
        s for each in _tree(path).body for s in (each.body if isinstance(each, ast.If) else [each])
    ]
    for statement in body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return SourceClass(statement, module, path)
        if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            for alias in statement.names:
                if (alias.asname or alias.name) == name and statement.module.startswith("pyrovae"):
                    return find_class(statement.module, alias.name)
        if isinstance(statement, ast.ImportFrom | ast.Import):
            # `from pyrovae import priors` and then `priors.Prior`; `import pyrovae.priors` and so on.
            head, _, rest = name.rpartition(".")
            for alias in statement.names if head else ():
                whole = f"{statement.module}." if isinstance(statement, ast.ImportFrom) else ""
                if (alias.asname or alias.name) == head and f"{whole}{alias.name}".startswith(
                    "pyrovae"
                ):
                    return find_class(f"{whole}{alias.name}", rest)
    return None


def dotted(node: ast.expr) -> str:
    """A name with its dots, without subscripts and calls."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Subscript | ast.Call):
        return dotted(node.value if isinstance(node, ast.Subscript) else node.func)
    return node.id if isinstance(node, ast.Name) else ""


@functools.cache
def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ValueError(
            f"{path} is not valid Python: {error.msg}, line {error.lineno}."
        ) from error


def path_of(module: str) -> Path | None:
    """The source file of a module, without importing it or its package."""
    if module.endswith(".py"):
        return Path(module) if Path(module).is_file() else None
    if module.split(".")[0] == "pyrovae":
        roots, parts = [_ROOT], module.split(".")[1:]
    else:
        roots, parts = [Path(entry or ".") for entry in ["", *sys.path]], module.split(".")
    for root in roots:
        for path in (
            root.joinpath(*parts, "__init__.py"),
            root.joinpath(*parts).with_suffix(".py"),
        ):
            if (parts or module == "pyrovae") and path.is_file():
                return path
    return None


def import_module(module: str) -> Any:
    """The module, by name or by the path of its file."""
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

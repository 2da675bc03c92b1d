"""Classes of the user's own that stand in a file: ``path/to/mine.py:Mine``."""

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_dumper, set_loader

__all__ = ["MODE", "file_and_name", "imported", "path_of", "resolved", "taken_along"]

MODE = "pyrovae"
"""The parser mode whose YAML also names classes by their files."""

_PREFIX = "pyrovae_file_"
_IN_FILE = re.compile(r"(.+\.py):(\w+)")
_SOURCES: dict[str, bytes] = {}  # by the name of the module, as they were when it was loaded


def load_yaml(text: str) -> Any:
    """YAML, where ``mine.py:Mine`` declares the class ``Mine`` of that file.

    Raises:
        ValueError: If there is no such file, or no such class in it.
    """
    return resolved(get_loader("yaml")(text))


def dump_yaml(content: Any) -> str:
    """The text that :func:`load_yaml` reads, with the full paths of files."""
    return _dumped(content, lambda module: str(sys.modules[module].__file__))


def taken_along(content: Any) -> tuple[str, dict[str, bytes]]:
    """YAML that names files with classes by their names alone, and what these files hold.

    Written to one folder, they need nothing beside it: the files that the classes were loaded from
    may be moved or edited.
    """
    names: dict[str, str] = {}  # by the name of the module

    def name_of(module: str) -> str:
        if module not in names:
            file, number = Path(str(sys.modules[module].__file__)), 1
            name = file.name
            while name in names.values():
                name, number = f"{file.stem}_{number}.py", number + 1
            names[module] = name
        return names[module]

    text = _dumped(content, name_of)
    return text, {name: _SOURCES[module] for module, name in names.items()}


def resolved(value: Any) -> Any:
    """A value in which files with classes are replaced by the import paths of the classes."""
    if isinstance(value, dict):
        path = value.get("class_path")
        if isinstance(path, str):
            value = {**value, "class_path": imported(path)}
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if isinstance(value, str) and _IN_FILE.fullmatch(value):
        return {"class_path": _import_path(value)}
    return value


def imported(text: str) -> str:
    """The import path of ``path/to/mine.py:Mine``, whose file is loaded; another text as it is."""
    return _import_path(text) if _IN_FILE.fullmatch(text) else text


def file_and_name(text: str) -> tuple[str, str] | None:
    """The two halves of ``path/to/mine.py:Mine``; None for another text."""
    found = _IN_FILE.fullmatch(text)
    return None if found is None else (found[1], found[2])


def path_of(file: Path, name: str) -> str:
    """What a file calls so, as ``module.Class``, whether it is loaded or not."""
    return f"{_module_of(file.read_bytes())}.{name}"


def _dumped(content: Any, file_of: Callable[[str], str]) -> str:
    """YAML in which modules of files are replaced by what ``file_of`` gives for them."""

    def located(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: located(item) for key, item in value.items()}
        if isinstance(value, list):
            return [located(item) for item in value]
        if isinstance(value, str) and value.startswith(_PREFIX):
            module, _, name = value.partition(".")
            return f"{file_of(module)}:{name}"
        return value

    return yaml.safe_dump(located(content), sort_keys=False, allow_unicode=True)


def _module_of(source: bytes) -> str:
    """The name that a file is loaded under, which every copy of it shares: the class of a copy is
    the class itself, and runs no new code. An edited file is another module.
    """
    return f"{_PREFIX}{hashlib.sha256(source).hexdigest()[:32]}"


def _import_path(text: str) -> str:
    """The file's class as ``module.Class``; the file is loaded under a name of its own."""
    file, name = _IN_FILE.fullmatch(text).groups()  # type: ignore[union-attr]
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"Cannot find the class {text!r}: there is no such file.")
    source = path.read_bytes()
    module = _module_of(source)
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, path)
        assert spec is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[module], _SOURCES[module] = loaded, source
        try:  # without a loader, which would leave a __pycache__ in the folder of a run
            exec(compile(source, path, "exec"), vars(loaded))
        except BaseException as error:
            del sys.modules[module]
            if isinstance(error, SyntaxError):
                raise ValueError(
                    f"{path} is not valid Python: {error.msg}, line {error.lineno}."
                ) from error
            raise
    if not isinstance(getattr(sys.modules[module], name, None), type):
        raise ValueError(f"{path} defines no class {name!r}.")
    return f"{module}.{name}"


set_loader(MODE, load_yaml, (yaml.YAMLError,))
set_dumper(MODE, dump_yaml)

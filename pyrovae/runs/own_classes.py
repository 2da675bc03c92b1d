"""Classes of the user's own that stand in a file: ``path/to/mine.py:Mine``."""

import importlib.util
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_dumper, set_loader

__all__ = ["MODE", "file_and_name", "path_of", "resolved"]

MODE = "pyrovae"
"""The parser mode whose YAML also names classes by their files."""

_PREFIX = "pyrovae_file_"
_IN_FILE = re.compile(r"(.+\.py):(\w+)")


def load_yaml(text: str) -> Any:
    """YAML, where ``mine.py:Mine`` declares the class ``Mine`` of that file.

    Raises:
        ValueError: If there is no such file, or no such class in it.
    """
    return resolved(get_loader("yaml")(text))


def dump_yaml(content: Any) -> str:
    """The text that :func:`load_yaml` reads, with the full paths of files."""
    return yaml.safe_dump(_located(content), sort_keys=False, allow_unicode=True)


def resolved(value: Any) -> Any:
    """A value in which files with classes are replaced by the import paths of the classes."""
    if isinstance(value, dict):
        path = value.get("class_path")
        if isinstance(path, str) and _IN_FILE.fullmatch(path):
            value = {**value, "class_path": _import_path(path)}
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if isinstance(value, str) and _IN_FILE.fullmatch(value):
        return {"class_path": _import_path(value)}
    return value


def file_and_name(text: str) -> tuple[str, str] | None:
    """The two halves of ``path/to/mine.py:Mine``; None for another text."""
    found = _IN_FILE.fullmatch(text)
    return None if found is None else (found[1], found[2])


def path_of(file: Path, name: str) -> str:
    """What a file calls so, as ``module.Class``, whether it is loaded or not."""
    return f"{_module_of(file.resolve())}.{name}"


def _located(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _located(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_located(item) for item in value]
    if isinstance(value, str) and value.startswith(_PREFIX):
        module, _, name = value.partition(".")
        return f"{sys.modules[module].__file__}:{name}"
    return value


def _module_of(path: Path) -> str:
    """The name that a file is loaded under."""
    stem = re.sub(r"\W", "_", path.stem)
    return f"{_PREFIX}{stem}_{zlib.crc32(str(path).encode()):08x}"


def _import_path(text: str) -> str:
    """The file's class as ``module.Class``; the file is loaded under a name of its own."""
    file, name = _IN_FILE.fullmatch(text).groups()  # type: ignore[union-attr]
    path = Path(file).expanduser().resolve()
    module = _module_of(path)
    if not path.is_file():
        raise ValueError(f"Cannot find the class {text!r}: there is no such file.")
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, path)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[module] = loaded
        try:
            spec.loader.exec_module(loaded)
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

"""Names of new files, which no other command may take meanwhile."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyrovae.runs.lock import Lock
from pyrovae.runs.together import follows, told

__all__ = ["check_new", "reserved"]


@contextmanager
def reserved(given: Path | None, default: Path, *suffixes: str, start: int = 1) -> Iterator[Path]:
    """The file to write, kept from other commands until the end; of several processes the first one
    chooses for all.

    Args:
        given: The file that the user named.
        default: Otherwise the first of ``name.nc``, ``name-2.nc``, ... that is free.
        suffixes: What the name may end in.
        start: The number of the first default name.

    Raises:
        BlockingIOError: If another process is about to write the file that the user named.
        FileExistsError: If it exists.
        FileNotFoundError: If its folder does not.
        ValueError: If its name ends in something else.
    """
    if follows():
        yield told(None)
        return
    path, lock = _first_free(default, start) if given is None else _own(given, *suffixes)
    try:
        yield told(path)
    finally:
        lock.release()


def check_new(path: Path, *suffixes: str) -> None:
    """Raise an error, as :func:`reserved` does, unless a file can be written without loss."""
    if path.suffix not in suffixes:
        raise ValueError(f"--out must end in {' or '.join(suffixes)}, found {path}.")
    if path.exists():
        raise FileExistsError(f"{path} exists. Give another --out: nothing is overwritten.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")


def _own(path: Path, *suffixes: str) -> tuple[Path, Lock]:
    check_new(path, *suffixes)
    lock = _locked(path)
    try:
        check_new(path, *suffixes)  # another process may have written it meanwhile
    except FileExistsError:
        lock.release()
        raise
    return path, lock


def _first_free(default: Path, start: int) -> tuple[Path, Lock]:
    for number in itertools.count(start):
        suffix = "" if number == 1 else f"-{number}"
        path = default.with_name(f"{default.stem}{suffix}{default.suffix}")
        if path.exists():
            continue
        try:
            lock = _locked(path)
        except BlockingIOError:  # another command is about to write it
            continue
        if not path.exists():
            return path, lock
        lock.release()
    raise AssertionError("There is always another number.")


def _locked(path: Path) -> Lock:
    return Lock(path.parent, f"{path.name}.lock")

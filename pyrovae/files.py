"""Files that are either complete or not there."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["write", "written_whole"]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder to write to. What stands there at the end is brought to
    the disk and given the name ``path``, in the place of an earlier file.

    After an error nothing of it is left, and an earlier file is as it was.
    """
    # The ending stays: it tells some writers what to write.
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write(path: Path, content: bytes | str) -> None:
    """Write a whole file, texts as UTF-8, with the permissions that new files have."""
    data = content.encode() if isinstance(content, str) else content
    with written_whole(path) as part:
        part.write_bytes(data)


def _sync_folder(folder: Path) -> None:
    """Bring a new name to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

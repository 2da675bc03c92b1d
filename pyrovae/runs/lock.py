"""One owner a run: a file that names the process at work in the folder."""

import errno
import json
import os
import uuid
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyrovae.runs.process import is_gone, is_me, me

__all__ = ["Lock"]


class Lock:
    """A file in a folder that holds the process and the host of the owner.

    A lock that a process left behind when it was killed is taken over, on the same host and in the
    same container. It is released by :meth:`release`, and with the process at the latest.

    Args:
        folder: What to own, or where the file lies that is owned.
        name: The name of the lock.

    Raises:
        BlockingIOError: If another process, or another part of this one, owns the folder. The
            message names it.
        PermissionError: If the folder cannot be written to.
    """

    def __init__(self, folder: Path, name: str = "lock"):
        self.path = folder / name
        self.content = json.dumps(me()) + "\n"
        while not (self._created() or self._taken_over()):
            pass
        self.release = weakref.finalize(self, _release, self.path, self.content, os.getpid())

    def _created(self) -> bool:
        """Whether there was no such file, and it is ours now, with its content from the start."""
        part = self.path.with_name(f".lock.{uuid.uuid4().hex}")
        try:
            part.write_text(self.content)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise PermissionError(
                f"{part.parent} cannot be written to: {os.strerror(error.errno)}. Copy the folder "
                "to a place of yours, or name a file elsewhere with --out."
            ) from error
        try:
            os.link(part, self.path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            return self._created_in_place()
        finally:
            part.unlink()
        return True

    def _created_in_place(self) -> bool:
        try:
            with self.path.open("x") as file:
                file.write(self.content)
        except FileExistsError:
            return False
        return True

    def _taken_over(self) -> bool:
        """Whether the file was of a process that is gone, and is ours now; False if there is no
        file any more.
        """
        try:
            file = self.path.open("r+")
        except FileNotFoundError:
            return False
        with file, _alone(file):
            try:
                current = os.stat(self.path).st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                return False
            if not current:
                return False
            owner = _parsed(file.read())
            if not is_gone(owner):
                raise BlockingIOError(_refusal(self.path, owner))
            file.seek(0)
            file.write(self.content)
            file.truncate()
        return True


def _release(path: Path, content: str, process: int) -> None:
    """Remove our own file, and no other; a forked process owns nothing."""
    with suppress(OSError):
        if os.getpid() == process and path.read_text() == content:
            path.unlink()


def _refusal(path: Path, owner: dict[str, Any]) -> str:
    holder = f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
    if is_me(owner):
        holder = "this process"
    return (
        f"{holder[0].upper()}{holder[1:]} is at work in {path.parent}. Wait until it ends. If you "
        f"know that it is gone, remove {path}."
    )


@contextmanager
def _alone(file: Any) -> Any:
    """Keep other processes out while the owner of a lock file is looked at and changed."""
    try:
        import fcntl
    except ImportError:  # a system without it
        yield
        return
    with suppress(OSError):  # a file system without it
        fcntl.flock(file, fcntl.LOCK_EX)
    yield  # closing the file releases it


def _parsed(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return {}

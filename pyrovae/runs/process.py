"""Which process this is, and whether one that left its name behind still runs."""

import os
import socket
from pathlib import Path
from typing import Any

__all__ = ["is_gone", "is_me", "me"]


def me() -> dict[str, Any]:
    """What tells this process from every other one: two containers may have one host name, and a
    number is given again to a later process.
    """
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "namespace": _namespace(),
        "pid": pid,
        "started": _started(pid),
    }


def is_me(owner: dict[str, Any]) -> bool:
    """Whether :func:`me` of this process gave it."""
    return all(owner.get(name) == value for name, value in me().items())


def is_gone(owner: dict[str, Any]) -> bool | None:
    """Whether the process that :func:`me` named runs no more; None where that cannot be seen, as
    from another host or container.
    """
    pid = owner.get("pid")
    if is_me(owner):
        return False
    if os.name != "posix" or not isinstance(pid, int) or "namespace" not in owner:
        return None
    if (owner.get("host"), owner["namespace"]) != (socket.gethostname(), _namespace()):
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # another user's
        pass
    started = _started(pid)
    return None not in (started, owner.get("started")) and started != owner["started"]


def _namespace() -> str | None:
    """Within which numbers of processes are unique; None where that is not told."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process began, in ticks since the system did, and which start of the system; None
    where that is not told.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if state[0] in "ZX":
            return "ended"  # its parent has not yet heard of it
        return f"{state[19]} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    except (OSError, IndexError):
        return None

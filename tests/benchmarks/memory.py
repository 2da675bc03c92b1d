"""The peak of resident memory while something runs, on Linux."""

import gc
from collections.abc import Callable
from pathlib import Path


def resident(what: str) -> int:
    """``VmRSS``, what is resident now, or ``VmHWM``, its peak, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(what))
    return 1024 * int(line.split()[1])


def growth(work: Callable[[], object]) -> int:
    """Bytes by which resident memory rose at most while ``work`` ran."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident now
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before

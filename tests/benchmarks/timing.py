"""Contenders timed side by side: alternating rounds, median and smallest, and ratios within each
round.
"""

import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def machine() -> str:
    """Processor, threads and versions, for the head of every table."""
    import pyro
    import torch

    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    flags = torch.backends.cpu.get_cpu_capability()
    return (
        f"{names[0].split(':')[1].strip() if names else platform.processor()}, {os.cpu_count()} "
        f"cores, {flags}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; Python "
        f"{platform.python_version()}, torch {torch.__version__}, Pyro {pyro.__version__}"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "")
    )


def alternate(
    contenders: dict[str, Callable[[int], float]],
    *,
    rounds: int = 9,
    seconds: float = 0.15,
    warmup: int = 5,
) -> dict[str, list[float]]:
    """Milliseconds a step, one for each round; every round gives each contender its turn, in
    changing order.

    Args:
        contenders: Each takes a number of steps, runs them and returns the seconds they took.
        rounds: How many.
        seconds: Length of a turn, about.
        warmup: Steps before anything counts.
    """
    sizes = {}
    for name, run in contenders.items():
        run(warmup)
        sizes[name] = max(1, round(seconds / (run(warmup) / warmup)))
    results: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            results[name].append(1e3 * contenders[name](sizes[name]) / sizes[name])
    return results


def ratios(results: dict[str, list[float]], reference: str) -> dict[str, float]:
    """Of each contender, the median over rounds of its time over the reference's in that round."""
    base = results[reference]
    return {
        name: statistics.median(t / r for t, r in zip(times, base, strict=True))
        for name, times in results.items()
    }


def table(title: str, results: dict[str, list[float]], reference: str, unit: str = "ms") -> str:
    """A Markdown table; the ratio is the median over rounds of time over the reference's in the
    same round.
    """
    lines = [f"| {title} | min {unit} | median {unit} | of {reference} |", "|---|---|---|---|"]
    ratio = ratios(results, reference)
    for name, times in results.items():
        lines.append(
            f"| {name} | {min(times):.3f} | {statistics.median(times):.3f} | {ratio[name]:.2f} |"
        )
    return "\n".join(lines)


def looped(step: Callable[[], object]) -> Callable[[int], float]:
    """A contender out of one step; a GPU is waited for at the end."""
    import torch

    finish = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None

    def run(steps: int) -> float:
        finish()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        finish()
        return time.perf_counter() - start

    return run


class Subprocess:
    """A contender in another interpreter: it reads a number of steps a line and answers with the
    seconds.

    Args:
        python: The interpreter, with words before it where it needs some:
            ``env PYTHONPATH=folder python``.
        script: What it runs; its first line is the version, further ones :meth:`line` reads.
        arguments: Of the script.
    """

    def __init__(self, python: str, script: Path, *arguments: str):
        self.process = subprocess.Popen(
            [*shlex.split(python), str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.version = self.line()

    def __call__(self, steps: int) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self.line())

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=30)

    def line(self) -> str:
        """The next line of the script's output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            sys.exit(f"{self.process.args} ended without an answer")
        return line

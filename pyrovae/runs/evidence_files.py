"""The evidence that run folders hold, for comparisons."""

from collections.abc import Mapping
from pathlib import Path

from pyrovae.compare.checks import effort_of
from pyrovae.evidence import Evidence
from pyrovae.runs.run import Run
from pyrovae.runs.terminal import warn

__all__ = ["check_alike", "common_evidence"]


def check_alike(opened: list[Run]) -> None:
    """Raise a ValueError if some runs give log p(x | y) and others log p(x)."""
    given = [run.path for run in opened if "condition" in run.metadata]
    plain = [run.path for run in opened if run.path not in given]
    if given and plain:
        raise ValueError(
            f"{given[0]} gives log p(x | y), but {plain[0]} log p(x): their difference is also "
            "what y tells of x. Compare runs that are given the same."
        )


def common_evidence(paths: list[Path], opened: Mapping[Path, Run]) -> list[tuple[Path, Evidence]]:
    """For each run its newest evidence on data that all were evaluated on, and, where there is
    such, by a method and settings that all were evaluated by; a file is itself.
    """
    every = [
        _readable(opened[path]) if path in opened else [(path, Evidence.load(path))]
        for path in paths
    ]
    for alike in (_data_and_effort, _data):
        newest = [{alike(known): (file, known) for file, known in loaded} for loaded in every]
        for _, known in reversed(every[0]):
            if all(alike(known) in each for each in newest):
                return [each[alike(known)] for each in newest]
    # Without common data the newest of each is taken, and the comparison says why it refuses them.
    return [loaded[-1] for loaded in every]


def _data(known: Evidence) -> str:
    return known.dataset.attrs["data"]


def _data_and_effort(known: Evidence) -> tuple[str, str]:
    return _data(known), effort_of(known)


def _readable(run: Run) -> list[tuple[Path, Evidence]]:
    """A run's evidence, oldest first; a damaged file beside a good one is a warning."""
    every = sorted(run.path.glob("evidence*.nc"), key=lambda file: file.stat().st_mtime)
    if not every:
        raise ValueError(
            f"The run {run.path} has no evidence yet. See `pyrovae evaluate {run.path}`."
        )
    loaded, damaged = [], []
    for file in every:
        try:
            run.manifest.check(file, strict=False)
            loaded.append((file, Evidence.load(file)))
        except ValueError as error:
            damaged.append(error)
    if not loaded:
        raise damaged[-1]
    for error in damaged:
        warn(f"left out: {error}")
    return loaded

"""What a measurement has chosen on this machine, kept between processes, so that the same run gives the same result."""

import functools
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pyrovae.compilation import native

__all__ = ["remembered"]

FILE = Path("~/.cache/pyrovae/choices.json")


def remembered(question: tuple[Any, ...], measure: Callable[[], Any]) -> Any:
    """The answer that an earlier process found, or else ``measure()``, which is then kept.

    Answers lie in ``~/.cache/pyrovae/choices.json``, and are asked anew where torch, the processor or our kernels
    are others. Without a place to write to, each process measures for itself.

    Args:
        question: Tells measurements apart; of plain values.
        measure: Gives a plain value.
    """
    try:
        path = FILE.expanduser()
    except RuntimeError:  # nobody's home
        return measure()
    key = f"{_circumstances()} {question}"
    answers = _read(path)
    if key not in answers:
        answer = measure()
        answers = {**_read(path), key: answer}
        _write(path, answers)
    return answers[key]


@functools.cache
def _circumstances() -> str:
    return f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()} {os.cpu_count()} {native.version()}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, answers: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(answers, file)
        os.replace(file.name, path)  # whole or not at all, whoever else is writing
    except OSError:
        return

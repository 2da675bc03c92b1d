"""What a run prints: lines under a word at the left, warnings, and the result."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import torch

from pyrovae.evidence import Evidence
from pyrovae.evidence.summary import ends
from pyrovae.training.distributed import rank_and_size

__all__ = ["attempt", "binarized", "headline", "say", "seeded", "show", "warn"]


def show(result: Any) -> None:
    """Print what a result says of itself."""
    _print(f"{result!r}", sys.stdout)


def say(what: str, text: str) -> None:
    """Print one or more lines under a word at the left."""
    head, *rest = text.splitlines()
    first = f"{what:<10}{head}" if what else head
    _print("\n".join([first, *(f"{'':<10}{line}" for line in rest)]), sys.stdout)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    _print(f"pyrovae: warning: {' '.join(text.split())}", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    """Print, in the first process alone; a terminal without these letters, or one that was closed,
    costs no run.
    """
    if rank_and_size()[0] > 0:
        return
    try:
        letters = getattr(stream, "encoding", None) or "utf-8"
        print(text.encode(letters, "replace").decode(letters), file=stream, flush=True)
    except BrokenPipeError:
        # Whoever read it went away. What is still in the stream would be an error at the end.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # such as a full disk, or a closed stream
        pass


def attempt(what: str, make: Callable[[], Any]) -> bool:
    """Whether something that only decorates a result could be made; else a warning."""
    try:
        make()
    except ImportError as error:
        extra = "tensorboard" if error.name == "tensorboard" else "plots"
        warn(f"no {what}: it needs {error.name or error} (pip install 'pyrovae[{extra}]')")
    except Exception as error:
        warn(f"no {what}: {type(error).__name__}: {error}")
    else:
        return True
    return False


def headline(evidence: Evidence, name: str, part: str) -> str:
    """The result in a line."""
    which = "held-out" if part != "train" else "training"
    given = " given y" if evidence.dataset.attrs.get("given") else ""
    return (
        f"{which} log-likelihood{given}: {evidence.mean():.3f} "
        f"± {evidence.monte_carlo_error():.3f} (Monte Carlo) "
        f"± {evidence.test_set_error():.3f} (test set) nats per datum; "
        f"{len(evidence):,} {part} data of {name}, "
        f"95 % Monte Carlo interval {ends(*evidence.interval(), '.3f')}"
    )


def binarized(how: str) -> str:
    """How the data became black and white, to end a line."""
    text = {
        "dynamic": "; binarised anew for each training batch, once for validation and test",
        "stochastic": "; binarised once with the grey values as probabilities",
        "threshold": "; binarised at one half",
    }
    return text.get(how, "")


def seeded(seed: int, draw: Callable[[], Any]) -> Any:
    """What a function gives with torch's random state at a seed; the state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return draw()

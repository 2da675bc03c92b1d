"""The command line: ``pyrovae train``, ``evaluate``, ``compare``, ``sweep`` and others."""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pyrovae.errors import first_paragraph, in_a_line
from pyrovae.signals import Terminated, terminable

__all__ = ["COMMANDS", "UsageError", "main"]

COMMANDS = {
    "train": "Declare, fit and evaluate a model, and write it all to a run folder.",
    "evaluate": "Estimate the held-out log-likelihood of a run.",
    "estimators": "Compare ELBO estimators at the weights of a run.",
    "compare": "Compare models by their evidence on the same data, in pairs.",
    "sample": "Draw from the model of a run.",
    "sweep": "Train many models with several seeds each, and rank them.",
}


class UsageError(ValueError):
    """The arguments make no command; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Failures are one line on stderr, without a traceback unless ``PYROVAE_TRACEBACK`` is set.

    Returns:
        0; 1 after a failure, 2 after a wrong call, 130 after an interruption, 143 after SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with terminable(), _warnings_in_a_line():
            _run(arguments)
    except SystemExit as stop:  # --help and --print_config
        return int(stop.code or 0)
    except UsageError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt as error:
        ended = isinstance(error, Terminated)
        said = ["terminated" if ended else "interrupted", *_notes(error)]
        return _fail("; ".join(said), 143 if ended else 130)
    except BrokenPipeError:
        # Whoever read our output went away; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("PYROVAE_TRACEBACK"):
            raise
        return _fail("; ".join([in_a_line(error), *_notes(error)]), 1)
    return 0


def _run(arguments: list[str]) -> None:
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h"):
        print(_help())
    elif name == "--version":
        import pyrovae

        print(pyrovae.__version__)
    elif name in COMMANDS:
        # Only from here on torch is needed.
        _find_a_cache()
        from pyrovae.cli.parse import parse

        function, options = parse(name, arguments[1:])
        try:
            function(**options)
        except KeyboardInterrupt as error:
            if name != "train":
                error.add_note("the run is as it was; give the same command again")
            raise
    else:
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UsageError(f"There is no command {name!r}.{hint} See pyrovae --help.")


def _find_a_cache() -> None:
    """Give torch another folder for compiled code where the one that it was given cannot be written
    to: it asks for one even where nothing is compiled.
    """
    name = "TORCHINDUCTOR_CACHE_DIR"
    if name not in os.environ:
        return
    try:
        os.makedirs(os.environ[name], exist_ok=True)
        usable = os.access(os.environ[name], os.W_OK)
    except OSError:
        usable = False
    if not usable:
        folder = tempfile.mkdtemp(prefix="torchinductor_")
        _complain(
            f"warning: {os.environ[name]} cannot be written to; compiled code goes to {folder}"
        )
        os.environ[name] = folder


def _help() -> str:
    commands = "\n".join(f"  {name:<12}{about}" for name, about in COMMANDS.items())
    return f"""usage: pyrovae COMMAND ...

Variational autoencoders as Pyro programs: train, evaluate, compare, sample.

{commands}

`pyrovae COMMAND --help` lists the options of a command, `pyrovae --version` prints the version.
Without options, `pyrovae train` trains a small VAE on handwritten digits that need no download."""


def _notes(error: BaseException) -> list[str]:
    """What a command has added to an error: how to go on."""
    return list(getattr(error, "__notes__", ()))


def _fail(message: str, code: int) -> int:
    _complain(message)
    return code


def _complain(text: str) -> None:
    """A line on stderr, in the letters that it has; one that was closed hears nothing."""
    letters = getattr(sys.stderr, "encoding", None) or "utf-8"
    with suppress(OSError, ValueError):
        print(f"pyrovae: {text}".encode(letters, "replace").decode(letters), file=sys.stderr)


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Show Python's warnings as lines like all others, without a place in the code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _complain(
            f"warning: {first_paragraph(str(message))}"
        )
        yield

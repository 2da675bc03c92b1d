"""The command line: ``pyrovae train``, ``evaluate``, ``estimators``, ``compare``, ``sample``."""

import os
import re
import sys
from collections.abc import Sequence

__all__ = ["main"]

# Errors that say what is wrong by themselves; others are shown with their class.
_PLAIN = (ArithmeticError, ImportError, OSError, TypeError, ValueError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, or 1 after a failure, 2 after a wrong call, 130 after an interruption.

    Failures are one line on stderr, without a traceback unless ``PYROVAE_TRACEBACK`` is set.
    """
    from pyrovae.cli.parse import UsageError, parse

    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments == ["--version"]:
            import pyrovae

            print(pyrovae.__version__)
            return 0
        given = parse(arguments)
        # From here on torch is needed; --help never comes here.
        from pyrovae.cli.commands import COMMANDS

        COMMANDS[type(given).__name__](given)
    except SystemExit as stop:
        return int(stop.code or 0)
    except UsageError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt as error:
        return _fail("interrupted" + (f"; {error}" if str(error) else ""), 130)
    except BrokenPipeError:
        # Whoever read our output went away; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("PYROVAE_TRACEBACK"):
            raise
        text = _first_paragraph(str(error))
        return _fail(
            text if text and isinstance(error, _PLAIN) else f"{type(error).__name__}: {text}", 1
        )
    return 0


def _first_paragraph(text: str) -> str:
    """What an error says, on one line; Pyro appends tables of trace shapes."""
    return " ".join(re.split(r"\n\s*\n|Trace Shapes:", text.strip())[0].split())


def _fail(message: str, code: int) -> int:
    print(f"pyrovae: {message}", file=sys.stderr)
    return code

"""Errors as one line, for a command line and for tables."""

import re

__all__ = ["first_paragraph", "in_a_line"]

# Errors that say what is wrong by themselves; others are shown with their class.
_PLAIN = (ArithmeticError, ImportError, OSError, TypeError, ValueError)


def in_a_line(error: Exception) -> str:
    """What an error says, after the name of its class where that is needed to understand it.

    >>> in_a_line(ValueError("beta must be positive,\\n  found -1."))
    'beta must be positive, found -1.'
    >>> in_a_line(KeyError("z"))
    "KeyError: 'z'"
    >>> in_a_line(FileNotFoundError(2, "No such file or directory", "runs/a"))
    'No such file or directory: runs/a'
    """
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    text = first_paragraph(str(error))
    return text if text and isinstance(error, _PLAIN) else f"{type(error).__name__}: {text}"


def first_paragraph(text: str) -> str:
    """The first paragraph of a message, on one line; Pyro appends tables of trace shapes."""
    return " ".join(re.split(r"\n\s*\n|Trace Shapes:", text.strip())[0].split())

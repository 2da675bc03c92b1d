"""Kernels of our own for CPU, in C++: built where a compiler is at hand, and used where a measurement favours them."""

import ctypes
import functools
import hashlib
import logging
from pathlib import Path
from typing import Any

__all__ = ["kernels", "version"]

log = logging.getLogger(__name__)

SOURCES = ("tile.h", "product.cpp", "adam.cpp")
# Inductor's flags for its own kernels come first: they forbid what makes these ones fast.
FLAGS = ("-ffp-contract=fast", "-fno-math-errno", "-ftree-loop-vectorize")
_INT, _POINTER, _THREADS = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "adam_float": (_POINTER, _INT, _THREADS),
    "adam_double": (_POINTER, _INT, _THREADS),
    "forward_float": (*[_POINTER] * 4, *[_INT] * 3, _THREADS),
    "backward_float": (*[_POINTER] * 3, *[_INT] * 3, _THREADS),
}


def _source() -> str:
    return "\n".join(Path(__file__).with_name(name).read_text() for name in SOURCES)


def version() -> str:
    """Tells one state of the sources from another."""
    return hashlib.sha256(_source().encode()).hexdigest()[:12]


@functools.cache
def kernels() -> Any | None:
    """The library, built by Inductor's compiler and cached on disk with its own kernels; None where that fails."""
    try:
        from torch._inductor.codecache import CppCodeCache

        library: Any = CppCodeCache.load(_source(), extra_flags=FLAGS)
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
        library.narrowest.restype = _INT
    except Exception as error:  # compilers fail in many ways, and everything works without this one
        log.warning("Kernels of our own cannot be built, torch's are used: %r", error)
        return None
    return library

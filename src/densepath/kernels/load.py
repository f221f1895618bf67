"""A compiled library, opened where this processor can run it."""

from __future__ import annotations

import ctypes
from pathlib import Path

from densepath.errors import EngineError
from densepath.kernels.compile import Library, compile_library

_opened: dict[Path, ctypes.CDLL] = {}


def open_library(library: Library) -> ctypes.CDLL:
    """The library, or one of its own for a processor that cannot run the one of its name; once.

    The cache's name says which processor it is for, as far as the system tells; an emulator or a
    container can make that wrong, and the first instruction would end the process.

    Raises:
        EngineError: no C++ compiler, or what it makes here is not for this processor.
        OutputError: the cache cannot be written.
    """
    path = compile_library(library)
    if path in _opened:
        return _opened[path]
    opened = ctypes.CDLL(str(path))
    if missing := _lacking(opened):
        opened = ctypes.CDLL(str(compile_library(library, missing)))
    if missing := _lacking(opened):
        instead = library.instead[0].upper() + library.instead[1:]
        raise EngineError(
            f"the C++ compiler makes the kernels for another processor: this one lacks {missing}. "
            f"{instead}."
        )
    _opened[path] = opened
    return opened


def _lacking(library: ctypes.CDLL) -> str:
    """What the library needs of the processor that it lacks."""
    library.densepath_lacking.restype = ctypes.c_char_p
    said: bytes = library.densepath_lacking()
    return said.decode()

"""A compiled library, opened where this processor can run it."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

from densepath.errors import EngineError
from densepath.kernels.compile import Library, compile_library

# What the linker says of a file that is no library, or not all of one.
DAMAGED = ("file too short", "invalid ELF header", "not a mach-o file")

_opened: dict[Path, ctypes.CDLL] = {}


def open_library(library: Library) -> ctypes.CDLL:
    """The library, or one of its own for a processor that cannot run the one of its name; once.

    The cache's name says which processor it is for, as far as the system tells; an emulator or a
    container can make that wrong, and the first instruction would end the process.

    Raises:
        EngineError: no C++ compiler, or what it makes here is not for this processor, or cannot be
            opened.
        OutputError: the cache cannot be written.
    """
    path = compile_library(library)
    if path in _opened:
        return _opened[path]
    opened = _open(library, path)
    if missing := _lacking(opened):
        opened = _open(library, compile_library(library, missing))
    if missing := _lacking(opened):
        raise EngineError(
            f"the C++ compiler makes the kernels for another processor: this one lacks {missing}. "
            f"{_instead(library)}."
        )
    _opened[path] = opened
    return opened


def _open(library: Library, path: Path) -> ctypes.CDLL:
    """The library of a file; a damaged one is deleted, so that it is made anew.

    One that is whole may be of a compiler that is newer than the C++ library in the process, or in
    a folder from which nothing may be run.

    Raises:
        EngineError: it cannot be opened.
    """
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        if any(text in str(error) for text in DAMAGED):
            with suppress(OSError):
                path.unlink()
        raise EngineError(
            f"the compiled kernels cannot be opened ({error}). $DENSEPATH_CACHE names another "
            f"folder for them. {_instead(library)}."
        ) from error


def _instead(library: Library) -> str:
    """What to do without it, as the beginning of a sentence."""
    return library.instead[0].upper() + library.instead[1:]


def _lacking(library: ctypes.CDLL) -> str:
    """What the library needs of the processor that it lacks."""
    library.densepath_lacking.restype = ctypes.c_char_p
    said: bytes = library.densepath_lacking()
    return said.decode()

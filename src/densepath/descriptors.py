"""Paths that mean an open file of this process: `/dev/stdout`, `/dev/fd/3`, a link to one."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

STDOUT = 1
STREAMS = {"/dev/stdin": 0, "/dev/stdout": STDOUT, "/dev/stderr": 2}
STREAM_NAMES = {0: "standard input", STDOUT: "standard output", 2: "standard error"}
MOST_LINKS = 40  # as Linux


def descriptor_of(path: str | Path) -> int | None:
    """The number of this process's open file that a path as `/dev/stdout` or `/dev/fd/3` means.

    Also of a link to one. Such a file must not be opened anew: what stands there would be lost,
    though the caller has opened it to append.
    """
    ours = {os.path.realpath("/dev/fd"), os.path.realpath("/proc/self/fd")}
    current = str(path)
    for _ in range(MOST_LINKS):
        if (number := STREAMS.get(current.replace(os.sep, "/"))) is not None:
            return number
        folder, name = os.path.split(current)
        if name.isascii() and name.isdigit() and os.path.realpath(folder) in ours:
            return int(name)
        if not os.path.islink(current):  # noqa: PTH114
            return None
        current = os.path.join(folder, os.readlink(current))  # noqa: PTH115, PTH118
    return None


def stream_name(path: str | Path) -> str:
    """`standard output` where the path means that; else the path."""
    number = descriptor_of(path)
    return str(path) if number is None else STREAM_NAMES.get(number, str(path))


def check_descriptor(number: int) -> None:
    """Raise OSError unless this process has a file of this number open for writing."""
    os.fstat(number)
    with suppress(ImportError):  # Windows
        from fcntl import F_GETFL, fcntl

        if fcntl(number, F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "it is not open for writing")


def write_what_waits(number: int) -> None:
    """What was printed before to this open file comes before what is written now."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            if stream.fileno() == number:
                stream.flush()

"""Standard input, output and error as the command line finds and leaves them.

A stream may be closed (`>&-`), full (`> /dev/full`) or have lost its reader (`| head`): what was
to be written is then lost, and the exit code and one line say so, in place of a traceback.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class _StandardOutput(io.TextIOWrapper):
    """Standard output, which remembers that it could not be written."""

    failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write the text, as a text stream does, and note a failure."""
        try:
            return super().write(text)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        """Flush, as a text stream does, and note a failure."""
        try:
            super().flush()
        except OSError as error:
            self.failure = error
            raise


class _StandardError(_StandardOutput):
    """Standard error; where it cannot be written nobody can be told, and the work goes on."""

    def write(self, text: str) -> int:
        """Write the text, as a text stream does, or nothing."""
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Flush, as a text stream does, or do nothing."""
        try:
            super().flush()
        except OSError:
            return


def open_streams() -> None:
    """Make standard input, output and error streams that are there, and note their failures.

    Where the caller has closed one, the next file that is opened would get its number, and what
    is printed. In the order of their numbers: a file gets the lowest that is free.
    """
    if sys.stdin is None:
        sys.stdin = open(_occupy(0, os.O_RDONLY), encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:  # one that cannot be written: to lose an answer is an error
        sys.stdout = _StandardOutput(_buffer(_occupy(1, os.O_RDONLY)), encoding="utf-8")
    elif sys.stdout is sys.__stdout__:
        sys.stdout = _like(_StandardOutput, sys.stdout)
    if sys.stderr is None:
        sys.stderr = _StandardError(_buffer(_occupy(2, os.O_WRONLY)), encoding="utf-8")
    elif sys.stderr is sys.__stderr__:
        sys.stderr = _like(_StandardError, sys.stderr)


def _occupy(number: int, flags: int) -> int:
    """`number`, which the null device now has."""
    opened = os.open(os.devnull, flags)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    return number


def _buffer(number: int) -> io.BufferedWriter:
    """What writes bytes there; a `FileIO` would refuse one that is open for reading alone."""

    class Raw(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            return os.write(number, data)

        def fileno(self) -> int:
            return number

    return io.BufferedWriter(Raw())


def _like(kind: type[_StandardOutput], stream: Any) -> _StandardOutput:
    """A stream of that kind in place of the one that Python has made."""
    return kind(
        stream.buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def input_lines() -> Iterator[str]:
    """Standard input's lines as they come, decoded as file names are, whatever their bytes.

    Whoever takes them may be left waiting for the next line when the program ends: Python could
    not close `sys.stdin` then, so they are read past it.
    """
    try:
        number = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # a test's, or a notebook's
        yield from sys.stdin
        return
    how = {"encoding": sys.getfilesystemencoding(), "errors": "surrogateescape"}
    with open(number, closefd=False, **how) as lines:  # type: ignore[call-overload]
        yield from lines


def failed_output() -> OSError | None:
    """Why standard output could not be written, if it could not."""
    return getattr(sys.stdout, "failure", None)


def close_streams() -> bool:
    """Write what standard output still holds; whether all that was printed got there.

    A full disk is said; a reader that has gone (`densepath predict ... | head`) wants no more.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        failure: OSError | None = error
    else:
        failure = failed_output()
    if failure is None:
        return True
    if failure.errno != errno.EPIPE:
        reason = failure.strerror or failure
        sys.stderr.write(f"error: standard output could not be written: {reason}.\n")
        sys.stderr.flush()
    # What the stream still holds goes nowhere, so that Python's own end is quiet.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return False

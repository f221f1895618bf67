"""Where the command line prints: data to standard output, everything else to standard error.

rich is imported by those who draw tables or progress, not for a line of text.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from densepath.names import READABLE, to_json
from densepath.notes import LOGGER

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160
LEAST_WIDTH = 80  # a narrower terminal wraps a table's lines; names are never cut

NAMED_FAILURES = 10


@functools.cache
def stdout() -> Console:
    """For tables. A pipe or file has no width: they are then not squeezed into 80 columns.

    Names are printed as they stand: `[bold]` is no markup in them and `:cat:` no picture.
    """
    from rich.console import Console

    width = PIPE_WIDTH if not sys.stdout.isatty() else max(Console().width, LEAST_WIDTH)
    return Console(width=width, markup=False, emoji=False)


@functools.cache
def stderr() -> Console:
    """For progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def print_lines(lines: Iterable[str], console: Console) -> None:
    """Print lines of text, as they stand and as long as they are."""
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON document on one line of standard output."""
    sys.stdout.write(to_json(value) + "\n")


def speak_utf8() -> None:
    """Make standard output UTF-8 whatever the locale; what a stream cannot hold is escaped."""
    for stream, encoding in ((sys.stdout, "utf-8"), (sys.stderr, None)):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=encoding, errors=READABLE)


def note(message: str) -> None:
    """Print a message for the person, on standard error."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


class _Notes(logging.Handler):
    """What the library logs, as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message alone on a line; where nobody listens, nothing."""
        with suppress(OSError, ValueError):
            note(record.getMessage())


def show_notes() -> None:
    """Print the library's own log as notes, and nothing of matplotlib's."""
    logger = logging.getLogger(LOGGER)
    logger.handlers, logger.propagate = [_Notes(logging.WARNING)], False
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)


def note_unreadable(named: Sequence[str], total: int) -> None:
    """Name the first unreadable images, `PATH: REASON` each, and count the rest of `total`."""
    shown = named[:NAMED_FAILURES]
    for line in shown:
        note(f"could not be read: {line}")
    if total > len(shown):
        note(f"could not be read: {total - len(shown):,} more")

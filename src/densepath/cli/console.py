"""Where the command line prints: data to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

PIPE_WIDTH = 160

NAMED_FAILURES = 10

# A pipe or file has no width: tables are then not squeezed into 80 columns.
stdout = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
stderr = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on one line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def note(message: str) -> None:
    """A message for the person, on standard error; square brackets are printed as they are."""
    stderr.print(message, markup=False, soft_wrap=True)


def note_unreadable(named: Sequence[str], total: int) -> None:
    """Names the first unreadable images, `PATH: REASON` each, and counts the rest of `total`."""
    shown = named[:NAMED_FAILURES]
    for line in shown:
        note(f"could not be read: {line}")
    if total > len(shown):
        note(f"could not be read: {total - len(shown):,} more")

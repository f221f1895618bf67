"""Where the command line prints: data to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

stdout = Console(soft_wrap=False)
stderr = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on one line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def note(message: str) -> None:
    """A message for the person, on standard error; square brackets are printed as they are."""
    stderr.print(message, markup=False)

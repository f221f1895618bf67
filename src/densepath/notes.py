"""What went otherwise than asked and ends nothing: said through Python's logging.

In a program that sets up no logging the line appears on standard error as it stands; the command
line has a handler of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable

LOGGER = "densepath"

_said: set[Hashable] = set()


def say_once(message: str, *, key: Hashable = None) -> None:
    """Log the message as a warning, unless it (or the same `key`) was said in this process."""
    if (key or message) in _said:
        return
    _said.add(key or message)
    say(message)


def say(message: str) -> None:
    """Log the message as a warning."""
    logging.getLogger(LOGGER).warning("%s", message)

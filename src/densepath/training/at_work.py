"""Whether a training is at work in a run folder: it holds a lock on its log meanwhile.

The lock ends with the process, however that ends, so a folder whose training was killed is told
from one whose training runs; and it is no file of its own that could be left behind.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOG_NAME = "train.log"
# Whoever looks holds the lock for a moment.
TRIES, SECONDS_BETWEEN_TRIES = 20, 0.05


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Within the block the folder's training counts as running.

    Where the log cannot be locked, as on some network drives, it does not.
    """
    try:
        descriptor = os.open(folder / LOG_NAME, os.O_RDWR)
    except OSError:  # a finished run that is read-only
        yield
        return
    try:
        _lock(descriptor)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # of processes that were forked since, too
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock, if nobody holds it for long."""
    for _ in range(TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(SECONDS_BETWEEN_TRIES)
        except OSError:
            return


def is_at_work(folder: Path) -> bool:
    """Whether a training is running in the folder, as far as its lock can be seen from here."""
    try:
        descriptor = os.open(folder / LOG_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)

"""What native libraries write to the terminal past Python, kept off it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def quiet_native_output() -> Iterator[None]:
    """Nothing that is written to standard output or standard error is shown.

    For the few calls of libraries that have no setting for it: other threads, too, are silent as
    long as it lasts. Errors are raised as ever.
    """
    with _ONE_AT_A_TIME:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        kept = [os.dup(1), os.dup(2)]
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for descriptor in (*kept, nowhere):
                os.close(descriptor)

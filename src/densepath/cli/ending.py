"""How the program ends when it is told to: what it has begun to write is removed first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Of a supervisor, and of a terminal that is closed; Windows has the first alone.
NAMES = ("SIGTERM", "SIGHUP")
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


@contextmanager
def tidy_when_ended() -> Iterator[None]:
    """Unwind the program on SIGTERM and SIGHUP as on Ctrl-C; it exits with 128 and theirs.

    A signal that the caller has switched off (`nohup`) stays so. Processes that are forked
    meanwhile end at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() == ours:
            raise SystemExit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before: dict[Any, Any] = {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

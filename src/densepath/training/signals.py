"""Ctrl-C and SIGTERM end a training between two steps, with its state written."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Inside the `with`, `signal` is the name of the first stop signal that came, else None.

    A second one ends the program at once: SIGINT as KeyboardInterrupt, SIGTERM as the system
    does it. Outside the main thread, where Python gives no signals, nothing is caught.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        """The handlers are those from before."""
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

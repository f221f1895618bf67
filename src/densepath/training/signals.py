"""Ctrl-C and SIGTERM: the first ends a training so that it can go on, the second at once.

Python runs its signal handlers between two bytecodes, so a long computation, or a wait for
another process, would hold up the answer. A thread that reads the signals' numbers answers
instead, and ends the program if need be.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Launchers pass on what the terminal has sent too, and a process that was just forked hands its
# signals to this one: what comes so soon after a signal is the same request.
REPEAT_SECONDS = 0.3
# What a program that is to end at once has to clean up.
GRACE_SECONDS = 3.0


# What `StopRequest.signal` is where another process was signalled.
OTHERS_SIGNAL = "a signal to another process"


class StoppedNow(KeyboardInterrupt):
    """A second signal, or one before the first step, has ended a training where it was.

    `signal` is its name. What the training had written before is kept.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} stopped the training at once")
        self.signal = name


class StopRequest:
    """Inside the `with`, `signal` is the name of the first stop signal that came, else None.

    The training says in `waits_for` what it finishes before it looks ("this step"); while that
    is None, a signal stops it at once, as a second signal does: StoppedNow is raised in the
    main thread. Outside the main thread, where Python gives no signals, nothing is caught.

    Args:
        say: called with a sentence as soon as a signal comes, from another thread.
        advise: called after the sentence that all stops now; says how to go on.
        ends_process: whether the process ends, with 128 and the signal's number, when a
            training that is to stop at once has not stopped within seconds.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        advise: Callable[[], None] = lambda: None,
        ends_process: bool = False,
    ) -> None:
        self.signal: str | None = None
        self.waits_for: str | None = None
        self._say, self._advise, self._ends_process = say, advise, ends_process
        self._now: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        """Catch signals, in the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._read_end, self._write_end = socket.socketpair()
            self._write_end.setblocking(False)
            self._fd_before = signal.set_wakeup_fd(
                self._write_end.fileno(), warn_on_full_buffer=False
            )
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._raise_if_now)
            self._watcher = threading.Thread(target=self._watch, daemon=True, name="signals")
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back to whoever had them."""
        if not self._before:
            return
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._write_end.close()
        self._watcher.join()
        self._read_end.close()

    def heed_others(self) -> None:
        """Note that the training stops, where the signal came to another process."""
        if self.signal is None:
            self.signal = OTHERS_SIGNAL

    def _raise_if_now(self, number: int, frame: FrameType | None) -> None:
        """End what the main thread does, once for each time that it should."""
        if self._now is not None:
            name, self._now = self._now, None
            raise StoppedNow(name)

    def _watch(self) -> None:
        """Answer signals until the `with` is left."""
        heard_at = -REPEAT_SECONDS
        while numbers := self._read_end.recv(64):
            found = [number for number in numbers if number in _SIGNALS]
            repeated = time.monotonic() - heard_at < REPEAT_SECONDS
            if not found or repeated:
                continue
            heard_at, name = time.monotonic(), signal.Signals(found[0]).name
            if self.signal is None and self.waits_for is not None:
                self.signal = name
                self._say(f"{name}: stopping after {self.waits_for}; again to stop now")
                continue
            self.signal = self._now = name
            self._say(f"{name}: stopping now; what was written before is kept")
            self._advise()
            _interrupt_main_thread(found[0])
            if self._ends_process:
                self._end_process_unless_left(found[0])

    def _end_process_unless_left(self, number: int) -> None:
        """End the process when the `with` is not left in time, or at one more signal."""
        ends_at = time.monotonic() + GRACE_SECONDS
        # The signal that woke the main thread comes here too.
        time.sleep(REPEAT_SECONDS)
        self._read_end.setblocking(False)
        try:
            while self._read_end.recv(64):
                pass
        except BlockingIOError:
            self._read_end.settimeout(max(ends_at - time.monotonic(), 0.01))
            try:
                left = not self._read_end.recv(64)
            except TimeoutError:
                left = False
        else:
            left = True
        self._read_end.settimeout(None)
        if not left:
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(128 + number)


def _interrupt_main_thread(number: int) -> None:
    """Let the main thread run its handler now, also where it waits for something."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)
    else:  # Windows
        signal.raise_signal(number)

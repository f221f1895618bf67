"""The way of the log's lines to standard error: whoever writes one never waits for who reads them.

A pipe whose reader has stopped (a log shipper that hangs, a terminal that is held) takes 64 KiB and
then blocks who writes. Here a thread of its own writes; what does not fit before it is dropped and
counted, and the next line that gets through says how much that was. A reader that has gone, or a
disk that is full, is the same.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator

# So much waits for its reader; more is dropped.
MOST_WAITING_BYTES = 4 << 20
# At the end, for what still waits.
PATIENCE_S = 2.0
# What a pipe takes as a whole, so that the lines of several processes do not mix.
WHOLE_BYTES = 4096
LOOK_S = 0.2
STDERR = 2


class Outlet:
    """Lines on their way to a file descriptor."""

    def __init__(
        self,
        descriptor: int,
        *,
        tell: Callable[[int], str],
        most_bytes: int = MOST_WAITING_BYTES,
    ) -> None:
        """
        Args:
            descriptor: where they go.
            tell: the line that says how many were dropped.
            most_bytes: that wait; what does not fit is dropped.
        """
        self._descriptor, self._tell, self._most_bytes = descriptor, tell, most_bytes
        self._lines: deque[bytes] = deque()
        self._waiting_bytes, self._num_untold = 0, 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def on_drop(self, listener: Callable[[], None]) -> None:
        """It is called for each line that is dropped from now on, by whatever thread."""
        self._listeners.append(listener)

    def put(self, line: str) -> None:
        """The line waits its turn, or is dropped; its end of line is added here."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            fits = self._waiting_bytes + len(data) <= self._most_bytes
            if fits:
                self._lines.append(data)
                self._waiting_bytes += len(data)
                self._changed.notify()
        if not fits:
            self._count_dropped()

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """What waits is written, as far as that takes no longer; the rest is dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(patience_s)

    def _count_dropped(self) -> None:
        """A line more is lost."""
        with self._changed:
            self._num_untold += 1
        for listener in self._listeners:
            listener()

    def _write_all(self) -> None:
        """The thread."""
        while (line := self._next()) is not None:
            if not self._write(line):
                self._count_dropped()
                continue
            with self._changed:
                untold, self._num_untold = self._num_untold, 0
            if untold and not self._write(f"{self._tell(untold)}\n".encode()):
                with self._changed:
                    self._num_untold += untold

    def _next(self) -> bytes | None:
        """The next line, once there is one; None after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._is_closed)
            if not self._lines:
                return None
            line = self._lines.popleft()
            self._waiting_bytes -= len(line)
            return line

    def _write(self, data: bytes) -> bool:
        """Whether all of it could be written, however long that takes."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        rest = memoryview(data)
        try:
            while rest:
                if poll.poll(LOOK_S * 1000):
                    with contextlib.suppress(BlockingIOError):
                        rest = rest[os.write(self._descriptor, rest[:WHOLE_BYTES]) :]
        except OSError:
            return False
        return True


class Lines(io.TextIOBase):
    """A text stream whose lines go to an outlet: for what libraries print or warn of."""

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, outlet: Outlet) -> None:
        self._outlet, self._begun, self._lock = outlet, "", threading.Lock()

    def write(self, text: str) -> int:
        """As a text stream does; a line goes once it is whole."""
        with self._lock:
            *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._outlet.put(line)
        return len(text)

    def fileno(self) -> int:
        """That of standard error, for those who write there themselves."""
        return STDERR

    def writable(self) -> bool:
        """It is."""
        return True

    def finish(self) -> None:
        """A line that has no end goes, too."""
        if self._begun:
            self.write("\n")


@contextlib.contextmanager
def outlet_to_stderr(tell: Callable[[int], str]) -> Iterator[Outlet]:
    """While this is entered, all that this process prints goes through the outlet.

    What is printed to standard output goes there, too: the server has nothing to say on it.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    with _never_blocking(STDERR):
        outlet = Outlet(STDERR, tell=tell)
        lines = Lines(outlet)
        sys.stdout = sys.stderr = lines
        try:
            yield outlet
        finally:
            lines.finish()
            sys.stdout, sys.stderr = before
            outlet.close()


@contextlib.contextmanager
def _never_blocking(descriptor: int) -> Iterator[None]:
    """While this is entered, nobody in this process waits for the reader of a pipe or terminal.

    C++ libraries write there by themselves; they lose a line in place of stopping. The flag is not
    set on what other processes share: the same pipe is opened once more, where Linux lets us.
    """
    kept = os.dup(descriptor)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            with contextlib.suppress(OSError):
                opened = os.open(f"/proc/self/fd/{descriptor}", flags)
                os.dup2(opened, descriptor)
                os.close(opened)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)

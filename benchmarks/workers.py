"""Networks that wait to be timed: a process each, of which one runs while the others are stopped.

A worker is a script that ends in `peers/latency_worker.py`'s `serve`. Whatever its threads do when
they have nothing to do, they cannot do it here: between its turns a worker is stopped (SIGSTOP).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
ANSWER_SECONDS = 1800  # opening or compiling; whatever takes longer has failed
MEMORY_KEPT_BYTES = 2_000_000_000


class WorkerError(Exception):
    """A worker that ended, or did not answer."""


@dataclass(frozen=True)
class Turn:
    """What a worker did while it was its turn.

    Attributes:
        ms: milliseconds of each run.
        difference: of the first and the last image's logits from those that they have alone, over
            the largest.
        others: the share of all cores that other programs used meanwhile.
    """

    ms: list[float]
    difference: float
    others: float


class Worker:
    """A system's process with its network loaded; stopped, but in its turns."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        """
        Raises:
            WorkerError: it ended before it was ready, or little memory is left.
        """
        if available_bytes() < MEMORY_KEPT_BYTES:
            raise WorkerError(f"not opened: {available_bytes() / 1e9:.1f} GB of memory are left")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the worker
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            self.ready = self._read()
        except WorkerError:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def take_turn(self, batch: int, seconds: float) -> Turn:
        """Runs batches for so many seconds.

        Raises:
            WorkerError: it failed.
        """
        said, share = self.ask(f"{batch} {seconds}")
        return Turn(said["ms"], said["difference"], share)

    def ask(self, line: str) -> tuple[dict[str, Any], float]:
        """What the worker answers to the line, and the share of all cores that others used.

        Raises:
            WorkerError: it failed.
        """
        assert self._process.stdin is not None
        with self._continued():
            busy, own, start = busy_ticks(), self._ticks(), time.monotonic()
            try:
                self._process.stdin.write(f"{line}\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                raise WorkerError(self._last_words()) from None
            said = self._read()
            wall, others = time.monotonic() - start, busy_ticks() - busy - self._ticks() + own
        return said, max(others, 0) / TICKS_A_SECOND / wall / (os.cpu_count() or 1)

    def close(self) -> None:
        """The process and what it started have ended."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # a question that it never read
                    continue

    @contextmanager
    def _continued(self) -> Iterator[None]:
        """The process runs; afterwards it is stopped again."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        """To the process and what it started."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def _read(self) -> dict[str, Any]:
        """The next line that is meant for us; systems print others."""
        assert self._process.stdout is not None
        alarm = threading.Timer(ANSWER_SECONDS, self._process.kill)
        alarm.start()
        try:
            for line in self._process.stdout:
                if line.startswith("@"):
                    return json.loads(line[1:])
        finally:
            alarm.cancel()
        raise WorkerError(self._last_words())

    def _last_words(self) -> str:
        """Why it ended, in a line."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return f"exit code {code}: {lines[-1][:300] if lines else 'it said nothing'}"

    def _ticks(self) -> int:
        """The processor time that it has used."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return 0
        fields = stat.rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])


def busy_ticks() -> int:
    """Processor time of all programs so far, and what a hypervisor took for others."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle


def available_bytes() -> int:
    """Memory that new processes can have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))

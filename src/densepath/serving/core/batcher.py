"""Rows of many requests go through the engine together; each gets exactly its own logits.

A thread a stream takes what waits, at most its fair share: with two streams idle and six rows
waiting each takes three. A batch that could be larger waits only while images are being read that
would join it, and never longer than the delay: a client that is alone never waits. Rows whose
request was cancelled or is late leave before they cost anything.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.engines.engine import Engine, Incoming, Logits
from densepath.serving.core.errors import LateError, NotReadyError

# The share of the newest measurement in the speed that is kept.
NEWEST = 0.2


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """One row's logits [classes], and how it came to them.

    Attributes:
        queue_s: the seconds that it waited.
        network_s: the seconds of its batch in the engine.
        batch_size: the rows of that batch.
    """

    logits: NDArray[np.float32]
    queue_s: float
    network_s: float
    batch_size: int


@dataclass(slots=True, eq=False)
class _Entry:
    """A row that waits. `deadline` is a time of `time.monotonic`."""

    row: Incoming
    deadline: float | None
    arrived: float
    future: Future[RowAnswer] = field(default_factory=Future)


@dataclass(slots=True)
class _Batch:
    """Rows that were taken together; `is_alone` when no other stream runs or has work."""

    entries: list[_Entry]
    late: list[_Entry]
    is_alone: bool


class Batcher:
    """An engine with a queue before it."""

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch: int | None = None,
        max_delay_s: float = 0.002,
        observe: Callable[[RowAnswer], None] | None = None,
    ) -> None:
        """
        Args:
            engine: closed by whoever opened it, after this.
            max_batch: rows of one run; by default what the engine prefers.
            max_delay_s: the longest that rows wait for others that are being read.
            observe: is told of each batch, by its first row's answer.
        """
        self._engine = engine
        self._max_batch = max_batch or engine.info.batch_size
        self._max_delay_s = max_delay_s
        self._observe = observe or (lambda answer: None)
        self._queue: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._expected = self._busy = self._idle = 0
        self._seconds_a_row: float | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"stream-{i}", daemon=True)
            for i in range(engine.info.streams)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """The rows in the queue."""
        return len(self._queue)

    def seconds_for(self, rows: int) -> float:
        """How long so many rows take, by the last ones; 0 before any was seen."""
        return (self._seconds_a_row or 0.0) * rows

    @contextmanager
    def expecting(self, rows: int) -> Iterator[None]:
        """While this is entered, so many rows may be on their way; a batch may wait for them."""
        with self._changed:
            self._expected += rows
        try:
            yield
        finally:
            with self._changed:
                self._expected -= rows
                self._changed.notify_all()

    def submit(
        self, rows: Sequence[Incoming], *, deadline: float | None = None
    ) -> list[Future[RowAnswer]]:
        """A future a row, in their order; cancelling one takes the row out of the queue.

        Args:
            rows: images, uint8 [H, W, C], or tensors that are normalised, float32 [C, H, W];
                those of one kind and size can run together.
            deadline: when their answers are of no use any more, by `time.monotonic`.

        Raises:
            NotReadyError: the batcher is closed.
        """
        now = time.monotonic()
        entries = [_Entry(row, deadline, now) for row in rows]
        with self._changed:
            if self._closed:
                raise NotReadyError("the model is being unloaded; ask again.")
            self._queue.extend(entries)
            self._changed.notify_all()
        for entry in entries:
            entry.future.add_done_callback(lambda _, entry=entry: self._forget(entry))  # type: ignore[misc]
        return [entry.future for entry in entries]

    def close(self) -> None:
        """What was submitted is answered, and the threads have ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _forget(self, entry: _Entry) -> None:
        """A cancelled row leaves the queue at once."""
        if entry.future.cancelled():
            with self._changed:
                if entry in self._queue:
                    self._queue.remove(entry)

    def _work(self) -> None:
        """One stream: batch after batch, until there will be no more."""
        while (batch := self._take()) is not None:
            self._refuse(batch.late)
            try:
                answers = self._run(batch)
            finally:
                # Before anybody hears of the answers: who asks again at once finds a free stream.
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()
            for entry, answer in answers:
                entry.future.set_result(answer)

    def _take(self) -> _Batch | None:
        """The next batch, once there is one; None when there will be none."""
        with self._changed:
            while not self._queue or (wait_s := self._wait_s()) > 0:
                if not self._queue and self._closed:
                    return None
                self._idle += 1
                self._changed.wait(wait_s if self._queue else None)
                self._idle -= 1
            free = 1 + self._idle
            share = min(self._max_batch, -(-len(self._queue) // free))
            kind, now = kind_of(self._queue[0].row), time.monotonic()
            batch = _Batch([], [], False)
            while self._queue and len(batch.entries) < share:
                if kind_of(self._queue[0].row) != kind:
                    break
                entry = self._queue.popleft()
                is_late = entry.deadline is not None and now > entry.deadline
                (batch.late if is_late else batch.entries).append(entry)
            batch.is_alone = not self._busy and not self._queue
            self._busy += 1
            return batch

    def _wait_s(self) -> float:
        """How long the rows that wait should do so still; 0 or less when they should run."""
        if self._closed or not self._expected or len(self._queue) >= self._max_batch:
            return 0.0
        return self._queue[0].arrived + self._max_delay_s - time.monotonic()

    def _refuse(self, late: list[_Entry]) -> None:
        """Rows whose deadline passed while they waited."""
        for entry in late:
            if entry.future.set_running_or_notify_cancel():
                waited_ms = (time.monotonic() - entry.arrived) * 1000
                entry.future.set_exception(
                    LateError(f"the deadline passed after {waited_ms:.0f} ms in the queue.")
                )

    def _run(self, batch: _Batch) -> list[tuple[_Entry, RowAnswer]]:
        """The rows with their logits; where the engine failed, they have been told, and none."""
        taken = [entry for entry in batch.entries if entry.future.set_running_or_notify_cancel()]
        if not taken:
            return []
        started = time.monotonic()
        try:
            logits = self._compute([entry.row for entry in taken], alone=batch.is_alone)
        except BaseException as error:  # It is raised where the answers are waited for.
            for entry in taken:
                entry.future.set_exception(error)
            return []
        network_s = time.monotonic() - started
        self._measure(network_s, len(taken), alone=batch.is_alone)
        answers = [
            (entry, RowAnswer(row, started - entry.arrived, network_s, len(taken)))
            for entry, row in zip(taken, logits, strict=True)
        ]
        self._observe(answers[0][1])
        return answers

    def _compute(self, rows: Sequence[Any], *, alone: bool) -> Logits:
        """The logits [N, classes] of rows of one kind, by the whole machine or a stream's share."""
        engine = self._engine
        if rows[0].dtype == np.uint8:
            return (engine.run if alone else engine.run_share)(np.stack(rows))
        return (engine.run_tensor if alone else engine.run_tensor_share)(np.stack(rows))

    def _measure(self, network_s: float, rows: int, *, alone: bool) -> None:
        """The speed that `seconds_for` goes by."""
        streams = 1 if alone else len(self._threads)
        newest = network_s / rows / streams
        kept = self._seconds_a_row
        self._seconds_a_row = newest if kept is None else kept + NEWEST * (newest - kept)


def kind_of(row: Incoming) -> tuple[Any, ...]:
    """What rows of one call have in common: whether they are images or tensors, and their size."""
    return row.dtype, row.shape

"""Items that come in their own time, from a pipe or a camera: none waits for those behind it.

A thread of its own takes the items, so that waiting for the next one can end. Whoever finds none
there answers what it has, as soon as a stream is free; while all of them compute, batches grow.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, Generic, TypeVar

from densepath.predict.flow import AnswerAll, FlowBatch, Read, Start, shared_out, workers

Answer = TypeVar("Answer")

# So long a free stream waits for one more item before it answers those that are there: many
# names that a program writes at once arrive in less.
PATIENCE_SECONDS = 0.005


def live_flow(
    items: Iterable[Any],
    *,
    read: Read,
    answer: AnswerAll[Answer],
    answer_alone: AnswerAll[Answer] | None = None,
    batch_size: int,
    streams: int,
) -> Iterator[Answer]:
    """As `flow`; but an answer is there once it is made, whether or not another item comes.

    Which items share a batch depends on when they come, and so may the last digits of an answer.

    Args:
        items: taken by a thread of its own, up to a batch before their turn; one that is still
            waited for when the generator is closed is left alone.
        read, answer, batch_size, streams: as in `flow`.
        answer_alone: instead of `answer`, for an item that comes alone.
    """
    arrivals = Arrivals(items, batch_size)
    with closing(arrivals), workers(read, streams) as start:
        yield from _Live(arrivals, start, answer, answer_alone or answer).run(batch_size, streams)
    if arrivals.failure is not None:
        raise arrivals.failure


class Arrivals:
    """The items of an iterable as they come.

    Attributes:
        failure: why no more of them could be had.
    """

    def __init__(self, items: Iterable[Any], most: int) -> None:
        """`items` are taken at once, until `most` wait to be asked for."""
        self.failure: BaseException | None = None
        self._items, self._most = items, most
        self._there: deque[Any] = deque()
        self._ended = self._closed = self._woken = False
        self._changed = threading.Condition()
        # A thread that waits for a pipe cannot be ended: the process must not wait for it.
        threading.Thread(target=self._take, name="arrivals", daemon=True).start()

    def wait(self, seconds: float | None) -> None:
        """Return when an item is there, or all were had, or `wake` was called, or in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._there or self._ended or self._woken, seconds)
            self._woken = False

    def wait_for_wake(self) -> None:
        """Return once `wake` was called."""
        with self._changed:
            self._changed.wait_for(lambda: self._woken)
            self._woken = False

    def wake(self, _: Any = None) -> None:
        """Let whoever waits go on."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def take(self, most: int) -> list[Any]:
        """The items that are there, up to so many."""
        with self._changed:
            taken = [self._there.popleft() for _ in range(min(most, len(self._there)))]
            self._changed.notify_all()
        return taken

    def over(self) -> bool:
        """Whether all items were had."""
        with self._changed:
            return self._ended and not self._there

    def close(self) -> None:
        """No more items are taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self) -> None:
        """The thread's life."""
        try:
            for item in self._items:
                with self._changed:
                    self._there.append(item)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: len(self._there) < self._most or self._closed)
                    if self._closed:
                        return
        except BaseException as error:  # It is raised where the answers are waited for.
            self.failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


class _Live(Generic[Answer]):
    """The batches of a `live_flow` that are on their way, and the items of the next one."""

    def __init__(
        self,
        arrivals: Arrivals,
        start: Start,
        answer: AnswerAll[Answer],
        answer_alone: AnswerAll[Answer],
    ) -> None:
        self._arrivals, self._start = arrivals, start
        self._answer, self._answer_alone = answer, answer_alone
        self._pending: deque[FlowBatch[Answer]] = deque()
        self._taken: list[Any] = []
        self._last = 0.0

    def run(self, batch_size: int, streams: int) -> Iterator[Answer]:
        """The answers, in order."""
        size = 1
        while True:
            while self._pending and self._pending[0].answers.done():
                yield from self._pending.popleft().answers.result()
            if len(self._pending) > 2 * streams:
                self._arrivals.wait_for_wake()
                continue
            self._gather(size * streams)
            over, idle = self._arrivals.over(), self._count_running() < streams
            if over and not self._taken and not self._pending:
                return
            waited = time.monotonic() - self._last
            full = len(self._taken) >= size * streams
            if self._taken and (full or over or (idle and waited >= PATIENCE_SECONDS)):
                self._hand_out(streams)
                size = min(2 * size, batch_size)
            elif over:
                self._arrivals.wait_for_wake()
            else:
                can_go = self._taken and idle
                self._arrivals.wait(PATIENCE_SECONDS - waited if can_go else None)

    def _gather(self, most: int) -> None:
        """Adds the items that are there to those that were taken."""
        if new := self._arrivals.take(most - len(self._taken)):
            self._taken += new
            self._last = time.monotonic()

    def _count_running(self) -> int:
        """The batches that are not answered yet."""
        return sum(not batch.answers.done() for batch in self._pending)

    def _hand_out(self, streams: int) -> None:
        """Starts the items that were taken; one that comes alone has the whole machine."""
        alone = len(self._taken) == 1 and not self._pending
        answer: Callable = self._answer_alone if alone else self._answer
        for items in shared_out(self._taken, streams):
            batch = FlowBatch[Answer](items)
            self._pending.append(batch)
            batch.answers.add_done_callback(self._arrivals.wake)
            self._start(batch, answer)
        self._taken = []

"""Images through reading and network on all cores at once; answers leave in order.

A worker reads an image; whoever reads the last one of a batch runs the network on it, as soon as
one of the engine's streams is free. So a core that has nothing to compute reads, and none waits
for another to stack a batch. The first batches are of one image, so that the first answers come
early, and the last ones are shared out evenly. Items that come in their own time go through
`live.py` instead, which never waits for more of them while answers could be given.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeAlias, TypeVar

from densepath.engines import forks
from densepath.engines.cores import usable_cores
from densepath.images.reading import ReadImage

Answer = TypeVar("Answer")
Read: TypeAlias = Callable[[Any], ReadImage]
AnswerAll: TypeAlias = Callable[[list[ReadImage]], list[Answer]]
Start: TypeAlias = Callable[["FlowBatch[Any]", "AnswerAll[Any]"], None]

# Workers beyond the streams: they read while all streams compute.
SPARE_WORKERS = 1
MOST_WORKERS = 64


class FlowBatch(Generic[Answer]):
    """Images that go through the network together, and their answers to be."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.read: list[ReadImage] = [ReadImage("", None)] * len(items)
        self.answers: Future[list[Answer]] = Future()
        self._left = len(items)
        self._lock = threading.Lock()

    def put(self, position: int, image: ReadImage) -> bool:
        """Takes an image that has been read; whether it was the last one."""
        self.read[position] = image
        with self._lock:
            self._left -= 1
            return self._left == 0


def flow(
    items: Iterable[Any],
    *,
    read: Read,
    answer: AnswerAll[Answer],
    answer_alone: AnswerAll[Answer] | None = None,
    batch_size: int,
    streams: int,
) -> Iterator[Answer]:
    """The answers to `items`, in order; a generator, at most two batches a stream ahead.

    Where `items` fail, the answers to those before come first.

    Args:
        items: taken one by one, by the thread that iterates; may be endless.
        read: makes an image of an item; called in several threads.
        answer: the answers to a batch; called in as many threads as there are streams.
        answer_alone: instead of `answer`, where there is but one item.
        batch_size: the most images of a batch.
        streams: the batches that are answered at the same time.
    """
    failures: list[Exception] = []
    source = _until_failure(items, failures)
    first = list(itertools.islice(source, 2))
    if len(first) == 1 and answer_alone is not None:
        yield from answer_alone([read(first[0])])
    else:
        lists = batches(itertools.chain(first, source), batch_size, streams)
        yield from _flow(map(FlowBatch[Answer], lists), read, answer, streams)
    if failures:
        raise failures[0]


def _flow(
    source: Iterator[FlowBatch[Answer]], read: Read, answer: AnswerAll[Answer], streams: int
) -> Iterator[Answer]:
    """The answers to the batches, read and answered by a pool of threads."""
    pending: deque[FlowBatch[Answer]] = deque()
    with workers(read, streams) as start:
        for batch in source:
            pending.append(batch)
            start(batch, answer)
            while len(pending) > 2 * streams or (pending and pending[0].answers.done()):
                yield from pending.popleft().answers.result()
        while pending:
            yield from pending.popleft().answers.result()


@contextmanager
def workers(read: Read, streams: int) -> Iterator[Start]:
    """Yields what starts a batch: its images are read, and then answered on a stream."""
    count = min(max(usable_cores(), streams + SPARE_WORKERS), MOST_WORKERS)
    pool = ThreadPoolExecutor(count, thread_name_prefix="read")
    free = threading.Semaphore(streams)

    def work(batch: FlowBatch[Any], answer: AnswerAll[Any], position: int) -> None:
        try:
            if batch.put(position, read(batch.items[position])):
                with free:
                    batch.answers.set_result(answer(batch.read))
        except BaseException as error:  # It is raised where the answers are waited for.
            if not batch.answers.done():
                batch.answers.set_exception(error)

    def start(batch: FlowBatch[Any], answer: AnswerAll[Any]) -> None:
        for position in range(len(batch.items)):
            pool.submit(work, batch, answer, position)

    try:
        yield start
    finally:
        forks.end_threads(pool)


def batches(items: Iterable[Any], batch_size: int, streams: int) -> Iterator[list[Any]]:
    """The items in lists of 1, then 2, 4, … `batch_size`, `streams` of each; the last ones alike.

    The lists depend on the items' number alone, and so do an answer's last digits.
    """
    left, size = iter(items), 1
    while taken := list(itertools.islice(left, size * streams)):
        yield from shared_out(taken, streams)
        size = min(2 * size, batch_size)


def shared_out(taken: list[Any], streams: int) -> Iterator[list[Any]]:
    """The items in as many lists as there are streams, or fewer: alike, but for the last."""
    share = -(-len(taken) // streams)
    return (taken[i : i + share] for i in range(0, len(taken), share))


def _until_failure(items: Iterable[Any], failures: list[Exception]) -> Iterator[Any]:
    """The items, until one cannot be had; why it cannot be goes into `failures`."""
    try:
        yield from items
    except Exception as error:  # whatever the caller's iterable raises
        failures.append(error)

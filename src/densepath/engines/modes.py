"""Latency or throughput: all cores on one image after another, or a core an image.

Cores that share each layer of a network wait for one another at every layer; cores that each run
the whole network do not, but then one image keeps only one of them busy. `auto` has both forms:
an image that comes alone is run on all cores, by a form that is made when the first one comes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn, TypeAlias, get_args

import numpy as np

from densepath.choices import Mode
from densepath.engines import forks
from densepath.engines.cores import count_threads
from densepath.engines.engine import (
    EngineInfo,
    Images,
    Incoming,
    Logits,
    Normalised,
    check_images,
    check_tensor,
)
from densepath.errors import UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.images.resize import Fit

# Images or a tensor, which a runtime's own function makes what its runtime takes.
RunPart: TypeAlias = Callable[[Incoming], Logits]


def count_streams(mode: Mode, threads: int | None) -> tuple[int, int]:
    """The streams, which run a part each at the same time, and the threads in all.

    Raises:
        UnknownNameError: no such mode.
        UsageError: fewer than one thread.
    """
    if mode not in get_args(Mode):
        raise UnknownNameError("mode", mode, get_args(Mode))
    count = count_threads(threads)
    return (1 if mode == "latency" else count), count


def check_one_stream(engine: str, mode: Mode) -> None:
    """Returns when the mode is one for a runtime whose threads always share each layer.

    Raises:
        UnknownNameError: no such mode.
        UsageError: `throughput`.
    """
    count_streams(mode, None)
    if mode == "throughput":
        raise UsageError(
            f"the engine {engine!r} has one stream: its threads share each image. Choose the mode "
            "auto or latency, or another engine."
        )


class Spread:
    """A runtime's network, spread over the streams.

    Attributes:
        lost: this process was forked since, and the threads stayed in the parent.
    """

    def __init__(
        self,
        run_part: RunPart,
        info: EngineInfo,
        *,
        build_alone: Callable[[], RunPart] | None = None,
        threads: ThreadPoolExecutor | None = None,
    ) -> None:
        """
        Args:
            run_part: the network on a part of a batch, on one stream; as many threads as there
                are streams may call it at once.
            info: says how many streams there are, and the most images of one call.
            build_alone: makes the network on all cores, for an image that comes alone; without
                it such an image too is run on one stream.
            threads: those that `run_part` must be called in, one a stream; by default any may.
        """
        self._run_part, self._info = run_part, info
        self._build_alone = build_alone
        self._alone: RunPart | None = None
        self._building = threading.Lock()
        self._running, self._closed, self.lost = 0, False, False
        self._changed = threading.Condition()
        self._bound = threads is not None
        self._pool = threads
        if threads is None and info.streams > 1:
            self._pool = ThreadPoolExecutor(info.streams, "network")
        forks.note_device(info.device)
        forks.tell_of_forks(self)

    def on_fork(self) -> None:
        """Nothing here may be used, nor freed, in this process."""
        self.lost = True
        forks.keep_for_ever(self)

    def run(self, batch: Incoming) -> Logits:
        """Logits [N, num_classes] of a batch that was checked, by all streams.

        Raises:
            UsageError: the engine is closed.
            EngineError: it is lost.
        """
        with self._counted():
            return self._run(batch)

    def _run(self, batch: Incoming) -> Logits:
        """The logits, by all streams."""
        if not len(batch):
            return self._no_logits()
        streams, part = self._info.streams, self._info.batch_size
        if len(batch) == 1 and streams > 1 and self._build_alone is not None:
            return self._run_alone(batch)
        rounds = -(-len(batch) // (part * streams))
        parts: list[Any] = np.array_split(batch, min(rounds * streams, len(batch)))
        if self._pool is None or (len(parts) == 1 and not self._bound):
            return np.concatenate([self._run_part(part) for part in parts])
        return np.concatenate(list(self._pool.map(self._run_part, parts)))

    def run_share(self, batch: Incoming) -> Logits:
        """As `run`, by one stream; where there are several, in one call."""
        if self._info.streams == 1:
            return self.run(batch)
        with self._counted():
            if not len(batch):
                return self._no_logits()
            if self._pool is not None and self._bound:
                return self._pool.submit(self._run_part, batch).result()
            return self._run_part(batch)

    def close(self) -> None:
        """The calls that were running and the threads have ended, and the network is let go.

        A runtime's network must not go while a thread computes with it.
        """
        if self.lost:
            return
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._running)
        if self._pool is not None:
            forks.end_threads(self._pool)
        self._run_part, self._build_alone, self._alone = _closed, None, None

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """A call, which `close` waits for.

        Raises:
            UsageError: the engine is closed.
            EngineError: it is lost.
        """
        if self.lost and not self._closed:
            raise forks.lost_engine(self._info.name)
        with nullcontext() if self.lost else self._changed:
            if self._closed:
                raise UsageError("the engine is closed; open it again to run images.")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _no_logits(self) -> Logits:
        """[0, num_classes]."""
        return np.zeros((0, self._info.num_classes), np.float32)

    def _run_alone(self, batch: Incoming) -> Logits:
        """The logits, by the form for an image that comes alone."""
        with self._building:
            if self._alone is None:
                assert self._build_alone is not None
                self._alone = self._build_alone()
        return self._alone(batch)


class SpreadEngine:
    """An engine whose runs a `Spread` shares out.

    Attributes:
        info: what it is.
        preprocess: what it normalises by.
    """

    info: EngineInfo
    preprocess: Preprocess
    _spread: Spread

    @property
    def fit(self) -> Fit:
        """The way from an image to the network's size."""
        return self.preprocess.fit

    @property
    def lost(self) -> bool:
        """Whether this process was forked since it was opened; it cannot answer then."""
        return self._spread.lost

    def __reduce__(self) -> NoReturn:
        forks.refuse_to_pickle(self.info.name)

    def run(self, images: Images) -> Logits:
        """uint8 [N, H, W, in_channels] → float32 [N, num_classes]."""
        check_images(images, self.info)
        return self._spread.run(images)

    def run_share(self, images: Images) -> Logits:
        """As `run`, on one stream."""
        check_images(images, self.info)
        return self._spread.run_share(images)

    def run_tensor(self, tensor: Normalised) -> Logits:
        """float32 [N, in_channels, H, W], normalised → float32 [N, num_classes]."""
        check_tensor(tensor, self.info)
        return self._spread.run(tensor)

    def run_tensor_share(self, tensor: Normalised) -> Logits:
        """As `run_tensor`, on one stream."""
        check_tensor(tensor, self.info)
        return self._spread.run_share(tensor)

    def close(self) -> None:
        """The network's memory is free."""
        self._spread.close()


def _closed(batch: Incoming) -> Logits:
    """What runs after `close`."""
    raise UsageError("the engine is closed; open it again to run images.")

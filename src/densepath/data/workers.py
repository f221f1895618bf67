"""Batches made ahead of time by worker processes."""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data._utils.signal_handling import _remove_worker_pids
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from densepath.data.batch import Batch, BatchMaker
from densepath.data.spawning import check_main_file, lost_worker
from densepath.errors import DensepathError

# How late a killed worker is noticed at most, while a batch is waited for.
CHECK_SECONDS = 1.0


class _Steps(torch.utils.data.Dataset[Batch | DensepathError]):
    """The steps as a data set of ready batches, for torch's worker processes."""

    def __init__(self, maker: BatchMaker, steps: list[NDArray[np.intp]]) -> None:
        self._maker, self._steps = maker, steps

    def __len__(self) -> int:
        """The number of steps."""
        return len(self._steps)

    def __getitem__(self, step: int) -> Batch | DensepathError:
        """The batch of a step, or what has made it impossible."""
        try:
            return self._maker(self._steps[step])
        except DensepathError as error:  # torch would bury its message in a traceback.
            return error


class _Batches(_MultiProcessingDataLoaderIter):
    """torch's iterator, which ends with an error whenever a worker is killed.

    torch raises its error in a handler of SIGCHLD, anywhere in the main thread: a lock that was
    just taken there, such as a queue's, is never released, and the next to take it hangs. Here the
    error is raised only where a batch is waited for.
    """

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """Take the workers from torch's handler before any lock is used."""
        _remove_worker_pids(id(self))
        self._worker_pids_set = False
        super()._reset(loader, first_iter)

    def _try_get_data(self, timeout: float = CHECK_SECONDS) -> tuple[bool, Any]:
        """Whether a worker has answered in time, and its answer.

        Raises:
            DataError: a worker is gone.
        """
        try:
            return super()._try_get_data(timeout)
        except (RuntimeError, OSError, EOFError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise lost_worker(error, [worker.exitcode for worker in self._workers]) from error

    def _mark_worker_as_unavailable(self, worker_id: int, shutdown: bool = False) -> None:
        """Tell a worker to end, unless it is dead: it may hold a lock that torch takes here."""
        if self._workers[worker_id].is_alive():
            super()._mark_worker_as_unavailable(worker_id, shutdown)


def made_by_workers(
    maker: BatchMaker, steps: list[NDArray[np.intp]], workers: int
) -> Iterator[Batch]:
    """The batches, made by worker processes that end with this generator.

    Raises:
        DataError: a worker process was killed.
        UsageError: the user's own file would do all anew in each worker process.
    """
    check_main_file()
    with warnings.catch_warnings():
        # More workers than cores are the user's choice.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[Batch | DensepathError] = DataLoader(
            _Steps(maker, steps),
            batch_size=None,
            num_workers=min(workers, len(steps)),
            worker_init_fn=_leave_signals_to_the_main_process,
        )
        batches = _Batches(loader)
    try:
        for _ in steps:
            batch = next(batches)
            if isinstance(batch, DensepathError):
                raise batch
            yield batch
    finally:
        _end_workers(batches)


def _end_workers(batches: _Batches) -> None:
    """No worker of torch's iterator runs any more, nor uses a temporary folder of this process.

    As the iterator's __del__ does, which would print what goes wrong on the way; but on a busy
    machine it gives up waiting after some seconds, and where a worker was killed while it held the
    lock of "done", it waits for ever.
    """
    done: Any = batches._workers_done_event
    if done._cond.acquire(timeout=CHECK_SECONDS):
        done._cond.release()
        with contextlib.suppress(RuntimeError, AttributeError):
            batches._shutdown_workers()
    batches._shutdown = True
    for worker in batches._workers:
        if worker.is_alive():
            worker.kill()
            worker.join()


def _leave_signals_to_the_main_process(_: int) -> None:
    """Let Ctrl-C end this worker through its parent, without a traceback of its own; so too
    SIGTERM, which launchers send to all processes of a job.
    """
    signal.set_wakeup_fd(-1)  # a worker that was forked has its parent's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_at_the_next)


def _end_at_the_next(number: int, _: FrameType | None) -> None:
    """End at the second of these signals, as the parent sends to a worker that does not end."""
    signal.signal(number, signal.SIG_DFL)

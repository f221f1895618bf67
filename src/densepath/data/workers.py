"""Batches made ahead of time by worker processes."""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections.abc import Iterator
from types import FrameType

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from densepath.data.batch import Batch, BatchMaker
from densepath.data.spawning import check_main_file, lost_worker
from densepath.errors import DensepathError


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
        batches = iter(loader)
    try:
        for _ in steps:
            batch = next(batches)
            if isinstance(batch, DensepathError):
                raise batch
            yield batch
    except (RuntimeError, OSError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise lost_worker(error) from error
    finally:
        # As the iterator's __del__ does, which would print what goes wrong on the way.
        with contextlib.suppress(RuntimeError, AttributeError):
            batches._shutdown_workers()  # type: ignore[attr-defined]


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

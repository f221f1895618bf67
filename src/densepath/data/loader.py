"""Samples → batches, in an order and with changes that (seed, epoch, index) decide alone.

Neither the number of worker processes nor a resumption changes a batch; with the same global
batch, any number of processes sees the same images in the same step.
"""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from densepath.choices import OnError
from densepath.data.augment import Augment, Box
from densepath.data.dataset import Dataset
from densepath.data.randomness import EpochRandomness, shuffled
from densepath.data.spawning import check_main_file, lost_worker
from densepath.data.steps import count_steps, share_out
from densepath.errors import (
    DensepathError,
    ImageError,
    UnknownNameError,
    UsageError,
    check_count,
)
from densepath.images.preprocess import Image, Preprocess

Made: TypeAlias = Literal["normalised", "pixels"]

CURE = "--on-error skip leaves such images out and counts them"


@dataclass
class Batch:
    """Images of one step.

    Attributes:
        images: float32 [N, C, H, W], normalised; of a loader of pixels uint8 [N, H, W, C].
        targets: int64 [N], or float32 [N, classes] of a multi-label set.
        indices: int64 [N], the samples' numbers in the data set.
        errors: the images that could not be read and are not in this batch.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    errors: list[ImageError]


class TrainLoader:
    """Augmented batches of one process in a training.

    An epoch's order is a permutation drawn by (seed, epoch), cut into steps by `cut_epoch`: every
    image comes once. Process r takes the r-th share of each step (`share_out`).

    Args:
        dataset: the training images.
        augment: the random changes.
        batch_size: the most images of this process in a step.
        least_images: what a step has at least, as far as there are so many.
        least_share: what a process has at least in a step, if it has any.
        seed: of order and changes.
        rank, world_size: this process among all.
        workers: processes that load.
        on_error: what an unreadable image does.
    """

    def __init__(
        self,
        dataset: Dataset,
        augment: Augment,
        *,
        batch_size: int,
        least_images: int = 1,
        least_share: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        on_error: OnError = "fail",
    ) -> None:
        _check(dataset, batch_size, workers, rank, world_size, on_error)
        self._dataset, self._augment, self._seed = dataset, augment, seed
        self._rank, self._world_size, self._least_share = rank, world_size, least_share
        self._workers, self._on_error = workers, on_error
        self.num_images = len(dataset)
        self.steps_per_epoch = count_steps(len(dataset), batch_size * world_size, least_images)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from `start_step` on.

        Raises:
            ImageError: an image cannot be read and `on_error` is `fail`.
        """
        change = _Augmented(self._augment, self._seed, epoch)
        maker = _BatchMaker(self._dataset, change, self._augment.preprocess)
        steps = self.order(epoch, start_step)
        yield from _batches(maker, steps, self._workers, self._on_error)

    def order(self, epoch: int, start_step: int = 0) -> list[NDArray[np.intp]]:
        """The numbers of this process's samples in each step of `epoch` from `start_step` on."""
        order = shuffled(len(self._dataset), self._seed, epoch)
        steps = np.array_split(order, self.steps_per_epoch)[start_step:]
        return [share_out(s, self._world_size, self._least_share)[self._rank] for s in steps]


class EvalLoader:
    """Batches in the data set's order; over all processes every image comes exactly once."""

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Preprocess,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        on_error: OnError = "fail",
        images: Made = "normalised",
    ) -> None:
        """`images` are what a network takes, or an engine, which normalises by itself: `pixels`."""
        _check(dataset, batch_size, workers, rank, world_size, on_error)
        self._maker = _BatchMaker(dataset, _Fitted(preprocess), preprocess, images)
        own = np.array_split(np.arange(len(dataset)), world_size)[rank]
        self._steps = [own[i : i + batch_size] for i in range(0, len(own), batch_size)]
        self._workers, self._on_error = workers, on_error

    def __len__(self) -> int:
        """The number of batches of this process."""
        return len(self._steps)

    def __iter__(self) -> Iterator[Batch]:
        """The batches.

        Raises:
            ImageError: an image cannot be read and `on_error` is `fail`.
        """
        yield from _batches(self._maker, self._steps, self._workers, self._on_error)


class _Change(Protocol):
    """What makes an image as large as the input. Picklable: worker processes get a copy."""

    def __call__(self, image: Image, index: int) -> tuple[Image, Box | None]:
        """uint8 HWC of the input's size, and a box that is 0 after normalising."""


@dataclass
class _Fitted:
    """Resized and cropped, as in prediction."""

    preprocess: Preprocess

    def __call__(self, image: Image, index: int) -> tuple[Image, Box | None]:
        return self.preprocess.fit(image), None


class _Augmented:
    """Changed at random, by (seed, epoch, index) alone."""

    def __init__(self, augment: Augment, seed: int, epoch: int) -> None:
        self._augment, self._randomness = augment, EpochRandomness(seed, epoch)

    def __call__(self, image: Image, index: int) -> tuple[Image, Box | None]:
        return self._augment.draw(image, self._randomness.at(index))


class _BatchMaker:
    """Sample numbers → a Batch; broken images are left out and listed."""

    def __init__(
        self,
        dataset: Dataset,
        change: _Change,
        preprocess: Preprocess,
        made: Made = "normalised",
    ) -> None:
        self._dataset, self._change, self._preprocess = dataset, change, preprocess
        self._made = made

    def __call__(self, indices: NDArray[np.intp]) -> Batch:
        images, boxes, targets, kept = [], [], [], []
        errors: list[ImageError] = []
        for index in indices.tolist():
            try:
                sample = self._dataset.load(index)
            except ImageError as error:
                errors.append(error)
                continue
            image, box = self._change(sample.image, index)
            images.append(image)
            boxes.append(box)
            targets.append(sample.target)
            kept.append(index)
        return Batch(
            self._stack(images, boxes),
            self._stack_targets(targets),
            torch.tensor(kept, dtype=torch.int64),
            errors,
        )

    def _stack(self, images: list[Image], boxes: list[Box | None]) -> Tensor:
        """[N, C, H, W], or pixels [N, H, W, C], also for N = 0."""
        size, channels = self._preprocess.size, self._preprocess.channels
        pixels = np.stack(images) if images else np.empty((0, *size, channels), np.uint8)
        if self._made == "pixels":
            return torch.from_numpy(pixels)
        values = self._preprocess.normalise(pixels)
        for number, box in enumerate(boxes):
            if box is not None:
                values[number, :, *box] = 0.0
        return torch.from_numpy(values)

    def _stack_targets(self, targets: Sequence[object]) -> Tensor:
        """int64 [N], or float32 [N, classes]."""
        if not self._dataset.multi_label:
            return torch.tensor(targets, dtype=torch.int64)
        classes = len(self._dataset.class_names)
        rows = np.array(targets, np.float32).reshape(len(targets), classes)
        return torch.from_numpy(rows)


class _Steps(torch.utils.data.Dataset[Batch | DensepathError]):
    """The steps as a data set of ready batches, for torch's worker processes."""

    def __init__(self, maker: _BatchMaker, steps: list[NDArray[np.intp]]) -> None:
        self._maker, self._steps = maker, steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, step: int) -> Batch | DensepathError:
        try:
            return self._maker(self._steps[step])
        except DensepathError as error:  # torch would bury its message in a traceback.
            return error


def _batches(
    maker: _BatchMaker, steps: list[NDArray[np.intp]], workers: int, on_error: OnError
) -> Iterator[Batch]:
    """The batches in order, made here or ahead of time by worker processes."""
    made = _made_by_workers(maker, steps, workers) if workers and steps else map(maker, steps)
    for batch in made:
        if batch.errors and on_error == "fail":
            first = batch.errors[0]
            raise ImageError(first.path, f"{first.reason}. {CURE}")
        yield batch


def _made_by_workers(
    maker: _BatchMaker, steps: list[NDArray[np.intp]], workers: int
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
    """Ctrl-C ends a worker through its parent, without a traceback of its own; so does SIGTERM,
    which launchers send to all processes of a job.
    """
    signal.set_wakeup_fd(-1)  # a worker that was forked has its parent's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_at_the_next)


def _end_at_the_next(number: int, _: FrameType | None) -> None:
    """The second of these signals, as the parent sends to a worker that does not end, ends it."""
    signal.signal(number, signal.SIG_DFL)


def _check(
    dataset: Dataset, batch_size: int, workers: int, rank: int, world_size: int, on_error: str
) -> None:
    """Returns when the data set can be cut into batches.

    Raises:
        UsageError: it cannot.
    """
    check_count("batch_size", batch_size)
    check_count("workers", workers, least=0)
    if not 0 <= rank < world_size:
        raise UsageError(f"rank is {rank} of {world_size} processes; it counts from 0.")
    if on_error not in get_args(OnError):
        raise UnknownNameError("policy for broken images", on_error, get_args(OnError))
    if len(dataset) == 0:
        raise UsageError(f"the data set has no images: {dataset.description}")

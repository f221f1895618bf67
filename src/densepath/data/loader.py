"""Samples → batches, in an order and with changes that (seed, epoch, index) decide alone.

Neither the number of worker processes nor a resumption changes a batch; with the same global
batch, any number of processes sees the same images in the same step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from densepath.choices import OnError, Sampler
from densepath.data.augment import Augment
from densepath.data.balance import draw_balanced, image_weights
from densepath.data.batch import Augmented, Batch, BatchMaker, Fitted, Made
from densepath.data.dataset import Dataset
from densepath.data.randomness import shuffled
from densepath.data.steps import count_steps, share_out
from densepath.data.workers import made_by_workers
from densepath.errors import ImageError, UnknownNameError, UsageError, check_count
from densepath.images.preprocess import Preprocess
from densepath.images.views import Views

CURE = "--on-error skip leaves such images out and counts them"


class TrainLoader:
    """Augmented batches of one process in a training.

    An epoch's order is a permutation drawn by (seed, epoch), cut into steps evenly: every image
    comes once; or `balanced`, with an image's number plus N for each time that it has come. Process
    r takes the r-th share of each step (`share_out`).

    Args:
        dataset: the training images.
        augment: the random changes; or those of each epoch, the last ones of later epochs, too.
        batch_size: the most images of this process in a step.
        least_images: what a step has at least, as far as there are so many.
        least_share: what a process has at least in a step, if it has any.
        seed: of order and changes.
        rank, world_size: this process among all.
        workers: processes that load.
        on_error: what an unreadable image does.
        sampler: `shuffle`, or `balanced`: drawn so that all classes come alike often.
    """

    def __init__(
        self,
        dataset: Dataset,
        augment: Augment | Sequence[Augment],
        *,
        batch_size: int,
        least_images: int = 1,
        least_share: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        on_error: OnError = "fail",
        sampler: Sampler = "shuffle",
    ) -> None:
        _check(dataset, batch_size, workers, rank, world_size, on_error)
        self._weights = image_weights(dataset) if sampler == "balanced" else None
        self._augments = [augment] if isinstance(augment, Augment) else list(augment)
        self._dataset, self._seed = dataset, seed
        self._rank, self._world_size, self._least_share = rank, world_size, least_share
        self._workers, self._on_error = workers, on_error
        self.num_images = len(dataset)
        self.steps_per_epoch = count_steps(len(dataset), batch_size * world_size, least_images)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from `start_step` on.

        Raises:
            ImageError: an image cannot be read and `on_error` is `fail`.
        """
        augment = self._augments[min(epoch, len(self._augments) - 1)]
        maker = BatchMaker(self._dataset, Augmented(augment, self._seed, epoch), augment.preprocess)
        steps = self.order(epoch, start_step)
        yield from _batches(maker, steps, self._workers, self._on_error)

    def order(self, epoch: int, start_step: int = 0) -> list[NDArray[np.intp]]:
        """The numbers of this process's samples in each step of `epoch` from `start_step` on."""
        if self._weights is None:
            order = shuffled(len(self._dataset), self._seed, epoch)
        else:
            order = draw_balanced(self._weights, self._seed, epoch)
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
        views: Views | None = None,
    ) -> None:
        """`images` are what a network takes, or an engine, which normalises by itself: `pixels`.

        With `views` each is [views, H, W, C].
        """
        _check(dataset, batch_size, workers, rank, world_size, on_error)
        change = Fitted(preprocess if views is None else views)
        self._maker = BatchMaker(dataset, change, preprocess, images)
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


def _batches(
    maker: BatchMaker, steps: list[NDArray[np.intp]], workers: int, on_error: OnError
) -> Iterator[Batch]:
    """The batches in order, made here or ahead of time by worker processes."""
    made = made_by_workers(maker, steps, workers) if workers and steps else map(maker, steps)
    for batch in made:
        if batch.errors and on_error == "fail":
            first = batch.errors[0]
            raise ImageError(first.path, f"{first.reason}. {CURE}")
        yield batch


def _check(
    dataset: Dataset, batch_size: int, workers: int, rank: int, world_size: int, on_error: str
) -> None:
    """Raise unless the data set can be cut into batches.

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

"""Samples → batches, in an order and with changes that (seed, epoch, index) decide alone.

Neither the number of worker processes nor a resumption changes a batch; with the same global
batch, any number of processes sees the same images in the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from densepath.data.augment import Augment, rng_for
from densepath.data.dataset import Dataset, Sample
from densepath.errors import ImageError, UsageError
from densepath.preprocess import Preprocess

OnError = Literal["fail", "skip"]
Transform = Callable[[Sample, int], NDArray[np.float32]]


@dataclass
class Batch:
    """Images of one step.

    Attributes:
        images: float32 [N, C, H, W].
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

    An epoch's order is a permutation drawn by (seed, epoch). Step b takes the next
    `batch_size · world_size` samples of it, and process r the r-th part of those. What does not
    fill the last step is left out, unless the set is smaller than one step.
    """

    def __init__(
        self,
        dataset: Dataset,
        augment: Augment,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        on_error: OnError = "fail",
    ) -> None:
        _check_sizes(dataset, batch_size, workers)
        self._dataset, self._augment = dataset, augment
        self._batch_size, self._seed = batch_size, seed
        self._rank, self._world_size = rank, world_size
        self._workers, self._on_error = workers, on_error

    @property
    def steps_per_epoch(self) -> int:
        """The steps of every epoch."""
        return max(len(self._dataset) // (self._batch_size * self._world_size), 1)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from `start_step` on.

        Raises:
            ImageError: an image cannot be read and `on_error` is `fail`.
        """
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._dataset))
        step_size = self._batch_size * self._world_size
        steps = [order[b * step_size :][:step_size] for b in range(self.steps_per_epoch)]
        own = [np.array_split(step, self._world_size)[self._rank] for step in steps[start_step:]]

        def transform(sample: Sample, index: int) -> NDArray[np.float32]:
            return self._augment(sample.image, rng_for(self._seed, epoch, index))

        maker = _BatchMaker(self._dataset, transform, self._augment.preprocess)
        yield from _batches(maker, own, self._workers, self._on_error)


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
    ) -> None:
        _check_sizes(dataset, batch_size, workers)
        self._maker = _BatchMaker(dataset, lambda s, _: preprocess(s.image), preprocess)
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


class _BatchMaker:
    """Sample numbers → a Batch; broken images are left out and listed."""

    def __init__(self, dataset: Dataset, transform: Transform, preprocess: Preprocess) -> None:
        self._dataset, self._transform, self._preprocess = dataset, transform, preprocess

    def __call__(self, indices: NDArray[np.intp]) -> Batch:
        images, targets, kept = [], [], []
        errors: list[ImageError] = []
        for index in map(int, indices):
            try:
                sample = self._dataset.load(index)
            except ImageError as error:
                errors.append(error)
                continue
            images.append(self._transform(sample, index))
            targets.append(sample.target)
            kept.append(index)
        return Batch(
            self._stack(images), self._stack_targets(targets), torch.tensor(kept).long(), errors
        )

    def _stack(self, images: list[NDArray[np.float32]]) -> Tensor:
        """[N, C, H, W], also for N = 0."""
        if images:
            return torch.from_numpy(np.stack(images))
        return torch.empty(0, self._preprocess.channels, *self._preprocess.size)

    def _stack_targets(self, targets: Sequence[object]) -> Tensor:
        """int64 [N], or float32 [N, classes]."""
        if not self._dataset.multi_label:
            return torch.tensor(targets, dtype=torch.int64)
        classes = len(self._dataset.class_names)
        rows = np.array(targets, np.float32).reshape(len(targets), classes)
        return torch.from_numpy(rows)


class _Steps(torch.utils.data.Dataset[Batch]):
    """The steps as a data set of ready batches, for torch's worker processes."""

    def __init__(self, maker: _BatchMaker, steps: list[NDArray[np.intp]]) -> None:
        self._maker, self._steps = maker, steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, step: int) -> Batch:
        return self._maker(self._steps[step])


def _batches(
    maker: _BatchMaker, steps: list[NDArray[np.intp]], workers: int, on_error: OnError
) -> Iterator[Batch]:
    """The batches in order, made here or ahead of time by worker processes."""
    made: Iterator[Batch]
    if workers:
        loader: DataLoader[Batch] = DataLoader(
            _Steps(maker, steps), batch_size=None, num_workers=min(workers, max(len(steps), 1))
        )
        made = iter(loader)
    else:
        made = map(maker, steps)
    for batch in made:
        if batch.errors and on_error == "fail":
            raise batch.errors[0]
        yield batch


def _check_sizes(dataset: Dataset, batch_size: int, workers: int) -> None:
    """Returns when the data set can be cut into batches."""
    if batch_size < 1 or workers < 0:
        raise UsageError(
            f"batch_size is {batch_size} and workers {workers}; they must be at least 1 and 0."
        )
    if len(dataset) == 0:
        raise UsageError(f"the data set has no images: {dataset.description}")

"""Samples → a batch: loaded, changed, normalised and stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densepath.data.augment import Augment, Box
from densepath.data.dataset import Dataset
from densepath.data.randomness import EpochRandomness
from densepath.errors import ImageError
from densepath.images.preprocess import Image, Preprocess

Made: TypeAlias = Literal["normalised", "pixels"]


@dataclass
class Batch:
    """Images of one step.

    Attributes:
        images: float32 [N, C, H, W], normalised; of a loader of pixels uint8 [N, H, W, C].
        targets: int64 [N], or float32 [N, classes] of a multi-label set, NaN where not known.
        indices: int64 [N], the samples' numbers in the data set.
        errors: the images that could not be read and are not in this batch.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    errors: list[ImageError]


class Change(Protocol):
    """What makes an image as large as the input. Picklable: worker processes get a copy."""

    def __call__(self, image: Image, index: int) -> tuple[Image, Box | None]:
        """uint8 HWC of the input's size, and a box that is 0 after normalising."""


@dataclass
class Fitted:
    """The change of an evaluation: resized and cropped, as in prediction."""

    preprocess: Preprocess

    def __call__(self, image: Image, index: int) -> tuple[Image, Box | None]:
        """uint8 HWC of the input's size, and no box."""
        return self.preprocess.fit(image), None


class Augmented:
    """The change of a training image: at random, by (seed, epoch, index) alone."""

    def __init__(self, augment: Augment, seed: int, epoch: int) -> None:
        self._augment, self._randomness = augment, EpochRandomness(seed, epoch)

    def __call__(self, image: Image, index: int) -> tuple[Image, Box | None]:
        """uint8 HWC of the input's size, and the box that is erased."""
        return self._augment.draw(image, self._randomness.at(index))


class BatchMaker:
    """Sample numbers → a Batch; broken images are left out and listed."""

    def __init__(
        self,
        dataset: Dataset,
        change: Change,
        preprocess: Preprocess,
        made: Made = "normalised",
    ) -> None:
        self._dataset, self._change, self._preprocess = dataset, change, preprocess
        self._made = made

    def __call__(self, indices: NDArray[np.intp]) -> Batch:
        """The samples of these numbers, in their order.

        Number N + i of N samples is i again, changed by other random draws.
        """
        images, boxes, targets, kept = [], [], [], []
        errors: list[ImageError] = []
        for index in indices.tolist():
            number = index % len(self._dataset)
            try:
                sample = self._dataset.load(number)
            except ImageError as error:
                errors.append(error)
                continue
            image, box = self._change(sample.image, index)
            images.append(image)
            boxes.append(box)
            targets.append(sample.target)
            kept.append(number)
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

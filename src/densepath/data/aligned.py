"""A part that comes from elsewhere, under the class numbers of the training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from densepath.data.dataset import Dataset, Sample, Target, one_line
from densepath.errors import DatasetError, LabelMismatchError
from densepath.wording import first_of

NAMED = 5


class Aligned:
    """`dataset` with other class numbers, and as a multi-label set where that is wanted."""

    def __init__(
        self,
        dataset: Dataset,
        class_names: Sequence[str],
        positions: Mapping[int, int],
        *,
        multi_label: bool,
    ) -> None:
        self._dataset, self._positions = dataset, positions
        self.class_names, self.named = list(class_names), dataset.named
        self.multi_label, self.groups = multi_label, dataset.groups
        self.description = dataset.description

    __repr__ = one_line

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._dataset)

    def load(self, index: int) -> Sample:
        """Sample `index`; raises ImageError when its image cannot be read."""
        sample = self._dataset.load(index)
        return Sample(sample.image, self.target(index), sample.path)

    def path(self, index: int) -> str:
        """The name of sample `index`."""
        return self._dataset.path(index)

    def target(self, index: int) -> Target:
        """The target of sample `index`, without reading its image."""
        target = self._dataset.target(index)
        if not self.multi_label:
            assert isinstance(target, int)
            return self._positions[target]
        made = np.zeros(len(self.class_names), np.float32)
        if isinstance(target, int):
            made[self._positions[target]] = 1.0
            return made
        for number in np.flatnonzero(target).tolist():
            made[self._positions[number]] = target[number]
        return made

    def fingerprint(self, index: int) -> int:
        """64 bits of the contents of sample `index`."""
        return self._dataset.fingerprint(index)


def as_multi_label(dataset: Dataset) -> Dataset:
    """The set with its one class an image as one of several that there could be."""
    if dataset.multi_label:
        return dataset
    positions = {number: number for number in range(len(dataset.class_names))}
    return Aligned(dataset, dataset.class_names, positions, multi_label=True)


def align(dataset: Dataset, trained: Dataset) -> Dataset:
    """`dataset` under the class numbers of the training images.

    Raises:
        LabelMismatchError: it has a class that they do not have, or several labels an image
            where they have one.
    """
    if dataset.multi_label and not trained.multi_label:
        raise LabelMismatchError(
            f"{dataset.description} has several labels an image, the training images have one."
        )
    if trained.multi_label:
        dataset = as_multi_label(dataset)
    if dataset.class_names == trained.class_names:
        return dataset
    if not (dataset.named and trained.named):
        return _by_number(dataset, trained)
    there = {name: number for number, name in enumerate(trained.class_names)}
    unknown = [name for name in dataset.class_names if name not in there]
    if unknown:
        raise LabelMismatchError(
            f"{dataset.description} has classes that the training images do not have: "
            f"{first_of(unknown, NAMED)}. Rename or remove them."
        )
    positions = {number: there[name] for number, name in enumerate(dataset.class_names)}
    return Aligned(dataset, trained.class_names, positions, multi_label=trained.multi_label)


def _by_number(dataset: Dataset, trained: Dataset) -> Dataset:
    """Where one of both has numbers only, the numbers of both are the same.

    Raises:
        LabelMismatchError: it has more classes.
    """
    if len(dataset.class_names) > len(trained.class_names):
        raise LabelMismatchError(
            f"{dataset.description} has the class {len(dataset.class_names) - 1}; the training "
            f"images end at {len(trained.class_names) - 1}."
        )
    positions = {number: number for number in range(len(dataset.class_names))}
    return Aligned(dataset, trained.class_names, positions, multi_label=trained.multi_label)


def check_single_label(dataset: Dataset) -> None:
    """Raise unless each image has one label, as the options say.

    Raises:
        DatasetError: images can have several.
    """
    if dataset.multi_label:
        raise DatasetError(
            f"{dataset.description} has several labels an image; data.multi_label=false says that "
            "each has one. Leave that out."
        )

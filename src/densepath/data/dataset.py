"""What every source of images is: numbered samples with class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from densepath.choices import Split
from densepath.errors import UnknownNameError
from densepath.images.preprocess import Image
from densepath.wording import first_of

SPLITS: tuple[Split, ...] = get_args(Split)
Target = int | NDArray[np.float32]
Indices = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """One image and its class.

    Attributes:
        image: uint8 [height, width, channels], values 0 to 255.
        target: the class's number; in a multi-label set float32 [classes] of 0 and 1, and NaN
            where it is not known.
        path: the file, or a name like `digits/test/17` where there is none.
    """

    image: Image
    target: Target
    path: str


class Dataset(Protocol):
    """Numbered samples.

    Attributes:
        class_names: in the order of the class numbers.
        named: whether the classes have names; those of a bare list file have only numbers.
        multi_label: whether an image can have several classes, or none.
        groups: int64 [N], the group (patient, scene, ...) of each sample; None where none is given.
        description: one sentence: which files, which split, and by which rule.
    """

    class_names: list[str]
    named: bool
    multi_label: bool
    groups: NDArray[np.int64] | None
    description: str

    def __len__(self) -> int:
        """The number of samples."""

    def load(self, index: int) -> Sample:
        """Sample `index`; raises ImageError when its image cannot be read."""

    def path(self, index: int) -> str:
        """The name of sample `index`, without reading it."""

    def target(self, index: int) -> Target:
        """The target of sample `index`, without reading its image."""

    def fingerprint(self, index: int) -> int:
        """64 bits of the contents of sample `index`: equal for equal images, whatever their names.

        An image that cannot be read has the fingerprint of its name.
        """


def one_line(dataset: Dataset) -> str:
    """What `repr` says of a data set."""
    count, classes = len(dataset), dataset.class_names
    kind = type(dataset).__name__
    said = f"{count:,} images, {len(classes):,} classes: {first_of(classes)}"
    return f"<{kind}: {said}; {dataset.description}>"


class Subset:
    """The samples of `dataset` at `indices`, in that order."""

    def __init__(self, dataset: Dataset, indices: Indices, description: str) -> None:
        self._dataset, self._indices = dataset, np.asarray(indices, np.int64)
        self.class_names, self.named = dataset.class_names, dataset.named
        self.multi_label = dataset.multi_label
        self.groups = None if dataset.groups is None else dataset.groups[self._indices]
        self.description = description

    __repr__ = one_line

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._indices)

    def load(self, index: int) -> Sample:
        """Sample `index`; raises ImageError when its image cannot be read."""
        return self._dataset.load(int(self._indices[index]))

    def path(self, index: int) -> str:
        """The name of sample `index`."""
        return self._dataset.path(int(self._indices[index]))

    def target(self, index: int) -> Target:
        """The target of sample `index`."""
        return self._dataset.target(int(self._indices[index]))

    def fingerprint(self, index: int) -> int:
        """64 bits of the contents of sample `index`."""
        return self._dataset.fingerprint(int(self._indices[index]))


def gather_targets(dataset: Dataset) -> NDArray[np.int64] | NDArray[np.float32]:
    """All targets: int64 [N], or float32 [N, classes] of a multi-label set, NaN: not known."""
    targets = [dataset.target(index) for index in range(len(dataset))]
    if dataset.multi_label:
        return np.array(targets, np.float32).reshape(len(dataset), len(dataset.class_names))
    return np.array(targets, np.int64)


def check_split(split: str) -> None:
    """Raise unless there is such a split.

    Raises:
        UnknownNameError: there is not.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)

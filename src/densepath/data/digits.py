"""scikit-learn's handwritten digits: 1,797 real images that need no network.

The 8 × 8 images of 0…16 become 0…255. In each class every fifth image in the order of the file
is a test image: 355 of them, and 1,442 to train on.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (CC BY 4.0).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Sample, one_line
from densepath.data.fingerprint import fingerprint_array
from densepath.data.parts import Parts

TEST_EVERY = 5


class DigitsDataset:
    """The digits of `train` or `test`."""

    named, multi_label = True, False
    groups: NDArray[np.int64] | None = None

    def __init__(self, name: Literal["train", "test"], *, channels: int = 3) -> None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        self.class_names = [str(digit) for digit in range(10)]
        self._name = name
        chosen = _is_test(bunch.target) == (self._name == "test")
        gray = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)
        self._images = np.repeat(gray[..., None], channels, axis=3)
        self._targets = bunch.target[chosen]
        self.description = f"scikit-learn's digits, {self._name} split ({len(self):,} images)"

    __repr__ = one_line

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._targets)

    def load(self, index: int) -> Sample:
        """Sample `index`."""
        return Sample(self._images[index], self.target(index), self.path(index))

    def path(self, index: int) -> str:
        """`digits/SPLIT/INDEX`."""
        return f"digits/{self._name}/{index}"

    def target(self, index: int) -> int:
        """The digit."""
        return int(self._targets[index])

    def fingerprint(self, index: int) -> int:
        """64 bits of the pixels."""
        return fingerprint_array(self._images[index, :, :, :1])


def find_digits(channels: int) -> Parts:
    """The two parts of the set."""
    return Parts(
        {
            "train": lambda: DigitsDataset("train", channels=channels),
            "test": lambda: DigitsDataset("test", channels=channels),
        },
        {
            "train": "all digits but the test images",
            "test": f"every {TEST_EVERY}th digit of each class",
        },
    )


def _is_test(targets: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each image is every fifth of its class."""
    chosen = np.zeros(len(targets), bool)
    for digit in range(10):
        chosen[np.flatnonzero(targets == digit)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return chosen

"""scikit-learn's handwritten digits: 1,797 real images that need no network.

The 8 × 8 images of 0…16 become 0…255. In each class every fifth image in the order of the file
is a test image: 355 of them, and 1,442 to train on.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (CC BY 4.0).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Sample, Split, check_split

TEST_EVERY = 5


class DigitsDataset:
    """The digits of one split; `validation` is the test split."""

    named, multi_label = True, False

    def __init__(self, split: Split, *, channels: int = 3) -> None:
        from sklearn.datasets import load_digits

        check_split(split)
        bunch = load_digits()
        self.class_names = [str(digit) for digit in range(10)]
        self._name = "train" if split == "train" else "test"
        chosen = _is_test(bunch.target) == (self._name == "test")
        gray = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)
        self._images = np.repeat(gray[..., None], channels, axis=3)
        self._targets = bunch.target[chosen]
        self.description = f"scikit-learn's digits, {self._name} split ({len(self):,} images)"

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


def _is_test(targets: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each image is every fifth of its class."""
    chosen = np.zeros(len(targets), bool)
    for digit in range(10):
        chosen[np.flatnonzero(targets == digit)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return chosen

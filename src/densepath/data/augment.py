"""Random changes of one training image: uint8 HWC → float32 CHW, the network's input.

All randomness comes from a generator made of (seed, epoch, index), so that a training that is
resumed, or run with other workers or more processes, sees the same images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from densepath.data.randaugment import color_jitter, rand_augment
from densepath.errors import UnknownNameError
from densepath.preprocess import Image, Preprocess, resize

Crop = Literal["random_resized_crop", "pad_crop", "none"]
CROP_TRIES = 10  # As in torchvision's RandomResizedCrop.
ERASED_SHARE = (0.02, 1 / 3)  # arXiv:1708.04896, section 4.1.
ERASED_RATIO = (0.3, 3.3)


@dataclass(frozen=True)
class Augment:
    """How a training image is changed. Rates are probabilities.

    Attributes:
        preprocess: size, interpolation and statistics of the input.
        crop: `random_resized_crop` (arXiv:1409.4842), `pad_crop` (zeros around the image, then
            a crop of its size: arXiv:1608.06993, section 4.1), or `none` (as in evaluation).
        scale, ratio: area and aspect ratio of `random_resized_crop`.
        padding: pixels on each side of `pad_crop`.
        hflip, vflip: mirroring.
        color_jitter: strength for brightness, contrast and saturation; 0 is off.
        randaugment_ops, randaugment_magnitude: N and M of arXiv:1909.13719; N = 0 is off.
        random_erasing: the rate of arXiv:1708.04896; erased pixels become 0, the mean.
    """

    preprocess: Preprocess
    crop: Crop = "random_resized_crop"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: int = 4
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.0
    randaugment_ops: int = 0
    randaugment_magnitude: float = 9.0
    random_erasing: float = 0.0

    def __post_init__(self) -> None:
        """Raises UnknownNameError for an unknown crop."""
        if self.crop not in get_args(Crop):
            raise UnknownNameError("crop", self.crop, get_args(Crop))

    def __call__(self, image: Image, rng: np.random.Generator) -> NDArray[np.float32]:
        """uint8 HWC of any size → float32 CHW of the preprocessing's size."""
        changed = self._cropped(image, rng)
        if self.hflip and rng.random() < self.hflip:
            changed = changed[:, ::-1]
        if self.vflip and rng.random() < self.vflip:
            changed = changed[::-1]
        if self.randaugment_ops:
            changed = rand_augment(changed, self.randaugment_ops, self.randaugment_magnitude, rng)
        if self.color_jitter:
            changed = color_jitter(changed, self.color_jitter, rng)
        values = self.preprocess.normalise(changed)
        if self.random_erasing and rng.random() < self.random_erasing:
            _erase(values, rng)
        return values

    def _cropped(self, image: Image, rng: np.random.Generator) -> Image:
        """The image cropped at random to the preprocessing's size."""
        crops: dict[str, Callable[[Image, np.random.Generator], Image]] = {
            "random_resized_crop": self._random_resized_crop,
            "pad_crop": self._pad_crop,
            "none": lambda image, _: self.preprocess.fit(image),
        }
        return crops[self.crop](image, rng)

    def _pad_crop(self, image: Image, rng: np.random.Generator) -> Image:
        """The image at the input's size, moved by up to `padding` pixels over black."""
        fitted, pad = self.preprocess.fit(image), self.padding
        height, width, channels = fitted.shape
        padded = np.zeros((height + 2 * pad, width + 2 * pad, channels), np.uint8)
        padded[pad : pad + height, pad : pad + width] = fitted
        top, left = rng.integers(0, 2 * pad + 1, 2)
        return padded[top : top + height, left : left + width]

    def _random_resized_crop(self, image: Image, rng: np.random.Generator) -> Image:
        """A part of random area and aspect ratio, resized to the input's size."""
        top, left, height, width = self._random_box(image.shape[0], image.shape[1], rng)
        part = image[top : top + height, left : left + width]
        return resize(part, self.preprocess.size, self.preprocess.interpolation)

    def _random_box(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width; the largest centred box when ten draws do not fit.

        Source: torchvision `transforms.RandomResizedCrop.get_params`.
        """
        for _ in range(CROP_TRIES):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
                return int(top), int(left), h, w
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
        return (height - h) // 2, (width - w) // 2, max(h, 1), max(w, 1)


def rng_for(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample in one epoch; it depends on these three numbers alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, index))))


def _erase(values: NDArray[np.float32], rng: np.random.Generator) -> None:
    """A random rectangle of the float32 CHW `values` is 0 (arXiv:1708.04896, algorithm 1)."""
    _, height, width = values.shape
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*ERASED_SHARE)
        ratio = math.exp(rng.uniform(math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < h < height and 0 < w < width:
            top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
            values[:, top : top + h, left : left + w] = 0.0
            return

"""Random changes of one training image: uint8 HWC → float32 CHW, the network's input.

All randomness comes from a generator made of (seed, epoch, index), so that a training that is
resumed, or run with other workers or more processes, sees the same images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from densepath.data.randaugment import color_jitter, rand_augment
from densepath.data.randomness import rng_for as rng_for
from densepath.errors import UnknownNameError, UsageError
from densepath.images.preprocess import Image, Preprocess, resize

Crop = Literal["random_resized_crop", "clamped_crop", "pad_crop", "none"]
Box = tuple[slice, slice]
CROP_TRIES = 10  # As in torchvision's RandomResizedCrop.
ERASED_SHARE = (0.02, 1 / 3)  # arXiv:1708.04896, section 4.1.
ERASED_RATIO = (0.3, 3.3)


@dataclass(frozen=True)
class Augment:
    """How a training image is changed. Rates are probabilities.

    Attributes:
        preprocess: size, interpolation and statistics of the input.
        crop: `random_resized_crop` (arXiv:1409.4842; torchvision's and timm's), `clamped_crop`
            (the same idea as PaddleClas draws it), `pad_crop` (zeros around the image, then
            a crop of its size: arXiv:1608.06993, section 4.1), or `none` (as in evaluation).
        scale, ratio: area and aspect ratio of the first two.
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
        """Raise UsageError unless every field has a value that an augmentation can have."""
        if self.crop not in get_args(Crop):
            raise UnknownNameError("crop", self.crop, get_args(Crop))
        for name in ("hflip", "vflip", "random_erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; a rate lies in 0 to 1.")
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UsageError(f"{name} is ({low}, {high}); it must rise from above 0.")
        if (self.randaugment_ops or self.color_jitter) and self.preprocess.channels not in (1, 3):
            raise UsageError(
                f"randaugment and color_jitter change images of 1 or 3 channels, not of "
                f"{self.preprocess.channels}; set both to 0."
            )

    def __call__(self, image: Image, rng: np.random.Generator) -> NDArray[np.float32]:
        """uint8 HWC of any size → float32 CHW of the preprocessing's size."""
        changed, erased = self.draw(image, rng)
        values = self.preprocess.normalise(changed)
        if erased is not None:
            values[:, *erased] = 0.0
        return values

    def draw(self, image: Image, rng: np.random.Generator) -> tuple[Image, Box | None]:
        """The changed image, uint8 HWC of the preprocessing's size, and the box to erase.

        What is erased becomes 0 after normalising; a loader normalises whole batches.
        """
        flips = rng.random(2)
        changed = self._cropped(image, rng)
        if flips[0] < self.hflip:
            changed = changed[:, ::-1]
        if flips[1] < self.vflip:
            changed = changed[::-1]
        if self.randaugment_ops:
            changed = rand_augment(changed, self.randaugment_ops, self.randaugment_magnitude, rng)
        if self.color_jitter:
            changed = color_jitter(changed, self.color_jitter, rng)
        if self.random_erasing and rng.random() < self.random_erasing:
            return changed, _erased_box(self.preprocess.size, rng)
        return changed, None

    def _cropped(self, image: Image, rng: np.random.Generator) -> Image:
        """The image cropped at random to the preprocessing's size."""
        if self.crop == "none":
            return self.preprocess.fit(image)
        if self.crop == "pad_crop":
            return self._pad_crop(image, rng)
        draw = self._random_box if self.crop == "random_resized_crop" else self._clamped_box
        top, left, height, width = draw(image.shape[0], image.shape[1], rng)
        part = image[top : top + height, left : left + width]
        return resize(part, self.preprocess.size, self.preprocess.interpolation)

    def _pad_crop(self, image: Image, rng: np.random.Generator) -> Image:
        """The image at the input's size, moved by up to `padding` pixels over black."""
        fitted, pad = self.preprocess.fit(image), self.padding
        height, width, _ = fitted.shape
        draws = rng.random(2)
        down = min(max(pad - int(draws[0] * (2 * pad + 1)), -height), height)
        right = min(max(pad - int(draws[1] * (2 * pad + 1)), -width), width)
        moved = np.zeros_like(fitted)
        moved[max(down, 0) : height + down, max(right, 0) : width + right] = fitted[
            max(-down, 0) : height - down, max(-right, 0) : width - right
        ]
        return moved

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
                return *_corner(height - h, width - w, rng), h, w
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
        return (height - h) // 2, (width - w) // 2, max(h, 1), max(w, 1)

    def _clamped_box(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width from one draw, its area clamped so that the box fits.

        The aspect ratio is uniform, not in the logarithm.
        Source: PaddleClas 2.6 `ppcls/data/preprocess/ops/operators.py`, RandCropImage.
        """
        aspect = math.sqrt(rng.uniform(*self.ratio))
        largest = min(width / height / aspect**2, height / width * aspect**2)
        low, high = (min(bound, largest) for bound in self.scale)
        side = math.sqrt(height * width * rng.uniform(low, high))
        w, h = max(int(side * aspect), 1), max(int(side / aspect), 1)
        w, h = min(w, width), min(h, height)
        return *_corner(height - h, width - w, rng), h, w


def _corner(down: int, right: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top in 0…down and left in 0…right, uniform."""
    draws = rng.random(2)
    return int(draws[0] * (down + 1)), int(draws[1] * (right + 1))


def _erased_box(size: tuple[int, int], rng: np.random.Generator) -> Box | None:
    """A random rectangle (arXiv:1708.04896, algorithm 1); None when ten draws do not fit."""
    height, width = size
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*ERASED_SHARE)
        ratio = math.exp(rng.uniform(math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < h < height and 0 < w < width:
            top, left = _corner(height - h, width - w, rng)
            return slice(top, top + h), slice(left, left + w)
    return None

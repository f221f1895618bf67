"""Several views of one image, for test-time augmentation: mirrored, and cropped at the corners.

On the line: in place of `Preprocess.fit`; what runs the network on each view and averages is
`average_views`, which everybody that has an engine may call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from densepath.choices import TestAugmentation
from densepath.errors import UnknownNameError, UsageError
from densepath.images.preprocess import Image, Preprocess, resize, size_of

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MIRRORED = ("flip", "flip+five-crop")
CROPPED = ("five-crop", "flip+five-crop")

Run: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
FitOne: TypeAlias = Callable[[Any], Image]


@dataclass(frozen=True)
class Views:
    """The views of an image, in the order: crops as they are, then the same mirrored.

    Attributes:
        preprocess: size and resizing.
        how: `flip`, `five-crop` or both.
        fit: what makes the centre crop, where there is something faster than `preprocess.fit`.
    """

    preprocess: Preprocess
    how: TestAugmentation
    fit: FitOne | None = None

    @property
    def count(self) -> int:
        """The views of an image."""
        return (5 if self.how in CROPPED else 1) * (2 if self.how in MIRRORED else 1)

    def __call__(self, image: Image | Picture) -> Image:
        """uint8 HWC of any size → uint8 [views, H, W, C] of the input's size.

        Raises:
            UsageError: the image is not uint8 HWC with the right channels.
        """
        fit = self.fit or self.preprocess.fit
        crops = self._five(image) if self.how in CROPPED else fit(image)[None]
        if self.how not in MIRRORED:
            return crops
        return np.concatenate([crops, crops[:, :, ::-1]])

    def _five(self, image: Image | Picture) -> Image:
        """The four corners and the centre of the resized image (arXiv:1409.1556, section 3.2;
        AlexNet, NIPS 2012, section 4.1).
        """
        self.preprocess.check(image)
        target, (top, left) = self.preprocess.place(size_of(image))
        whole = resize(image, target, self.preprocess.interpolation, part=((0, 0), target))
        height, width = self.preprocess.size
        down, right = target[0] - height, target[1] - width
        corners = ((0, 0), (0, right), (down, 0), (down, right), (top, left))
        return np.stack([whole[y : y + height, x : x + width] for y, x in corners])


def make_views(
    how: TestAugmentation, preprocess: Preprocess, fit: FitOne | None = None
) -> Views | None:
    """The views that `how` stands for; None of `none`.

    Raises:
        UnknownNameError: no such test-time augmentation.
        UsageError: crops are asked for, and the image is resized straight to the input's size.
    """
    if how not in get_args(TestAugmentation):
        raise UnknownNameError("test-time augmentation", how, get_args(TestAugmentation))
    if how == "none":
        return None
    if how in CROPPED and preprocess.resize_short is None:
        height, width = preprocess.size
        raise UsageError(
            f"--tta {how}: images are resized straight to {height} × {width}, so there is nothing "
            "around the crop. Leave a margin (--crop-pct 0.875), or take --tta flip."
        )
    return Views(preprocess, how, fit)


def average_views(run: Run, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean logits over the views: uint8 [N, views, H, W, C] → float32 [N, classes].

    Logits, not probabilities, as torchvision's `FiveCrop` and timm have it: what stands behind them
    (thresholds, temperatures, losses) is defined on logits. AlexNet and VGG averaged probabilities.
    """
    logits = [run(np.ascontiguousarray(images[:, view])) for view in range(images.shape[1])]
    return np.mean(logits, axis=0, dtype=np.float32)

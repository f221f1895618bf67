"""Images of every kind that a caller may hand in, read and resized."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.data.decode import MAX_PIXELS, from_pillow, open_picture
from densepath.engines.download import Url
from densepath.errors import ImageError, UsageError
from densepath.preprocess import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    Readable: TypeAlias = str | Path | bytes | NDArray[np.uint8] | Picture | Url | "ReadImage"


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image on its way: its name, and its pixels or why there are none.

    `image` is uint8 HWC, resized and cropped.
    """

    name: str
    image: Image | None
    error: str | None = None


def read_image(
    image: Readable,
    name: str,
    channels: int,
    fit: Callable[[Image | Picture], Image],
    max_pixels: int = MAX_PIXELS,
) -> ReadImage:
    """The image, read and resized by `fit`; or why it cannot be."""
    if isinstance(image, ReadImage):
        return image
    try:
        return ReadImage(name, fit(open_readable(image, channels, max_pixels)))
    except ImageError as error:
        return ReadImage(name, None, error.reason)
    except UsageError as error:
        return ReadImage(name, None, str(error))


def open_readable(image: Any, channels: int, max_pixels: int = MAX_PIXELS) -> Image | Picture:
    """A path, bytes, array, Pillow image or Url → what `Preprocess.fit` takes.

    Gray arrays [height, width] are taken too, and gray and RGB become one another. A file's
    height × width may be `max_pixels`.

    Raises:
        ImageError: it cannot be read.
        UsageError: an object that is none of these.
    """
    if isinstance(image, str | Path | bytes):
        return open_picture(image, channels=channels, max_pixels=max_pixels)
    if isinstance(image, Url):
        return open_picture(image.fetch(), channels=channels, max_pixels=max_pixels)
    if not isinstance(image, np.ndarray):
        if not hasattr(image, "getbands"):
            kind = type(image).__name__
            raise UsageError(f"a {kind} is not a path, bytes, a uint8 array or a Pillow image")
        return from_pillow(image, channels=channels)
    pixels = image[:, :, None] if image.ndim == 2 else image
    if pixels.ndim == 3 and pixels.dtype == np.uint8 and {pixels.shape[2], channels} == {1, 3}:
        return from_pillow(_to_pillow(pixels), channels=channels)
    return pixels


def _to_pillow(pixels: Image) -> Picture:
    """A uint8 array of 1 or 3 channels as a Pillow image."""
    from PIL import Image as Pillow

    return Pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def is_single(images: Any) -> bool:
    """Whether `images` is one image and not several; an array [N, H, W, C] is several."""
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, str | Path | bytes) or not hasattr(images, "__iter__")


def name_of(image: Any, index: int) -> str:
    """The path as it was given; an image in memory is named after its position."""
    if isinstance(image, ReadImage):
        return image.name
    if isinstance(image, Url):
        return image.address
    return os.fspath(image) if isinstance(image, str | Path) else f"image {index}"

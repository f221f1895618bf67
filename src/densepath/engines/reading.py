"""Images of every kind a caller may hand in, read and resized by threads that run ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from densepath.data.decode import from_pillow, open_image
from densepath.engines.download import Url
from densepath.errors import ImageError, UsageError
from densepath.preprocess import Image, Preprocess

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    Readable: TypeAlias = str | Path | bytes | NDArray[np.uint8] | Picture | Url | "ReadImage"

MOST_READERS = 16
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image on its way: its name, and its pixels or why there are none.

    `image` is uint8 HWC, resized and cropped.
    """

    name: str
    image: Image | None
    error: str | None = None


def read_ahead(
    images: Readable | Iterable[Readable], preprocess: Preprocess, *, ahead: int
) -> Iterator[ReadImage]:
    """The images read and resized, in order, by threads at most `ahead` images ahead."""
    several: Any = [images] if is_single(images) else images
    workers = min(os.cpu_count() or 1, MOST_READERS)

    def read(named: tuple[str, Readable]) -> ReadImage:
        name, image = named
        if isinstance(image, ReadImage):
            return image
        try:
            return ReadImage(name, preprocess.fit(as_pixels(image, preprocess.channels)))
        except ImageError as error:
            return ReadImage(name, None, error.reason)
        except UsageError as error:
            return ReadImage(name, None, str(error))

    named = ((name_of(image, i), image) for i, image in enumerate(several))
    return map_ahead(read, named, workers=workers, ahead=ahead)


def map_ahead(
    function: Callable[[Any], T], items: Iterable[Any], *, workers: int, ahead: int
) -> Iterator[T]:
    """`function` of each item, in order, by threads that are at most `ahead` items ahead."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    pending: deque[Future[T]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def as_pixels(image: Any, channels: int) -> Image:
    """A path, bytes, array, Pillow image or Url → uint8 [height, width, channels].

    Gray arrays [height, width] are taken too, and gray and RGB become one another.

    Raises:
        ImageError: it cannot be read.
        UsageError: an object that is none of these.
    """
    if isinstance(image, str | Path | bytes):
        return open_image(image, channels=channels)
    if isinstance(image, Url):
        return open_image(image.fetch(), channels=channels)
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

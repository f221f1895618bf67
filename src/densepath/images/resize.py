"""`Preprocess.fit` by our own kernels: Pillow's bytes, of the crop alone, in a third of the time.

The weights are computed here in float64 as Pillow computes them, and kept for the next image of
that size. What Pillow does not do (OpenCV's way, other channels, images too large to be resized
whole) stays with `Preprocess`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.images.preprocess import MOST_PIXELS, Image, Preprocess

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Fit: TypeAlias = Callable[["Image | Picture"], Image]

SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
CUBIC_A = -0.5
WEIGHT = 1 << 22
SPARE = 64  # as in resize.hpp
CHANNELS = (1, 3)


def fast_fit(preprocess: Preprocess, library: ctypes.CDLL) -> Fit:
    """A function that gives what `preprocess.fit` gives."""
    if preprocess.interpolation not in SUPPORT or preprocess.channels not in CHANNELS:
        return preprocess.fit

    def fit(image: Image | Picture) -> Image:
        pixels = np.asarray(image)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        old = pixels.shape[:2] if pixels.ndim == 3 else (0, 0)
        if pixels.dtype != np.uint8 or 0 in old or pixels.shape[2] != preprocess.channels:
            return preprocess.fit(image)
        target, corner = preprocess.place(old)
        if target == old or target[0] * target[1] > MOST_PIXELS:
            return preprocess.fit(image)
        return _resize(library, pixels, target, corner, preprocess)

    return fit


def _resize(
    library: ctypes.CDLL,
    pixels: Image,
    target: tuple[int, int],
    corner: tuple[int, int],
    preprocess: Preprocess,
) -> Image:
    """The crop of `pixels` resized to `target`."""
    height, width, channels = pixels.shape
    kernel, size = preprocess.interpolation, preprocess.size
    rows, columns = (
        _taps(old, new, first, count, kernel)
        for old, new, first, count in zip((height, width), target, corner, size, strict=True)
    )
    # Vectors read beyond the last byte: the image is copied to where they may.
    room = np.empty(pixels.size + SPARE, np.uint8)
    room[: pixels.size].reshape(pixels.shape)[...] = pixels
    made = np.empty(size[0] * size[1] * channels + SPARE, np.uint8)
    less_high, less_wide = height - target[0], width - target[1]
    library.densepath_resize(
        room.ctypes.data,
        width,
        channels,
        rows[0].ctypes.data,
        rows[1].ctypes.data,
        *rows[1].shape,
        columns[0].ctypes.data,
        columns[1].ctypes.data,
        *columns[1].shape,
        less_high > 0 and less_high > 2 * less_wide,
        made.ctypes.data,
    )
    return made[: size[0] * size[1] * channels].reshape(*size, channels)


@functools.lru_cache(maxsize=256)
def _taps(
    old: int, new: int, start: int, count: int, kernel: str
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The first old pixel [count] and the weights [count, taps] of `count` new ones from `start`.

    Source: Pillow 13 `Resample.c`, `precompute_coeffs` and `normalize_coeffs_8bpc`. Weights are
    moved so that all taps lie inside the image; those that Pillow has not are zero.
    """
    scale = old / new
    widening = max(scale, 1.0)
    support = SUPPORT[kernel] * widening
    centre = 0.0 + (np.arange(start, start + count) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), old)
    taps = int((last - first).max())
    moved = np.minimum(first, old - taps)
    places = moved[:, None] + np.arange(taps)
    inside = (places >= first[:, None]) & (places < last[:, None])
    weights = _kernel((places - centre[:, None] + 0.5) * (1.0 / widening), kernel) * inside
    # Pillow adds one after the other; numpy's own sum would pair them.
    total = np.add.accumulate(weights, axis=1)[:, -1:]
    weights = np.where(total != 0, weights / np.where(total != 0, total, 1), weights)
    whole = np.where(weights < 0, -0.5 + weights * WEIGHT, 0.5 + weights * WEIGHT)
    return moved.astype(np.int32), whole.astype(np.int32) * inside.astype(np.int32)


def _kernel(x: NDArray[np.float64], kernel: str) -> NDArray[np.float64]:
    """Pillow's `bilinear_filter` and `bicubic_filter`."""
    x = np.abs(x)
    if kernel == "bilinear":
        return np.where(x < 1.0, 1.0 - x, 0.0)
    near = ((CUBIC_A + 2.0) * x - (CUBIC_A + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * CUBIC_A
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))

"""A deep file's values → uint8 pixels, by the setting `intensity`.

On the line: `decode.py` asks, between a file's reader (`dicom.py`, `npy.py`, `pages.py`) and the
pixels that everything else takes. All arithmetic is in float64 and in the order written here:
`deploy/cpp/src/intensity.cpp` does the same, so that both give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.images.intensity import Intensity
from densepath.images.preprocess import Image
from densepath.images.refusals import RefusedError
from densepath.wording import counted

Numbers: TypeAlias = NDArray[Any]
# From a file's values, float64, to bytes.
Course: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.uint8]]
LUMA = np.array([19595, 38470, 7471], np.uint32)  # Pillow's L24, as in deploy/cpp/src/decode.cpp
# Integers of so many bits have few enough values for a table of them all.
TABLE_BYTES = 2


@dataclass(frozen=True)
class Values:
    """What a file has for each pixel.

    Attributes:
        stored: [height, width, channels] of integers or floats, as the file has them.
        what: the kind of file, for a person: `a DICOM file of 12 bits`.
        slope, intercept: a value is stored · slope + intercept.
        inverted: the least value is white.
        shown: the pixels are made for a screen already: 8 bits, black 0, white 255.
        own: the file's own way to bytes; None: it says none, and has floats.
        white: bool [height, width], pixels that are transparent, over white.
    """

    stored: Numbers
    what: str
    slope: float = 1.0
    intercept: float = 0.0
    inverted: bool = False
    shown: bool = False
    own: Course | None = None
    white: NDArray[np.bool_] | None = None

    def to_pixels(self, intensity: Intensity | None, channels: int) -> Image:
        """uint8 [height, width, channels].

        Raises:
            RefusedError: the setting and the file do not fit, or there is none and the file has
                more than 8 bits, or the file has other channels.
        """
        made = self._to_bytes(intensity)
        if self.inverted:
            made = 255 - made
        if self.white is not None:
            made[self.white] = 255
        return with_channels(made, channels, self.what)

    def _to_bytes(self, intensity: Intensity | None) -> NDArray[np.uint8]:
        """uint8 of the shape of `stored`, not yet inverted."""
        if self.shown and (intensity is None or intensity.kind == "file"):
            return self.stored.astype(np.uint8)
        if intensity is None:
            raise RefusedError(
                f"{self.what}, not of 8 bits, and the network says nothing of intensity: which "
                "values are black and white? docs/data.md has the setting"
            )
        if intensity.kind == "percentiles":
            return self._through(line(*self._percentiles(*intensity.values)))
        if intensity.kind == "file":
            if self.own is None:
                raise RefusedError(
                    f"{self.what}: floats have no range of their own; set intensity to a range, a "
                    "window or percentiles"
                )
            return self._through(self.own)
        low, high = intensity.span or (0.0, 255.0)
        if self.shown and not (low >= 0 and high <= 255):
            raise RefusedError(
                f"{self.what} has values of 0 to 255, and the network's intensity is "
                f"{intensity.to_text()}, for files of measured values; give it such a file"
            )
        return self._through(line(low, high))

    def _through(self, course: Course) -> NDArray[np.uint8]:
        """All values through a course; those of 8 and 16 bits by a table of all of them."""
        stored = self.stored
        if stored.dtype.kind == "f" or stored.dtype.itemsize > TABLE_BYTES:
            return course(self._scaled(stored))
        limits = np.iinfo(stored.dtype)
        every = np.arange(limits.min, limits.max + 1)
        table = course(self._scaled(every))
        return table[stored.astype(np.int64) - limits.min]

    def _scaled(self, stored: Numbers) -> NDArray[np.float64]:
        """stored · slope + intercept."""
        return stored.astype(np.float64) * self.slope + self.intercept

    def _percentiles(self, low: float, high: float) -> tuple[float, float]:
        """Two percentiles of all values, each a value that there is: that of the nearest rank."""
        flat = self.stored.reshape(-1)
        ranks = [int(np.rint(share / 100 * (len(flat) - 1))) for share in (low, high)]
        if self.slope < 0:
            ranks = [len(flat) - 1 - rank for rank in ranks]
        found = self._scaled(np.partition(flat, ranks)[ranks])
        return float(found[0]), float(found[1])


def line(low: float, high: float) -> Course:
    """`low` and less is 0, `high` and more 255, between them a line; where both are one, a step."""

    def course(values: NDArray[np.float64]) -> NDArray[np.uint8]:
        if not low < high:
            return np.where(values > low, 255, 0).astype(np.uint8)
        scaled = (values - low) * (255.0 / (high - low))
        return np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)

    return course


def sigmoid(centre: float, width: float) -> Course:
    """DICOM's function SIGMOID (PS3.3, C.11.2.1.3.1)."""

    def one(value: float) -> float:
        power = -4.0 * (value - centre) / width
        return 0.0 if power > 700 else 255.0 / (1.0 + math.exp(power))

    def course(values: NDArray[np.float64]) -> NDArray[np.uint8]:
        # math.exp is the C library's; NumPy has one of its own, and C++ the former.
        made = np.fromiter(map(one, values.reshape(-1).tolist()), np.float64, values.size)
        return np.rint(made).astype(np.uint8).reshape(values.shape)

    return course


def table(first: int, outputs: NDArray[np.uint8]) -> Course:
    """A look-up table whose first output is of the value `first`; its ends hold beyond them."""

    def course(values: NDArray[np.float64]) -> NDArray[np.uint8]:
        at = np.clip(np.rint(values) - first, 0, len(outputs) - 1)
        return outputs[at.astype(np.int64)]

    return course


def full_range(stored: Numbers) -> Course | None:
    """From the least number of the type to its greatest; None for floats."""
    if stored.dtype.kind == "f":
        return None
    limits = np.iinfo(stored.dtype)
    return line(float(limits.min), float(limits.max))


def check_finite(stored: Numbers) -> None:
    """Raise RefusedError where a float is not a finite number."""
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise RefusedError("floating-point pixels that are not finite")


def with_channels(pixels: NDArray[np.uint8], channels: int, what: str) -> Image:
    """The pixels with so many channels: gray and RGB become one another.

    Raises:
        RefusedError: other channels.
    """
    found = pixels.shape[2]
    if found == channels:
        return np.ascontiguousarray(pixels)
    if found == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=2)
    if found == 3 and channels == 1:
        sums = pixels.astype(np.uint32) @ LUMA + np.uint32(0x8000)
        return (sums >> 16).astype(np.uint8)[:, :, None]
    raise RefusedError(
        f"{what} with {counted(found, 'channel')}, and the network takes {channels}; give it a "
        "TIFF with a page for each, or an .npy array"
    )

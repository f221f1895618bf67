"""How the pixels of a DICOM file lie in it, and whether such pixels are read.

Source: DICOM PS3.3 C.7.6.3, PS3.5 8.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from densepath.images.dicom_header import (
    ALLOCATED,
    COLUMNS,
    DAMAGED,
    FRAMES,
    HIGH_BIT,
    PHOTOMETRIC,
    PLANAR,
    ROWS,
    SAMPLES,
    SIGNED,
    STORED,
    Elements,
)
from densepath.images.refusals import RefusedError
from densepath.images.values import Numbers


@dataclass(frozen=True)
class Layout:
    """How the pixels lie in the file."""

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: bool
    allocated: int
    stored: int
    signed: bool

    @classmethod
    def of(cls, head: Elements, max_pixels: int) -> Layout:
        """What the header says; raises RefusedError unless such pixels are read."""
        if not head.has(ROWS) or not head.has(COLUMNS) or not head.has(ALLOCATED):
            raise RefusedError("a DICOM file without an image")
        frames = head.text(FRAMES)
        if frames not in ("", "1"):
            said = f"{int(frames):,} frames" if re.fullmatch(r"\d{1,6}", frames) else "frames"
            raise RefusedError(
                f"a DICOM file of {said}, a film; save the frame that is meant as a file"
            )
        made = cls(
            head.whole(ROWS),
            head.whole(COLUMNS),
            head.whole(SAMPLES, 1),
            head.text(PHOTOMETRIC) or "MONOCHROME2",
            head.whole(PLANAR, 0) == 1,
            head.whole(ALLOCATED),
            head.whole(STORED, head.whole(ALLOCATED)),
            head.whole(SIGNED, 0) == 1,
        )
        made._check(head.whole(HIGH_BIT, made.stored - 1), max_pixels)
        return made

    def _check(self, high_bit: int, max_pixels: int) -> None:
        """Raise RefusedError unless such pixels are read."""
        if self.rows * self.columns > max_pixels:
            raise RefusedError(
                f"{self.columns} × {self.rows} is more than the {max_pixels:,} pixels allowed"
            )
        if not self.rows or not self.columns:
            raise RefusedError(f"{DAMAGED}: it has no pixels")
        if self.allocated not in (8, 16):
            raise RefusedError(
                f"a DICOM file of {self.allocated} bits a value, which is not read; those of 8 and "
                "16 are"
            )
        if not 0 < self.stored <= self.allocated or high_bit != self.stored - 1:
            raise RefusedError(f"{DAMAGED}: its bits contradict each other")
        one = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
        three = ("RGB", "YBR_FULL")
        if (self.samples, self.photometric in one) == (1, True):
            return
        if self.samples == 3 and self.photometric in three and self.allocated == 8:
            return
        raise RefusedError(
            "a DICOM file whose kind of colour is not read; MONOCHROME1, MONOCHROME2, PALETTE "
            "COLOR, and RGB and YBR_FULL of 8 bits are"
        )

    @property
    def count(self) -> int:
        """The numbers of all pixels."""
        return self.rows * self.columns * self.samples

    def shape(self, flat: Numbers) -> Numbers:
        """[rows, columns, samples] of the numbers as they lie in the file."""
        if self.planar and self.samples > 1:
            return flat.reshape(self.samples, self.rows, self.columns).transpose(1, 2, 0)
        return flat.reshape(self.rows, self.columns, self.samples)


def clear(flat: Numbers, layout: Layout) -> Numbers:
    """The numbers without the bits that a file may use for other things, signed where they are."""
    wide = flat.astype(np.int32) & ((1 << layout.stored) - 1)
    if layout.signed:
        sign = 1 << (layout.stored - 1)
        wide = (wide ^ sign) - sign
    kind: Any = np.int16 if layout.signed else np.uint16
    if layout.allocated == 8 and not layout.signed:
        kind = np.uint8
    return layout.shape(wide.astype(kind))

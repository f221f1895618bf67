"""The numbers of a DICOM file's pixels → its values: look-up tables, palettes, windows, colours.

On the line: behind `dicom.py`. `deploy/cpp/src/dicom_values.cpp` is the twin.

Source: DICOM PS3.3 C.11.1, C.11.2 (look-up tables and windows), C.7.6.3.1 (colours).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densepath.images.dicom_header import (
    CENTRE,
    DAMAGED,
    FUNCTION,
    INTERCEPT,
    LUT,
    LUT_DATA,
    MODALITY_LUT,
    PALETTE,
    PALETTE_DATA,
    SLOPE,
    VOI_LUT,
    WIDTH,
    Elements,
)
from densepath.images.dicom_layout import Layout
from densepath.images.intensity import linear_window
from densepath.images.refusals import RefusedError
from densepath.images.values import Course, Numbers, Values, line, sigmoid, table


def values_of(head: Elements, layout: Layout, pixels: Numbers) -> Values:
    """The values of the pixels."""
    if layout.photometric == "PALETTE COLOR":
        return Values(_through_palette(head, layout, pixels), "a DICOM file of colours", shown=True)
    if layout.samples == 3:
        colour = pixels if layout.photometric == "RGB" else _rgb_of_ybr(pixels)
        return Values(colour, "a DICOM file in colour", shown=True)
    slope, intercept = head.number(SLOPE), head.number(INTERCEPT)
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    low, high = (
        (-(1 << (layout.stored - 1)), (1 << (layout.stored - 1)) - 1)
        if layout.signed
        else (0, (1 << layout.stored) - 1)
    )
    lut = head.item(MODALITY_LUT)
    if lut is not None:
        first, outputs, bits = _table_of(lut, layout.signed)
        at = np.clip(pixels.astype(np.int64) - first, 0, len(outputs) - 1)
        pixels, slope, intercept, low, high = outputs[at], 1.0, 0.0, 0, (1 << bits) - 1
    ends = (low * slope + intercept, high * slope + intercept)
    return Values(
        pixels,
        f"a DICOM file of {layout.stored} bits",
        slope,
        intercept,
        inverted=layout.photometric == "MONOCHROME1",
        own=_own_course(head, signed=min(ends) < 0) or line(min(ends), max(ends)),
    )


def _own_course(head: Elements, *, signed: bool) -> Course | None:
    """The first look-up table of the file, else its first window; None where it has neither."""
    lut = head.item(VOI_LUT)
    if lut is not None:
        first, outputs, bits = _table_of(lut, signed)
        shown = np.rint(outputs.astype(np.float64) * (255.0 / ((1 << bits) - 1)))
        return table(first, np.minimum(shown, 255.0).astype(np.uint8))
    centre, width = head.number(CENTRE), head.number(WIDTH)
    if centre is None or width is None:
        return None
    function = head.text(FUNCTION) or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise RefusedError(f"{DAMAGED}: its window is of no known function")
    if width < 1 if function == "LINEAR" else width <= 0:
        raise RefusedError(
            "a DICOM file whose window has no width; set intensity to a range, a window or "
            "percentiles"
        )
    if function == "SIGMOID":
        return sigmoid(centre, width)
    if function == "LINEAR_EXACT":
        return line(centre - width / 2, centre + width / 2)
    return line(*linear_window(centre, width))


def _table_of(
    head: Elements, signed: bool, tags: tuple[int, int] = (LUT, LUT_DATA)
) -> tuple[int, NDArray[np.uint16], int]:
    """A look-up table: the value of its first output, the outputs, and their number of bits."""
    words = head.words(tags[0])
    if len(words) != 3 or not 8 <= words[2] <= 16:
        raise RefusedError(f"{DAMAGED}: a look-up table")
    count, first, bits = int(words[0]) or 1 << 16, int(words[1]), int(words[2])
    if signed and first >= 1 << 15:
        first -= 1 << 16
    outputs = head.words(tags[1])
    if bits == 8 and len(outputs) < count:  # Two outputs in a word.
        raw = np.frombuffer(head.raw(tags[1]), np.uint8)
        outputs = raw.astype(np.uint16)
    if len(outputs) < count:
        raise RefusedError(f"{DAMAGED}: a look-up table")
    return first, outputs[:count], bits


def _through_palette(head: Elements, layout: Layout, pixels: Numbers) -> NDArray[np.uint8]:
    """uint8 [rows, columns, 3] of the numbers of a palette's entries."""
    colours = []
    for tags in zip(PALETTE, PALETTE_DATA, strict=True):
        if not head.has(tags[1]):
            raise RefusedError("a DICOM file whose palette is kept in segments, which is not read")
        first, outputs, bits = _table_of(head, layout.signed, tags)
        at = np.clip(pixels[:, :, 0].astype(np.int64) - first, 0, len(outputs) - 1)
        colours.append((outputs[at] >> max(bits - 8, 0)).astype(np.uint8))
    return np.stack(colours, axis=2)


def _rgb_of_ybr(pixels: Numbers) -> NDArray[np.uint8]:
    """RGB of YBR_FULL: DICOM PS3.3 C.7.6.3.1.2, whose inverse is JPEG's."""
    y, blue, red = (pixels[:, :, i].astype(np.float64) for i in range(3))
    blue, red = blue - 128.0, red - 128.0
    made = [
        y + 1.402 * red,
        y - 0.344136286 * blue - 0.714136286 * red,
        y + 1.772 * blue,
    ]
    return np.rint(np.clip(np.stack(made, axis=2), 0.0, 255.0)).astype(np.uint8)

"""An `.npy` array → its values: uint8, uint16, int16 or float32, of one image.

Sides: [height, width]; of three sides the one that is the channels' is the last or the first,
whichever has a number that the network takes (its own; 1 and 3 become one another). Where either
or neither may be, the file is refused, as `reading.py` refuses such a tensor.

The header is read here: NumPy would take memory for what it claims before it looks whether that is
there. Nothing is unpickled. `deploy/cpp/src/decode_npy.cpp` is the twin.

Source: NumPy 2 `numpy.lib.format`, versions 1.0 and 2.0.
"""

from __future__ import annotations

import math
import os
import re
from typing import IO

import numpy as np

from densepath.images.refusals import RefusedError
from densepath.images.values import Numbers, Values, check_finite, full_range

MARK = b"\x93NUMPY"
MOST_HEADER = 4096
KINDS = {"u1": "uint8", "u2": "uint16", "i2": "int16", "f4": "float32"}
DAMAGED = "a damaged .npy file"
SAVE = "save x.astype(np.float32), or uint8, uint16, int16"


def is_npy(start: bytes) -> bool:
    """Whether a file of these first bytes is an array of NumPy's, whatever its name."""
    return start.startswith(MARK)


def read_npy(file: IO[bytes], channels: int, max_pixels: int) -> Values:
    """The values of an array of one image for a network of so many channels.

    Raises:
        RefusedError: it is damaged, of another type, or not of one image.
    """
    kind, columns_first, sides = _header(file)
    start = file.tell()
    there = file.seek(0, os.SEEK_END) - start
    if len(sides) not in (2, 3) or min(sides) == 0:
        raise RefusedError(f"an array of the sides {_shown(sides)}; an image has 2 or 3")
    axis = _channel_axis(sides, channels)
    height, width = (side for at, side in enumerate(sides) if at != axis)
    if height * width > max_pixels:
        raise RefusedError(f"{width} × {height} is more than the {max_pixels:,} pixels allowed")
    dtype, count = np.dtype(kind), math.prod(sides)
    if there < count * dtype.itemsize:
        raise RefusedError(f"{DAMAGED}: it ends within its values")
    file.seek(start)
    flat = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    array: Numbers = flat.reshape(sides, order="F" if columns_first else "C")
    stored = array[:, :, None] if axis is None else np.moveaxis(array, axis, 2)
    stored = stored.astype(dtype.newbyteorder("="))
    check_finite(stored)
    name = KINDS[kind[1:]]
    return Values(stored, f"an array of {name}", shown=name == "uint8", own=full_range(stored))


def _header(file: IO[bytes]) -> tuple[str, bool, tuple[int, ...]]:
    """The type, whether columns stand together, and the sides; the file is behind its header."""
    file.seek(len(MARK))
    version, width = file.read(2), 0
    if version in (b"\x01\x00", b"\x02\x00"):
        width = 2 if version[0] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if not width or length > MOST_HEADER:
        raise RefusedError(f"{DAMAGED}: its header")
    text = file.read(length).decode("latin-1")
    kind = re.search(r"""['"]descr['"]: ?['"]([^'"]*)['"]""", text)
    order = re.search(r"""['"]fortran_order['"]: ?(True|False)""", text)
    shape = re.search(r"""['"]shape['"]: ?\(([0-9, ]*)\)""", text)
    if len(text) < length or not kind or not order or not shape:
        structured = len(text) == length and re.search(r"""['"]descr['"]: ?\[""", text)
        raise RefusedError(
            f"an array of records, not of numbers; {SAVE}"
            if structured
            else f"{DAMAGED}: its header"
        )
    if kind[1].endswith("O"):
        raise RefusedError("an array of Python objects, which are never read from a file")
    if kind[1][1:] not in KINDS or kind[1][:1] not in "<>|":
        raise RefusedError(f"an array of another type than is read; {SAVE}")
    sides = [one.strip() for one in shape[1].split(",")]
    if not all(len(one) < 10 for one in sides) or any(" " in one for one in sides):
        raise RefusedError(f"{DAMAGED}: its sides")
    return kind[1], order[1] == "True", tuple(int(one) for one in sides if one)


def _channel_axis(sides: tuple[int, ...], channels: int) -> int | None:
    """Which side is the channels: the last, the first, or none of two.

    Raises:
        RefusedError: either may be, or neither.
    """
    if len(sides) == 2:
        return None
    taken = {1, 3, channels} if channels in (1, 3) else {channels}
    last, first = sides[2] in taken, sides[0] in taken
    if last == first:
        said = "either end may" if last else "no end can"
        raise RefusedError(
            f"an array of {_shown(sides)}: {said} be the {channels} of the network; save it as "
            "[height, width, channels]"
        )
    return 2 if last else 0


def _shown(sides: tuple[int, ...]) -> str:
    """`3 × 224 × 224`."""
    return " × ".join(map(str, sides)) or "none"

"""MXNet: the arrays of a `.params` file, as `mx.nd.save` writes them; nothing in it is executed.

Source of the format: MXNet 1.9 `src/ndarray/ndarray.cc` (`NDArray::Save`, `LegacyLoad`), all
little-endian: the magic number and a reserved one, 8 bytes each; how many arrays, the arrays; how
many names, and for each its length and bytes. An array is a magic number that says its version,
storage (from version 2 on), rank and sides, device, type, values; the oldest form has the rank in
place of the magic number, and sides of 4 bytes.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from densepath.errors import WeightsError

LIST_MAGIC = 0x112
START = struct.pack("<Q", LIST_MAGIC)
V1_MAGIC, V2_MAGIC, V3_MAGIC = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DENSE = 0
MOST_SIDES = 32
_BFLOAT16 = 12
_TYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8", 7: "?", 12: "<u2"}


class _Bytes:
    """The file's bytes, taken from front to back; what runs past the end is an error."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = memoryview(content), 0

    def take(self, size: int) -> memoryview:
        """The next bytes.

        Raises:
            WeightsError: there are not so many.
        """
        end = self._at + size
        if end > len(self._content):
            raise WeightsError(f"{size} bytes at {self._at} run past its end")
        part, self._at = self._content[self._at : end], end
        return part

    def numbers(self, kind: str, count: int = 1) -> tuple[int, ...]:
        """The next `count` numbers of a kind of `struct`."""
        return struct.unpack(f"<{count}{kind}", self.take(count * struct.calcsize(kind)))

    def count(self) -> int:
        """The next 8 bytes: how many things follow, of one byte at least each.

        Raises:
            WeightsError: more than bytes are left.
        """
        (number,) = self.numbers("Q")
        if number > len(self._content) - self._at:
            raise WeightsError(f"{number} parts that should follow at {self._at} are not there")
        return number


def read_params(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.params` file by their names.

    Raises:
        WeightsError: it is no such file, is damaged, or has arrays without names.
    """
    try:
        return _read(_Bytes(path.read_bytes()))
    except WeightsError as error:
        raise WeightsError(
            f"{path} cannot be read as an MXNet file: {error}. It is damaged or incomplete: "
            "compare its size with the publisher's."
        ) from error


def _read(source: _Bytes) -> dict[str, np.ndarray]:
    """The arrays of the whole file."""
    magic, _ = source.numbers("Q", 2)
    if magic != LIST_MAGIC:
        raise WeightsError(f"it begins with {magic:#x} instead of {LIST_MAGIC:#x}")
    arrays = [_array(source) for _ in range(source.count())]
    names = [_name(source) for _ in range(source.count())]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise WeightsError(f"it has {len(set(names))} different names for {len(arrays)} arrays")
    return dict(zip(names, arrays, strict=True))


def _name(source: _Bytes) -> str:
    """The next name."""
    try:
        return bytes(source.take(source.count())).decode("utf-8")
    except UnicodeDecodeError as error:
        raise WeightsError("a name is not text") from error


def _array(source: _Bytes) -> np.ndarray:
    """The next array; bfloat16 as float32."""
    (first,) = source.numbers("I")
    if first in (V2_MAGIC, V3_MAGIC):
        (storage,) = source.numbers("i")
        if storage != DENSE:
            raise WeightsError(f"an array is stored as sparse (kind {storage}): save it as dense")
    versioned = first in (V1_MAGIC, V2_MAGIC, V3_MAGIC)
    rank = source.numbers("i")[0] if versioned else first
    if not 0 < rank <= MOST_SIDES:
        raise WeightsError(f"an array has no values, or {rank} sides")
    sides = source.numbers("q" if versioned else "I", rank)
    if min(sides) < 1:
        raise WeightsError(f"an array has the sides {list(sides)}")
    source.take(8)  # the device
    (kind,) = source.numbers("i")
    if kind not in _TYPES:
        raise WeightsError(f"an array has the unknown type {kind}")
    content = source.take(math.prod(sides) * np.dtype(_TYPES[kind]).itemsize)
    array = np.frombuffer(content, _TYPES[kind])
    if kind == _BFLOAT16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(sides)

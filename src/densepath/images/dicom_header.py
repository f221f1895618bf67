"""The elements of a DICOM header that make an image, as bytes; and no other element.

On the line: `dicom.py` asks. pydicom finds the elements (the extra `dicom`), and what they mean is
read here, because its own reading and its errors may quote a header, and a header is a patient's.
"""

from __future__ import annotations

import logging
import re
import struct
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from densepath.images.refusals import DICOM_AT, RefusedError

MARK = b"DICM"
PIXELS, LUT, LUT_DATA = 0x7FE00010, 0x00283002, 0x00283006
FRAMES, SAMPLES, PHOTOMETRIC, PLANAR = 0x00280008, 0x00280002, 0x00280004, 0x00280006
ROWS, COLUMNS = 0x00280010, 0x00280011
ALLOCATED, STORED, HIGH_BIT, SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
CENTRE, WIDTH, INTERCEPT, SLOPE, FUNCTION = (
    0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056
)  # fmt: skip
PALETTE, PALETTE_DATA = (0x00281101, 0x00281102, 0x00281103), (0x00281201, 0x00281202, 0x00281203)
MODALITY_LUT, VOI_LUT, SHARED_GROUPS = 0x00283000, 0x00283010, 0x52009229
WANTED = (
    FRAMES, SAMPLES, PHOTOMETRIC, PLANAR, ROWS, COLUMNS, ALLOCATED, STORED, HIGH_BIT, SIGNED,
    CENTRE, WIDTH, INTERCEPT, SLOPE, FUNCTION, *PALETTE, *PALETTE_DATA, MODALITY_LUT, VOI_LUT,
    SHARED_GROUPS,
)  # fmt: skip
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
DAMAGED = "a damaged DICOM file"
# Nothing of pydicom's log, which quotes headers, reaches a handler of ours.
_log = logging.getLogger("pydicom")
_log.addHandler(logging.NullHandler())
_log.propagate = False


def is_dicom(start: bytes) -> bool:
    """Whether a file of these first bytes is DICOM, whatever its name."""
    return start[DICOM_AT : DICOM_AT + len(MARK)] == MARK


class Elements:
    """The wanted elements of a header, as bytes that are read here and nowhere else."""

    def __init__(self, dataset: Any, order: str) -> None:
        """`order` is that of a number's bytes: `<` or `>`."""
        self._dataset, self.order = dataset, order

    def has(self, tag: int) -> bool:
        """Whether there is such an element."""
        return tag in self._dataset

    def raw(self, tag: int) -> bytes:
        """An element's bytes; none where it is missing or is no plain one."""
        found = self._dataset.get_item(tag) if tag in self._dataset else None
        return found.value if found is not None and isinstance(found.value, bytes) else b""

    def text(self, tag: int) -> str:
        """The first of an element's texts, without the blanks around it; empty where missing."""
        whole = self.raw(tag).decode("latin-1").partition("\\")[0]
        return whole.strip(" \0")

    def whole(self, tag: int, default: int | None = None) -> int:
        """The first of an element's unsigned numbers of 16 bits."""
        raw = self.raw(tag)
        if len(raw) < 2:
            if default is None or raw:
                raise RefusedError(f"{DAMAGED}: a number of its header is missing")
            return default
        return int(struct.unpack(f"{self.order}H", raw[:2])[0])

    def number(self, tag: int) -> float | None:
        """The first of an element's numbers written as text; None where there is none."""
        text = self.text(tag)
        if not text:
            return None
        value = float(text) if NUMBER.fullmatch(text) else np.inf
        if not np.isfinite(value):
            raise RefusedError(f"{DAMAGED}: its window or rescale is no number")
        return value

    def words(self, tag: int) -> NDArray[np.uint16]:
        """An element's bytes as unsigned numbers of 16 bits."""
        raw = self.raw(tag)
        return np.frombuffer(raw[: len(raw) // 2 * 2], f"{self.order}u2").astype(np.uint16)

    def item(self, tag: int) -> Elements | None:
        """The first item of a sequence; None where there is none."""
        if tag not in self._dataset:
            return None
        try:
            items = list(self._dataset[tag].value or ())
            found = items[0] if items and hasattr(items[0], "get_item") else None
        except MemoryError:
            raise
        except Exception:  # As in read_elements.
            raise RefusedError(DAMAGED) from None
        return None if found is None else Elements(found, self.order)


def read_elements(file: IO[bytes], tags: tuple[int, ...], *, stop: bool) -> Any:
    """These elements of a file, and of it all up to its pixels where it is to `stop` there."""
    from pydicom import dcmread

    file.seek(0)
    try:
        return dcmread(file, stop_before_pixels=stop, specific_tags=list(tags))
    except MemoryError:
        raise
    except Exception:  # Whatever pydicom says may quote the header.
        raise RefusedError(DAMAGED) from None


def transfer_syntax(file: IO[bytes]) -> str:
    """The UID in the file's meta information, whose elements are explicit and little-endian.

    Found here and not by pydicom, which unpacks a deflated file, of any size, as it opens it.
    """
    file.seek(DICOM_AT + len(MARK))
    while True:
        head = file.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            raise RefusedError(f"{DAMAGED}: it does not say how it is written")
        element, kind, length = struct.unpack("<H2sH", head[2:])
        if kind in (b"OB", b"UN", b"OW", b"SQ", b"UT"):
            length = int.from_bytes(file.read(4), "little")
        if element == 0x0010:
            return file.read(min(length, 64)).decode("latin-1").strip(" \0")
        file.seek(length, 1)

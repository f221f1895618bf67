"""A DICOM file → its values: rescale, window or look-up table, and nothing else of its header.

Privacy: the elements of `dicom_header.WANTED` are read, and no other is kept, printed, logged or
quoted in an error, whoever the file is of. `deploy/cpp/src/decode_dicom.cpp` is the twin.

Source: DICOM PS3.5 8.2, annex A (transfer syntaxes).
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import IO

import numpy as np

from densepath.errors import MissingPackageError
from densepath.images.dicom_header import (
    DAMAGED,
    PIXELS,
    SHARED_GROUPS,
    WANTED,
    Elements,
    read_elements,
    transfer_syntax,
)
from densepath.images.dicom_layout import Layout, clear
from densepath.images.dicom_values import values_of
from densepath.images.refusals import RefusedError
from densepath.images.values import Numbers, Values

# Transfer syntaxes: uncompressed, and what this reads of them.
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
UNCOMPRESSED = (IMPLICIT, EXPLICIT, BIG_ENDIAN)
RLE = "1.2.840.10008.1.2.5"
COMPRESSED = {
    "1.2.840.10008.1.2.1.99": "a deflated DICOM file",
    "1.2.840.10008.1.2.4.5": "a DICOM file compressed as JPEG",
    "1.2.840.10008.1.2.4.7": "a DICOM file compressed as lossless JPEG",
    "1.2.840.10008.1.2.4.8": "a DICOM file compressed as JPEG-LS",
    "1.2.840.10008.1.2.4.9": "a DICOM file compressed as JPEG 2000",
    "1.2.840.10008.1.2.4.10": "a DICOM file compressed as a film",
    "1.2.840.10008.1.2.4.11": "a DICOM file compressed as JPEG XL",
    "1.2.840.10008.1.2.4.20": "a DICOM file compressed as HTJ2K",
}
UNPACK = "unpack it first: `gdcmconv -w IN OUT` or DCMTK's `dcmdjpeg IN OUT`"


def is_dicom_readable() -> bool:
    """Whether the package that reads DICOM files is installed."""
    return find_spec("pydicom") is not None


def why_not_dicom() -> str:
    """What is missing to read DICOM files, and the cure."""
    return f"{MissingPackageError('pydicom', 'dicom')}"


def read_dicom(file: IO[bytes], max_pixels: int) -> Values:
    """The values of a DICOM file of one image, and its own window.

    Raises:
        RefusedError: it is damaged, compressed, or of a kind that is not read. The reason quotes
            nothing of its header but sizes and numbers of bits.
    """
    if not is_dicom_readable():
        raise RefusedError(f"a DICOM file: {why_not_dicom()}")
    syntax = transfer_syntax(file)
    _check_syntax(syntax)
    head = Elements(read_elements(file, WANTED, stop=True), ">" if syntax == BIG_ENDIAN else "<")
    layout = Layout.of(head, max_pixels)
    if head.has(SHARED_GROUPS):
        raise RefusedError(
            "an enhanced DICOM file, which keeps its window for each frame; save the frame as a "
            "classic DICOM file"
        )
    pixels = _rle(file, layout) if syntax == RLE else _plain(file, layout, head.order)
    return values_of(head, layout, pixels)


def _check_syntax(syntax: str) -> None:
    """Raise RefusedError unless pixels of this transfer syntax are read."""
    if syntax in (*UNCOMPRESSED, RLE):
        return
    for start, said in COMPRESSED.items():
        if syntax.startswith(start):
            raise RefusedError(f"{said}, which is not read; {UNPACK}")
    raise RefusedError(f"a DICOM file in a transfer syntax that is not read; {UNPACK}")


def _plain(file: IO[bytes], layout: Layout, order: str) -> Numbers:
    """The numbers of uncompressed pixels, their unused bits cleared: [rows, columns, samples]."""
    dataset = read_elements(file, (PIXELS,), stop=False)
    if PIXELS not in dataset:
        raise RefusedError("a DICOM file without an image")
    raw = dataset.get_item(PIXELS).value
    size = layout.count * layout.allocated // 8
    if not isinstance(raw, bytes) or len(raw) < size:
        raise RefusedError(f"{DAMAGED}: it ends within its pixels")
    if layout.allocated == 8 and order == ">":
        raise RefusedError("a DICOM file of 8 bits in the retired big-endian syntax; " + UNPACK)
    kind = "u1" if layout.allocated == 8 else f"{order}u2"
    return clear(np.frombuffer(raw[:size], kind), layout)


def _rle(file: IO[bytes], layout: Layout) -> Numbers:
    """The same of pixels that pydicom unpacks itself."""
    dataset = read_elements(file, (*WANTED, PIXELS), stop=False)
    try:
        from pydicom.pixels import get_decoder

        made, _ = get_decoder(RLE).as_array(dataset, raw=True)
    except MemoryError:
        raise
    except Exception:  # As in _read.
        raise RefusedError(f"{DAMAGED}: its pixels") from None
    if made.size != layout.count:
        raise RefusedError(f"{DAMAGED}: it has other pixels than it says")
    flat = made.astype(made.dtype.newbyteorder("=")).reshape(-1)
    unsigned = flat.view(np.uint8 if layout.allocated == 8 else np.uint16)
    return clear(unsigned, replace(layout, planar=False))

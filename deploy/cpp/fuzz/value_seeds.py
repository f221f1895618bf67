"""Files that are read for their values, of every kind, made here: name → bytes.

16-bit PNG, TIFF, `.npy` and DICOM, for the fuzzer and for tests that compare the C++ program with
Python. The writers are the least that a specification asks for, apart from the readers.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from seeds import chunk, png

SHAPE = (23, 19)
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
BIG_ENDIAN, RLE = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"
LONG = ("OB", "OW", "SQ", "UN")
UNDEFINED = 0xFFFFFFFF
PATIENT = b"Doe^Jane^SECRET "
# Tag → kind, of what the writer is asked for by name.
TAGS = {
    "patient": (0x00100010, "PN"), "samples": (0x00280002, "US"), "photometric": (0x00280004, "CS"),
    "planar": (0x00280006, "US"), "frames": (0x00280008, "IS"), "rows": (0x00280010, "US"),
    "columns": (0x00280011, "US"), "allocated": (0x00280100, "US"), "stored": (0x00280101, "US"),
    "high_bit": (0x00280102, "US"), "signed": (0x00280103, "US"), "centre": (0x00281050, "DS"),
    "width": (0x00281051, "DS"), "intercept": (0x00281052, "DS"), "slope": (0x00281053, "DS"),
    "function": (0x00281056, "CS"), "red": (0x00281101, "US"), "green": (0x00281102, "US"),
    "blue": (0x00281103, "US"), "red_data": (0x00281201, "OW"), "green_data": (0x00281202, "OW"),
    "blue_data": (0x00281203, "OW"), "modality": (0x00283000, "SQ"), "voi": (0x00283010, "SQ"),
    "lut": (0x00283002, "US"), "lut_data": (0x00283006, "OW"),
}  # fmt: skip


def _element(tag: int, kind: str, value: bytes, syntax: str, *, length: int | None = None) -> bytes:
    """One element: PS3.5, 7.1."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    value += b"\0" * (len(value) % 2) if kind in ("OB", "OW", "UI") else b" " * (len(value) % 2)
    size = len(value) if length is None else length
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT or tag >> 16 == 0xFFFE:
        return head + struct.pack(f"{order}I", size) + value
    if kind in LONG:
        return head + kind.encode() + b"\0\0" + struct.pack(f"{order}I", size) + value
    return head + kind.encode() + struct.pack(f"{order}H", size) + value


def _value(kind: str, value: Any, syntax: str, *, open_ended: bool) -> bytes:
    """A value as its kind is written; of a sequence its one item."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    if kind == "SQ":
        inside = _elements(value, syntax, open_ended=open_ended)
        if not open_ended:
            return _element(0xFFFEE000, "", inside, syntax)
        item = _element(0xFFFEE000, "", inside, syntax, length=UNDEFINED)
        ends = (_element(tag, "", b"", syntax) for tag in (0xFFFEE00D, 0xFFFEE0DD))
        return item + b"".join(ends)
    if kind in ("US", "OW"):
        return np.asarray(value).astype(f"{order}u2").tobytes()
    return value if isinstance(value, bytes) else str(value).encode()


def _elements(fields: dict[str, Any], syntax: str, *, open_ended: bool) -> bytes:
    """Elements in the order of their tags."""
    made = b""
    for name, value in sorted(fields.items(), key=lambda item: TAGS[item[0]][0]):
        tag, kind = TAGS[name]
        length = UNDEFINED if kind == "SQ" and open_ended else None
        written = _value(kind, value, syntax, open_ended=open_ended)
        made += _element(tag, kind, written, syntax, length=length)
    return made


def _packed(segment: bytes) -> bytes:
    """Bytes in runs and as they are: PS3.5, G.3.1."""
    made = b""
    for value, run in itertools.groupby(segment):
        count = len(list(run))
        while count > 0:
            part = min(count, 128)
            made += bytes([(257 - part) % 256, value]) if part > 1 else bytes([0, value])
            count -= part
    return made + b"\0" * (len(made) % 2)


def _rle(pixels: NDArray[Any]) -> bytes:
    """The items of one run-length encoded frame: PS3.5, annex G."""
    planes = [pixels] if pixels.ndim == 2 else [pixels[:, :, i] for i in range(pixels.shape[2])]
    segments = []
    for plane in planes:
        width = plane.dtype.itemsize
        octets = plane.astype(plane.dtype.newbyteorder(">")).tobytes()
        segments += [_packed(octets[i::width]) for i in range(width)]
    starts = np.cumsum([64, *map(len, segments)])[:-1]
    head = struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments)))
    frame = head + b"".join(segments)
    items = _element(0xFFFEE000, "", b"", EXPLICIT) + _element(0xFFFEE000, "", frame, EXPLICIT)
    return items + _element(0xFFFEE0DD, "", b"", EXPLICIT)


def dicom(
    pixels: NDArray[Any], syntax: str = EXPLICIT, *, open_ended: bool = False, **fields: Any
) -> bytes:
    """A DICOM file of pixels [rows, columns] or [rows, columns, 3], a patient's name in its header.

    `fields` are those of TAGS; None leaves one out. Signed and 8-bit types are written as such.
    """
    order = ">" if syntax == BIG_ENDIAN else "<"
    bits = pixels.dtype.itemsize * 8
    known: dict[str, Any] = {
        "patient": PATIENT, "samples": 1 if pixels.ndim == 2 else 3,
        "photometric": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "rows": pixels.shape[0], "columns": pixels.shape[1], "allocated": bits, "stored": bits,
        "high_bit": fields.get("stored", bits) - 1, "signed": int(pixels.dtype.kind == "i"),
    }  # fmt: skip
    if pixels.ndim == 3:
        known["planar"] = 0
    known |= fields
    body = _elements(
        {k: v for k, v in known.items() if v is not None}, syntax, open_ended=open_ended
    )
    if syntax == RLE:
        body += _element(0x7FE00010, "OB", _rle(pixels), syntax, length=UNDEFINED)
    else:
        laid = pixels.transpose(2, 0, 1) if known.get("planar") else pixels
        data = laid.astype(laid.dtype.newbyteorder(order)).tobytes()
        body += _element(0x7FE00010, "OW", data, syntax)
    meta = _element(0x00020010, "UI", syntax.encode(), EXPLICIT)
    size = _element(0x00020000, "UL", struct.pack("<I", len(meta)), EXPLICIT)
    return bytes(128) + b"DICM" + size + meta + body


def tiff(
    pages: list[NDArray[Any]],
    order: str = "<",
    *,
    white_is_zero: bool = False,
    orientation: int = 1,
    reduced: int = 0,
) -> bytes:
    """An uncompressed TIFF of gray pages, of integers or floats; `reduced` of them, thumbnails."""
    made = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    for i, page in enumerate(pages):
        height, width = page.shape
        kind = {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
        data = page.astype(page.dtype.newbyteorder(order)).tobytes()
        small = int(i >= len(pages) - reduced)
        tags = [
            (254, 4, small), (256, 4, width), (257, 4, height), (258, 3, page.dtype.itemsize * 8),
            (259, 3, 1), (262, 3, 0 if white_is_zero else 1), (273, 4, 0), (274, 3, orientation),
            (277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, kind),
        ]  # fmt: skip
        start = len(made) + 2 + 12 * len(tags) + 4
        last = i == len(pages) - 1
        directory = struct.pack(f"{order}H", len(tags))
        for tag, type, number in tags:
            value = start if tag == 273 else number
            field = f"{order}I" if type == 4 else f"{order}HH"
            packed = struct.pack(field, *([value] if type == 4 else [value, 0]))
            directory += struct.pack(f"{order}HHI", tag, type, 1) + packed
        following = 0 if last else start + len(data) + len(data) % 2
        made += directory + struct.pack(f"{order}I", following) + data + b"\0" * (len(data) % 2)
    return made


def npy(array: NDArray[Any], version: tuple[int, int] = (1, 0)) -> bytes:
    """An array as NumPy saves it."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=True)
    return file.getvalue()


def _deep(rng: np.random.Generator, kind: str = "u2", most: int = 4095) -> NDArray[Any]:
    """A smooth picture with noise, of values up to `most`."""
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    wave = (np.sin(y / 5) + np.cos(x / 4) + 2) / 4 * most
    noisy = np.clip(wave + rng.normal(0, most / 50, SHAPE), 0, most)
    if kind[0] == "i":
        noisy = noisy - most // 2
    return noisy.astype(kind)


def pngs(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """16-bit PNGs in gray, and others beside them."""
    deep = _deep(rng, most=65535)[:, :, None]
    for interlaced in (False, True):
        yield f"deep{' interlaced' * interlaced}.png", png(deep, 16, 0, interlaced=interlaced)
    clear = chunk(b"tRNS", struct.pack(">H", int(deep[3, 3, 0])))
    yield "transparent.png", png(deep, 16, 0, before=clear)
    yield "12 bits.png", png(_deep(rng)[:, :, None], 16, 0)
    yield "black.png", png(np.zeros((4, 5, 1), np.int64), 16, 0)
    yield "gray.png", png(rng.integers(0, 256, (9, 8, 1)), 8, 0)
    yield "rgb.png", png(rng.integers(0, 256, (9, 8, 3)), 8, 2)
    for color, channels in ((2, 3), (4, 2), (6, 4)):
        yield f"deep colour {color}.png", png(rng.integers(0, 65536, (9, 8, channels)), 16, color)


def tiffs(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """TIFFs of every depth, byte order and number of pages."""
    for kind, order in itertools.product(("u1", "u2", "i2", "u4", "i4", "f4"), "<>"):
        most = 255 if kind == "u1" else 4095
        yield f"{kind} {order}.tif", tiff([_deep(rng, kind, most)], order)
    for orientation in range(1, 9):
        yield f"turned {orientation}.tif", tiff([_deep(rng)], orientation=orientation)
    for kind in ("u1", "u2", "f4"):
        inverted = tiff([_deep(rng, kind, 200)], white_is_zero=True)
        yield f"white is zero {kind}.tif", inverted
    for count in (2, 3, 5, 17):
        yield f"{count} pages.tif", tiff([_deep(rng) for _ in range(count)])
    yield "pages of bytes.tif", tiff([_deep(rng, "u1", 255) for _ in range(5)], ">")
    yield "a thumbnail.tif", tiff([_deep(rng), _deep(rng)[:8, :8]], reduced=1)
    yield "unlike pages.tif", tiff([_deep(rng), _deep(rng)[:8, :8], _deep(rng)])
    nan = _deep(rng, "f4")
    nan[2, 2] = np.nan
    yield "not a number.tif", tiff([nan])
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        file = io.BytesIO()
        Pillow.fromarray(_deep(rng)).save(file, "TIFF", compression=compression)
        yield f"{compression}.tif", file.getvalue()
    file = io.BytesIO()
    Pillow.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(file, "TIFF")
    yield "rgb.tif", file.getvalue()


def npys(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Arrays of every type, order and number of sides."""
    for kind in ("|u1", "<u2", ">u2", "<i2", ">i2", "<f4", ">f4"):
        most = 255 if kind == "|u1" else 4095
        flat = _deep(rng, kind[1:], most).astype(kind)
        yield f"{kind}.npy", npy(flat)
        yield f"{kind} columns.npy", npy(np.asfortranarray(flat), (2, 0))
    for channels in (1, 3, 5):
        planes = np.stack([_deep(rng) for _ in range(channels)])
        yield f"{channels} first.npy", npy(planes)
        yield f"{channels} last.npy", npy(np.ascontiguousarray(planes.transpose(1, 2, 0)))
        yield f"{channels} columns.npy", npy(np.asfortranarray(planes))
    yield "either end.npy", npy(np.zeros((3, 8, 3), np.uint16))
    yield "no sides.npy", npy(np.array(7, np.uint16))
    yield "four sides.npy", npy(np.zeros((2, 8, 8, 3), np.uint16))
    yield "nothing.npy", npy(np.zeros((0, 8), np.uint16))
    yield "doubles.npy", npy(np.zeros((8, 8)))
    yield "infinite.npy", npy(np.full((8, 8), np.inf, np.float32))
    yield "objects.npy", npy(np.array([[{}, []]], object))
    yield "records.npy", npy(np.zeros((4, 4), [("a", "u2"), ("b", "u2")]))
    huge = npy(np.zeros((8, 8), np.uint16)).replace(b"(8, 8), }  ", b"(80000, 80000), }  ")
    yield "huge.npy", huge
    yield "cut off.npy", npy(_deep(rng))[:-5]


def dicoms(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """DICOM files of every syntax, depth, window and colour that is read, and some that are not."""
    ct: dict[str, Any] = {
        "slope": "1",
        "intercept": "-1024",
        "centre": "40\\300",
        "width": "400\\9",
    }
    deep, signed = _deep(rng), _deep(rng, "i2")
    for syntax in (EXPLICIT, IMPLICIT, BIG_ENDIAN, RLE):
        yield f"ct {syntax}.dcm", dicom(deep, syntax, stored=12, **ct)
        yield f"signed {syntax}.dcm", dicom(signed, syntax, centre="0", width="1000.5")
    yield "no window.dcm", dicom(deep, stored=12)
    yield "no window, signed.dcm", dicom(signed, stored=13, slope="-2.5", intercept="7")
    yield "monochrome1.dcm", dicom(deep, stored=12, photometric="MONOCHROME1")
    yield "exact.dcm", dicom(deep, centre="2000", width="0.5", function="LINEAR_EXACT")
    yield "sigmoid.dcm", dicom(deep, centre="2000", width="1000", function="SIGMOID ")
    yield "no width.dcm", dicom(deep, centre="2000", width="0")
    yield "step.dcm", dicom(deep, centre="2000", width="1")
    yield "no number.dcm", dicom(deep, centre="2000", width="SECRET")
    # Upper bits that an overlay uses.
    yield "overlay.dcm", dicom(deep | (rng.integers(0, 16, SHAPE) << 12).astype("u2"), stored=12)
    yield "8 bits.dcm", dicom(rng.integers(0, 256, SHAPE, np.uint8), centre="100", width="50")
    yield "8 bits signed.dcm", dicom(rng.integers(-99, 99, SHAPE).astype(np.int8))
    curve = (np.sqrt(np.arange(4096) / 4095) * 1023).astype(np.uint16)
    voi = {"lut": [4096, 0, 10], "lut_data": curve}
    for open_ended in (False, True):
        name = "open" if open_ended else "closed"
        for syntax in (EXPLICIT, IMPLICIT, BIG_ENDIAN):
            yield f"voi {name} {syntax}.dcm", dicom(deep, syntax, open_ended=open_ended, voi=voi)
    below = {"lut": [100, (1 << 16) - 50, 8], "lut_data": np.arange(0, 200, 2)}
    yield "voi below zero.dcm", dicom(signed, voi=below)
    yield "modality.dcm", dicom(deep, stored=12, modality={"lut": [4096, 0, 16], "lut_data": curve})
    colour = rng.integers(0, 256, (*SHAPE, 3), np.uint8)
    for photometric, planar, syntax in itertools.product(
        ("RGB", "YBR_FULL"), (0, 1), (EXPLICIT, RLE)
    ):
        name = f"{photometric} {planar} {syntax}.dcm"
        yield name, dicom(colour, syntax, photometric=photometric, planar=planar)
    colours = {f"{name}_data": rng.integers(0, 65536, 200) for name in ("red", "green", "blue")}
    entries = {name: [200, 0, 16] for name in ("red", "green", "blue")}
    numbers = rng.integers(0, 256, SHAPE, np.uint8)
    yield "palette.dcm", dicom(numbers, photometric="PALETTE COLOR", **entries, **colours)
    yield "frames.dcm", dicom(deep, frames="12")
    yield "cut off.dcm", dicom(deep)[:-99]
    yield "jpeg.dcm", dicom(deep, "1.2.840.10008.1.2.4.70")
    yield "private syntax.dcm", dicom(deep, "1.2.3.SECRET")
    yield "no image.dcm", dicom(deep, rows=None)
    yield "no pixels.dcm", dicom(deep)[: -deep.size * 2 - 12]
    yield "large.dcm", dicom(deep, rows=65535, columns=65535)


def value_seeds() -> dict[str, bytes]:
    """All of them."""
    rng = np.random.default_rng(0)
    return dict(itertools.chain(pngs(rng), tiffs(rng), npys(rng), dicoms(rng)))

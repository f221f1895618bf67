"""JPEG and PNG files of every kind that the C++ decoder reads, made here: name → bytes.

The fuzzer damages them, and a test compares their pixels with those of `densepath.images.decode`.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

# Colour type → samples of a pixel: PNG specification, table 11.1.
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# Row, column, row step, column step of the seven passes: section 8.2.
PASSES = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)


def chunk(name: bytes, data: bytes) -> bytes:
    """A PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    samples: NDArray[np.integer],
    depth: int,
    color: int,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
    piece: int = 1 << 30,
) -> bytes:
    """A PNG of samples [height, width, channels], its rows filtered in turn by all five filters.

    `before` and `after` are chunks around the pixels, which come in IDAT chunks of `piece` bytes.
    """
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    parts = [samples[r::dr, c::dc] for r, c, dr, dc in PASSES] if interlaced else [samples]
    rows = b"".join(_filtered(part, depth) for part in parts if part.size)
    packed = zlib.compress(rows)
    data = b"".join(chunk(b"IDAT", packed[i : i + piece]) for i in range(0, len(packed), piece))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + before + data + after + chunk(b"IEND", b"")


def _filtered(samples: NDArray[np.integer], depth: int) -> bytes:
    """The rows as bytes, row i behind the filter i mod 5."""
    height = samples.shape[0]
    flat = samples.reshape(height, -1)
    if depth == 16:
        rows = flat.astype(">u2").view(np.uint8).reshape(height, -1)
    elif depth == 8:
        rows = flat.astype(np.uint8)
    else:
        bits = (flat[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    bpp = max(samples.shape[2] * depth // 8, 1)
    out, above = [], np.zeros(rows.shape[1], int)
    for i, row in enumerate(rows.astype(int)):
        left = np.concatenate([np.zeros(bpp, int), row[:-bpp]])[: len(row)]
        corner = np.concatenate([np.zeros(bpp, int), above[:-bpp]])[: len(row)]
        guess = (0, left, above, (left + above) // 2, _paeth(left, above, corner))[i % 5]
        out.append(bytes([i % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        above = row
    return b"".join(out)


def _paeth(left: NDArray, above: NDArray, corner: NDArray) -> NDArray:
    a, b, c = (np.abs(left + above - corner - x) for x in (left, above, corner))
    return np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))


def pngs(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Every colour type, depth and order of rows, with and without what is transparent."""
    for color, depths in DEPTHS.items():
        for depth, interlaced, (height, width) in itertools.product(
            depths, (False, True), ((13, 11), (1, 1), (3, 9))
        ):
            samples = rng.integers(0, 1 << depth, (height, width, CHANNELS[color]))
            name = f"color {color} depth {depth} {width}x{height}{' interlaced' * interlaced}"
            entries = chunk(b"PLTE", rng.bytes(3 << depth)) if color == 3 else b""
            options = {"interlaced": interlaced, "piece": 50}
            yield name, png(samples, depth, color, before=entries, **options)
            if color in (0, 2):
                clear = struct.pack(f">{CHANNELS[color]}H", *map(int, samples[0, 0]))
            elif color == 3:
                clear = rng.bytes(max((1 << depth) - 1, 1))
            else:
                continue
            some = entries + chunk(b"tRNS", clear)
            yield f"{name} transparent", png(samples, depth, color, before=some, **options)


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """A TIFF directory that says only how the picture was held."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    value = struct.pack(f"{order}I" if kind == 4 else f"{order}HH", *([orientation, 0][: 5 - kind]))
    entry = struct.pack(f"{order}HHI", 0x112, kind, 1) + value
    return start + struct.pack(f"{order}H", 1) + entry + bytes(4)


def notes(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Orientations in every place where one can stand."""
    pixels = rng.integers(0, 256, (4, 7, 3))
    xmp = b'<x tiff:Orientation="%d"/>'
    for turn in range(10):
        order, kind = "<>"[turn % 2], 3 + turn % 2
        note = exif(turn, order, kind)
        raw = b"\nexif\n%8d\n%s\n" % (len(note) + 6, (b"Exif\0\0" + note).hex().encode())
        places = {
            "eXIf": chunk(b"eXIf", note),
            "raw profile": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
            "raw text": chunk(b"tEXt", b"Raw profile type exif\0" + raw),
            "xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp % turn),
            "packed xmp": chunk(
                b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp % turn)
            ),
        }
        for place, data in places.items():
            yield f"turned {turn} {place}", png(pixels, 8, 2, before=data)
            yield f"turned {turn} {place} behind", png(pixels, 8, 2, after=data)
        picture = Pillow.fromarray(pixels.astype(np.uint8))
        yield f"turned {turn}.jpg", _save(picture, exif=b"Exif\0\0" + note)
        yield f"turned {turn} xmp.jpg", _save(picture, xmp=xmp % turn)


def jpegs(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Modes, samplings, qualities and orders of coefficients."""
    for mode, bands in (("L", 1), ("RGB", 3), ("CMYK", 4)):
        for size, (name, options) in itertools.product(
            ((17, 23), (1, 1), (16, 8), (64, 70)), _jpeg_options(mode)
        ):
            smooth = rng.integers(0, 256, (size[0] // 8 + 2, size[1] // 8 + 2, bands))
            zoomed = smooth.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
            mixed = np.clip(zoomed + rng.integers(-20, 20, zoomed.shape), 0, 255)
            pixels = mixed.astype(np.uint8)
            picture = (
                Pillow.fromarray(pixels[:, :, 0])
                if mode == "L"
                else Pillow.frombytes(mode, size[::-1], pixels.tobytes())
            )
            yield f"{mode} {size[1]}x{size[0]} {name}.jpg", _save(picture, **options)


def _jpeg_options(mode: str) -> list[tuple[str, dict]]:
    """Ways to save a JPEG of this mode."""
    ways: list[tuple[str, dict]] = [
        ("plain", {}),
        ("progressive", {"progressive": True}),
        ("coarse", {"quality": 5}),
        ("restarts", {"restart_marker_blocks": 3}),
        ("optimised", {"optimize": True}),
    ]
    if mode == "RGB":
        ways += [(f"sampling {s}", {"subsampling": s}) for s in ("4:4:4", "4:2:2", "4:2:0")]
        ways += [("kept rgb", {"keep_rgb": True})]
    return ways


def _save(picture: Pillow.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


def seeds() -> dict[str, bytes]:
    """All of them."""
    rng = np.random.default_rng(0)
    return dict(itertools.chain(pngs(rng), notes(rng), jpegs(rng)))

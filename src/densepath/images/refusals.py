"""Why a file is not read, in a user's words: what it is instead, or what about it is unusual.

On the line: `decode.py` asks when a decoder has refused. `deploy/cpp/src/decode.cpp` says the same
of files that are no images.
"""

from __future__ import annotations

from typing import IO, Any

from PIL import TiffImagePlugin

from densepath.wording import counted

SAVE = "save it as an 8-bit PNG"
INTENSITY = "it is read for networks that have the setting intensity (docs/data.md)"
# What stands in place of an image, by its first bytes in lower case.
OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype", "a web page, not an image"),
    (b"<html", "a web page, not an image"),
    (b"<?xml", "XML text, not an image"),
    (b"<svg", "an SVG drawing, not pixels; save it as PNG"),
    (b"version https://git-lfs", "a Git LFS pointer, not the image itself; run `git lfs pull`"),
    (b"%pdf", "a PDF, not an image; save its pages as PNG"),
    (b"\x00\x00\x00\x0cjp  ", "a JPEG 2000 image, a kind that is not read; save it as PNG"),
    (b"\xffo\xffq", "a JPEG 2000 image, a kind that is not read; save it as PNG"),
    (b"\xff\x0a", "a JPEG XL image, a kind that is not read; save it as PNG"),
    (b"\x00\x00\x00\x0cjxl ", "a JPEG XL image, a kind that is not read; save it as PNG"),
    (b"ii\xbc", "a JPEG XR image, a kind that is not read; save it as PNG"),
    (b"p7\n", "a PAM image, a kind that is not read; save it as PNG"),
    (b"pf\n", "a PFM image of three floating-point channels, not an 8-bit image; " + SAVE),
    (b"qoif", "a QOI image, a kind that is not read; save it as PNG"),
    (b"8bps", "a Photoshop file, a kind that is not read; save it as PNG"),
    (b"v/1\x01", "an OpenEXR image, not an 8-bit image; " + SAVE),
    (b"simple  =", "a FITS file, not an 8-bit image; " + SAVE),
    (b"\x93numpy", "a NumPy array, not an image; " + INTENSITY),
    (b"iiro", "a raw photo, a kind that is not read; save it as JPEG"),
    (b"iiu\x00", "a raw photo, a kind that is not read; save it as JPEG"),
    (b"fujifilmccd-raw", "a raw photo, a kind that is not read; save it as JPEG"),
    (b"pk\x03\x04", "a zip archive, not an image"),
    (b"\x1f\x8b", "a gzip archive, not an image"),
)
# ISO media files say their kind ("brand") at byte 8, and others that they go by from byte 16 on.
AVIF_BRANDS = frozenset((b"avif", b"avis"))
HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
RAW_BRAND = b"crx "
DICOM_AT = 128
JPEG_LS_FRAME = b"\xff\xf7"  # marker SOF55 of ITU-T T.87

# Tags of TIFF 6.0 and of DNG 1.7, which calls a raw file's sensor data photometric 32803.
BITS, FORMAT, PLANES, COMPRESSION, PHOTOMETRIC = 258, 339, 277, 259, 262
SUBFILE, DNG_VERSION = 254, 50706
REDUCED, SENSOR, SIGNED = 1, 32803, 2
NUMBERS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex", 6: "complex"}
COMPRESSIONS = {
    6: "old JPEG", 34676: "SGILog", 34677: "SGILog", 34712: "JPEG 2000", 34887: "LERC",
    34892: "lossy DNG", 34925: "LZMA", 34933: "PNG", 34934: "JPEG XR", 50000: "Zstandard",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
# Words by which Pillow's readers say that a file is whole, but of a kind that they cannot read.
UNSUPPORTED = ("unsupported", "not supported", "cannot handle", "unknown")


class RefusedError(Exception):
    """The reason why an image is not decoded."""


def media_brands(start: bytes) -> frozenset[bytes]:
    """The brands of an ISO media file (HEIC, AVIF, films), by its first bytes; empty for others."""
    if start[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(start[:4], "big"), len(start))
    others = (start[i : i + 4] for i in range(16, end - 3, 4))
    return frozenset((start[8:12], *others))


def what_it_is_instead(start: bytes, known: tuple[str, ...]) -> str:
    """What a file is that starts so and is of none of the `known` formats."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, reason in OTHER_KINDS:
        if text.startswith(beginning) or start.lower().startswith(beginning):
            return reason
    if start[DICOM_AT : DICOM_AT + 4] == b"DICM":
        return f"a DICOM file, not an 8-bit image; {INTENSITY}; or {SAVE}"
    if RAW_BRAND in media_brands(start):
        return "a raw photo, a kind that is not read; save it as JPEG"
    if start[4:8] == b"ftyp":
        return "a video or another media file, not an image"
    if not start.strip(b"\x00"):
        return "nothing but zero bytes"
    return f"not an image of a known kind ({', '.join(known)})"


def why_refused(format: str, file: IO[bytes], error: Exception) -> str:
    """Why Pillow's reader of `format` refuses a file by its header: unusual, or damaged."""
    if format == "TIFF" and (unusual := _unusual_tiff(file)):
        return unusual
    file.seek(0)
    if format == "JPEG" and JPEG_LS_FRAME in file.read(512):
        return "a JPEG-LS image, a kind that is not read; save it as PNG"
    said = str(error)
    if any(word in said.lower() for word in UNSUPPORTED):
        return f"a {format} file of a kind that is not read ({said}); {SAVE}"
    return f"a damaged {format} file: {said or type(error).__name__}"


def why_tiff_fails(file: IO[bytes], said: str) -> str:
    """Why a TIFF whose header is well cannot be decoded."""
    name = COMPRESSIONS.get(first_number((_tiff_tags(file) or {}).get(COMPRESSION)))
    if name is None:
        return f"damaged: {said}"
    return f"a TIFF compressed as {name}: damaged, or more than this Pillow reads; {SAVE}"


def why_not_the_photo(tags: Any) -> str | None:
    """Why the pixels that Pillow would give of a TIFF are not what is in it; None where they are.

    The first picture of a raw file is its preview; signed and 12-bit numbers would be read as
    unsigned ones of 8 and 16 bits.
    """
    if tags is None:
        return None
    if tags.get(DNG_VERSION) is not None or first_number(tags.get(SUBFILE)) == REDUCED:
        return "a raw photo, of which only a small preview could be read; save it as JPEG"
    bits, numbers = first_number(tags.get(BITS), 1), first_number(tags.get(FORMAT), 1)
    if (bits == 8 and numbers == SIGNED) or 8 < bits < 16:
        return _unusual_numbers(tags)
    return None


def _unusual_tiff(file: IO[bytes]) -> str | None:
    """What a whole TIFF holds that is no 8-bit image; None where its header is damaged."""
    tags = _tiff_tags(file)
    if tags is None or BITS not in tags:
        return None
    if first_number(tags.get(PHOTOMETRIC)) == SENSOR:
        return "a TIFF of a sensor's raw data, not an 8-bit image; save it as JPEG"
    name = COMPRESSIONS.get(first_number(tags.get(COMPRESSION)))
    if name is not None:
        return f"a TIFF compressed as {name}, which is not read; {SAVE}"
    return _unusual_numbers(tags)


def _unusual_numbers(tags: Any) -> str | None:
    """`a TIFF of 3 channels of 32-bit floats, ...`; None where the tags make no sense."""
    planes, bits = first_number(tags.get(PLANES), 1), first_number(tags.get(BITS))
    numbers = NUMBERS.get(first_number(tags.get(FORMAT), 1))
    if numbers is None or not 0 < bits <= 128 or planes < 1:
        return None
    channels = counted(planes, "channel")
    return f"a TIFF of {channels} of {bits}-bit {numbers}, not an 8-bit image; {SAVE}"


def _tiff_tags(file: IO[bytes]) -> dict[int, Any] | None:
    """The tags of a TIFF's first picture; None where they cannot be read."""
    try:
        file.seek(0)
        header = file.read(8)
        header += file.read(8) if 43 in header[2:4] else b""  # BigTIFF
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        return dict(tags)
    except Exception:  # A damaged directory makes Pillow raise nearly anything.
        return None


def first_number(value: object, default: int = 0) -> int:
    """The first number of a TIFF tag's value."""
    first = value[0] if isinstance(value, tuple) and value else value
    return int(first) if isinstance(first, int | float) else default

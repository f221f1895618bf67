"""One image file → uint8 HWC, whatever kind of file it is; or an ImageError that says why not.

Rules: EXIF orientation is applied; transparency is laid over white; 16-bit and 32-bit gray keep
their upper 8 of 16 bits; floats in 0…1 are scaled by 255; of an animation the first frame is
taken; CMYK, YCbCr and Lab become RGB. Sizes are read from the header and refused before anything
is decoded. Damaged files are refused, never half read.
"""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from densepath.errors import ImageError
from densepath.preprocess import Image

# MPO, a JPEG of several pictures, is opened as JPEG.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("apng", "bmp", "gif", "jfif", "jpeg", "jpg", "mpo", "pbm"),
        *("pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
# Pillow warns above this and refuses twice as much (Pillow 13 `Image.MAX_IMAGE_PIXELS`).
MAX_PIXELS = 89_478_485
TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")

# Pillow warns of images that would take gigabytes; for us that is a refusal.
warnings.filterwarnings("error", category=Pillow.DecompressionBombWarning)


def open_image(
    source: str | Path | bytes, *, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> Image:
    """The image as uint8 [height, width, channels], values 0 to 255.

    Args:
        source: a file, or the bytes of one.
        channels: 3 for RGB, 1 for grayscale (ITU-R 601-2 luma).
        max_pixels: the largest height × width that is decoded.

    Raises:
        ImageError: the file cannot be read; its `reason` says why.
    """
    name = "<bytes>" if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, bytes):
            return _decode(io.BytesIO(source), channels, max_pixels)
        _check_file(Path(source))
        with Path(source).open("rb") as file:
            return _decode(file, channels, max_pixels)
    except _RefusedError as refused:
        raise ImageError(name, str(refused)) from None
    except UnidentifiedImageError:
        raise ImageError(name, _what_it_is_instead(source)) from None
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning):
        raise ImageError(name, f"more than {max_pixels:,} pixels") from None
    except OSError as error:
        raise ImageError(name, _plain_reason(error)) from None
    except MemoryError:
        raise ImageError(name, "not enough memory to decode it") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        raise ImageError(name, f"damaged: {error or type(error).__name__}") from None


def from_pillow(picture: Pillow.Image, *, channels: int = 3) -> Image:
    """The pixels of a Pillow image as uint8 [height, width, channels], by the same rules.

    Raises:
        ImageError: it cannot be decoded or converted.
    """
    try:
        return _to_array(picture, channels)
    except _RefusedError as refused:
        raise ImageError("<picture>", str(refused)) from None
    except Exception as error:  # A lazily opened file is decoded only here.
        raise ImageError("<picture>", f"damaged: {error or type(error).__name__}") from None


class _RefusedError(Exception):
    """The reason why an image is not decoded."""


def _check_file(path: Path) -> None:
    """Returns when `path` is a file with something in it (a pipe would block for ever)."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise _RefusedError("a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise _RefusedError("not a regular file")
    if found.st_size == 0:
        raise _RefusedError("the file is empty")


def _decode(file: IO[bytes], channels: int, max_pixels: int) -> Image:
    """The first frame of an opened image file."""
    with Pillow.open(file, formats=FORMATS) as picture:
        width, height = picture.size
        if width * height > max_pixels:
            raise _RefusedError(
                f"{width} × {height} is more than the {max_pixels:,} pixels allowed"
            )
        picture.load()
        return _to_array(picture, channels)


def _to_array(picture: Pillow.Image, channels: int) -> Image:
    """The pixels of a loaded picture, by the rules above."""
    flat = _eight_bits(_over_white(_upright(picture)))
    wanted = "L" if channels == 1 else "RGB"
    array = np.asarray(flat if flat.mode == wanted else flat.convert(wanted))
    return array[:, :, None] if channels == 1 else array


def _upright(picture: Pillow.Image) -> Pillow.Image:
    """The picture turned as its EXIF orientation says; as it is when the EXIF is damaged."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # The pixels are whole: a damaged note about them is not worth a refusal.
        return picture


def _over_white(picture: Pillow.Image) -> Pillow.Image:
    """The picture without transparency."""
    if picture.mode not in TRANSPARENT_MODES and "transparency" not in picture.info:
        return picture
    shown = picture.convert("RGBA")
    white = Pillow.new("RGBA", shown.size, (255, 255, 255, 255))
    return Pillow.alpha_composite(white, shown).convert("RGB")


def _eight_bits(picture: Pillow.Image) -> Pillow.Image:
    """Deep grayscale as mode L; other modes as they are."""
    if picture.mode == "F":
        values = np.asarray(picture)
        if not np.isfinite(values).all():
            raise _RefusedError("floating-point pixels that are not finite")
        scale = 255.0 if values.max() <= 1.0 else 1.0
        return Pillow.fromarray(np.rint(values * scale).clip(0, 255).astype(np.uint8))
    if picture.mode.startswith("I"):
        deep = np.asarray(picture).astype(np.int64)
        return Pillow.fromarray((deep.clip(0, 65535) >> 8).astype(np.uint8))
    return picture


def _plain_reason(error: OSError) -> str:
    """Pillow's or the system's reason in one line."""
    if error.errno is not None and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return str(error) or type(error).__name__


def _what_it_is_instead(source: str | Path | bytes) -> str:
    """Why a file that no decoder takes is none of the known formats."""
    if isinstance(source, bytes):
        start = source[:512]
    else:
        with Path(source).open("rb") as file:
            start = file.read(512)
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "a web page or XML text, not an image"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself; run `git lfs pull`"
    return f"not an image of a known kind ({', '.join(FORMATS)})"

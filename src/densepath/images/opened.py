"""A file whose kind is known and whose header is read, as Pillow opens it.

On the line: below `decode.py` and `pages.py`, which make pixels and values of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.util import find_spec
from typing import IO

# The openers of FORMATS register themselves in Pillow.OPEN when these are imported.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)
from PIL import Image as Pillow

from densepath.errors import MissingPackageError
from densepath.images.refusals import (
    AVIF_BRANDS,
    HEIF_BRANDS,
    RefusedError,
    media_brands,
    what_it_is_instead,
    why_not_the_photo,
    why_refused,
    why_tiff_fails,
)

# Nothing else that Pillow can open is opened: fewer decoders, fewer holes. MPO, a JPEG of several
# pictures, is opened as JPEG.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
START = 512


def is_heif_readable() -> bool:
    """Whether the package that reads HEIC photos is installed."""
    return find_spec("pillow_heif") is not None


def why_not_heif() -> str:
    """What is missing to read HEIC photos, and the cure."""
    return f"{MissingPackageError('pillow-heif', 'heic')}"


def check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Raise unless width × height may be decoded; nothing has been decoded yet."""
    width, height = size
    if width * height > max_pixels:
        raise RefusedError(f"{width} × {height} is more than the {max_pixels:,} pixels allowed")


def identify(file: IO[bytes]) -> ImageFile.ImageFile:
    """The picture of which only the header has been read.

    `PIL.Image.open` would refuse or warn of large pictures by its own global limit.
    """
    start = file.read(START)
    name = _format_of(start)
    file.seek(0)
    try:
        picture = _reader_of(name)(file, "")
    except (SyntaxError, IndexError, KeyError, TypeError, struct.error) as error:
        raise RefusedError(why_refused(name, file, error)) from None
    if reason := why_not_the_photo(getattr(picture, "tag_v2", None)):
        raise RefusedError(reason)
    return picture


def _format_of(start: bytes) -> str:
    """The one of FORMATS that a file of these first bytes has."""
    brands = media_brands(start)
    if brands & AVIF_BRANDS:
        return "AVIF"
    if brands & HEIF_BRANDS:
        return "HEIF"
    for name in FORMATS:
        accepts = Pillow.OPEN[name][1] if name in Pillow.OPEN else None
        if not brands and accepts is not None and accepts(start[:16]) is True:
            return name
    raise RefusedError(what_it_is_instead(start, FORMATS))


def _reader_of(name: str) -> Callable[[IO[bytes], str], ImageFile.ImageFile]:
    """Pillow's reader of a format."""
    if name == "AVIF" and not AvifImagePlugin.SUPPORTED:
        raise RefusedError("an AVIF image, which this build of Pillow cannot read; save it as PNG")
    if name != "HEIF":
        return Pillow.OPEN[name][0]
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise RefusedError(f"a HEIC photo: {why_not_heif()}") from None
    return HeifImageFile


def load(picture: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """Decode the picture's pixels."""
    try:
        picture.load()
    except OSError as error:
        if picture.format == "TIFF" and error.errno is None and not file.closed:
            raise RefusedError(why_tiff_fails(file, str(error))) from None
        raise

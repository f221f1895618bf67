"""One image file → uint8 HWC, whatever kind of file it is; or an ImageError that says why not.

Rules: EXIF orientation is applied; transparency is laid over white; 16-bit and 32-bit gray keep
their upper 8 of 16 bits; floats in 0…1 are scaled by 255, and numbers beyond what an image has are
refused; of an animation the first frame is taken, of a HEIC file the main picture; CMYK, YCbCr and
Lab become RGB. Sizes are read from the header and refused before anything is decoded. Damaged files
are refused, never half read. `docs/data.md` has the table.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

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

from densepath.errors import ImageError, MissingPackageError, UsageError
from densepath.images.eight_bits import eight_bits
from densepath.images.preprocess import Image
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

Read = TypeVar("Read")

# Nothing else that Pillow can open is opened: fewer decoders, fewer holes. MPO, a JPEG of several
# pictures, is opened as JPEG.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
SUFFIXES = frozenset((
    ".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tif", ".tiff", ".webp"
))  # fmt: skip
AVIF_SUFFIXES = frozenset((".avif", ".avifs"))
HEIF_SUFFIXES = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))
FILE_CHANNELS = (1, 3)
# Above this Pillow warns of a decompression bomb (Pillow 13 `Image.MAX_IMAGE_PIXELS`).
MAX_PIXELS = 89_478_485
TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
ORIENTATION = 0x0112  # EXIF 2.3, section 4.6.4, table 4.
LONGEST_REASON = 300
# Without a handler, Pillow's log of a damaged TIFF would land on standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of images that are read here: HEIC only with its package."""
    avif = AVIF_SUFFIXES if AvifImagePlugin.SUPPORTED else frozenset()
    heif = HEIF_SUFFIXES if is_heif_readable() else frozenset()
    return SUFFIXES | avif | heif


def is_heif_readable() -> bool:
    """Whether the package that reads HEIC photos is installed."""
    return find_spec("pillow_heif") is not None


def why_not_heif() -> str:
    """What is missing to read HEIC photos, and the cure."""
    return f"{MissingPackageError('pillow-heif', 'heic')}"


def open_image(
    source: str | Path | bytes, *, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> Image:
    """The image as uint8 [height, width, channels], values 0 to 255, read-only.

    Args:
        source: a file, or the bytes of one.
        channels: 3 for RGB, 1 for grayscale (ITU-R 601-2 luma).
        max_pixels: the largest height × width that is decoded.

    Raises:
        ImageError: the file cannot be read; its `reason` says why.
        UsageError: channels other than 1 and 3.
    """
    return _pixels(open_picture(source, channels=channels, max_pixels=max_pixels))


def open_picture(
    source: str | Path | bytes, *, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> Pillow.Image:
    """Decode an image as `open_image` does, into a Pillow image of mode RGB or L, uncopied."""
    _check_channels(channels)

    def decode(file: IO[bytes]) -> Pillow.Image:
        with _identify(file) as picture:
            _check_pixels(picture.size, max_pixels)
            _load(picture, file)
            return _flatten(picture, channels)

    if isinstance(source, bytes):
        return _or_image_error("<bytes>", lambda: decode(io.BytesIO(source)))

    def read() -> Pillow.Image:
        _check_file(Path(source))
        with Path(source).open("rb") as file:
            return decode(file)

    return _or_image_error(str(source), read)


def from_pillow(picture: Pillow.Image, *, channels: int = 3) -> Image:
    """The pixels of a Pillow image as uint8 [height, width, channels], by the same rules.

    Raises:
        ImageError: it cannot be decoded or converted.
        UsageError: channels other than 1 and 3.
    """
    _check_channels(channels)
    return _or_image_error("<picture>", lambda: _pixels(_flatten(picture, channels)))


def _or_image_error(name: str, read: Callable[[], Read]) -> Read:
    """What `read` gives, or an ImageError about `name`, whatever it raises."""
    try:
        with _without_pillows_warnings():
            return read()
    except RefusedError as refused:
        reason = str(refused)
    except OSError as error:
        reason = _plain_reason(error)
    except Pillow.DecompressionBombError:  # From a frame inside an animation.
        reason = "more pixels than allowed"
    except MemoryError:
        reason = "not enough memory to decode it"
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        reason = f"damaged: {error or type(error).__name__}"
    # Decoders end lines, and some quote the file.
    raise ImageError(name, " ".join(reason.split())[:LONGEST_REASON])


_quiet_lock = threading.Lock()
_quiet_stack: list[warnings.catch_warnings] = []
_quiet_count = 0


@contextlib.contextmanager
def _without_pillows_warnings() -> Iterator[None]:
    """Silence Pillow's warnings of damaged metadata; threads share one such state.

    `warnings.catch_warnings` alone would leave the filters wrong when threads overlap.
    """
    global _quiet_count
    with _quiet_lock:
        if _quiet_count == 0:
            caught = warnings.catch_warnings()
            caught.__enter__()
            _quiet_stack.append(caught)
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_count += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_count -= 1
            if _quiet_count == 0:
                _quiet_stack.pop().__exit__(None, None, None)


def _check_channels(channels: int) -> None:
    """Raise unless files can be read with so many channels."""
    if channels not in FILE_CHANNELS:
        raise UsageError(
            f"channels is {channels}; files are read with 1 (gray) or 3 (RGB). Arrays [height, "
            f"width, {channels}] are taken in their place."
        )


def _check_file(path: Path) -> None:
    """Raise unless `path` is a file with something in it (a pipe would block for ever)."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise RefusedError("a folder, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError("not a regular file")
    if found.st_size == 0:
        raise RefusedError("the file is empty")


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Raise unless width × height may be decoded; nothing has been decoded yet."""
    width, height = size
    if width * height > max_pixels:
        raise RefusedError(f"{width} × {height} is more than the {max_pixels:,} pixels allowed")


def _identify(file: IO[bytes]) -> ImageFile.ImageFile:
    """The picture of which only the header has been read.

    `PIL.Image.open` would refuse or warn of large pictures by its own global limit.
    """
    start = file.read(512)
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


def _load(picture: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """Decode the picture's pixels."""
    try:
        picture.load()
    except OSError as error:
        if picture.format == "TIFF" and error.errno is None and not file.closed:
            raise RefusedError(why_tiff_fails(file, str(error))) from None
        raise


def _flatten(picture: Pillow.Image, channels: int) -> Pillow.Image:
    """The picture in mode RGB or L, by the rules above."""
    flat = _over_white(eight_bits(_upright(picture)))
    wanted = "L" if channels == 1 else "RGB"
    return flat if flat.mode == wanted else flat.convert(wanted)


def _pixels(picture: Pillow.Image) -> Image:
    """uint8 [height, width, channels] of a picture of mode RGB or L."""
    array = np.asarray(picture)
    return array[:, :, None] if array.ndim == 2 else array


def _upright(picture: Pillow.Image) -> Pillow.Image:
    """The picture turned as its EXIF orientation says; as it is when the EXIF is damaged."""
    try:
        if picture.getexif().get(ORIENTATION, 1) == 1:
            return picture  # exif_transpose would copy it.
        from PIL import ImageOps

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


def _plain_reason(error: OSError) -> str:
    """The system's reason, or Pillow's, in one line."""
    if error.errno is not None and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return f"damaged: {error or type(error).__name__}"

"""One image file → uint8 HWC, whatever kind of file it is; or an ImageError that says why not.

Rules: EXIF orientation is applied; transparency is laid over white; 16-bit and 32-bit gray keep
their upper 8 of 16 bits; floats in 0…1 are scaled by 255, and numbers beyond what an image has are
refused; of an animation the first frame is taken, of a HEIC file the main picture; CMYK, YCbCr and
Lab become RGB. Sizes are read from the header and refused before anything is decoded. Damaged files
are refused, never half read. `docs/data.md` has the table.

A network with an `intensity`, or of other channels than 1 and 3, also has DICOM files, `.npy`
arrays and the pages of TIFFs read, by their values: `values.py`. For all others nothing of that
counts, and such files are what they always were.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import numpy as np
from PIL import AvifImagePlugin
from PIL import Image as Pillow

from densepath.errors import ImageError, UsageError
from densepath.images.flatten import flatten, to_array
from densepath.images.intensity import Intensity
from densepath.images.opened import START, check_pixels, identify, is_heif_readable, load
from densepath.images.preprocess import Image
from densepath.images.read_as import DICOM_SUFFIXES, NPY_SUFFIX, PHOTO_CHANNELS, ReadAs
from densepath.images.refusals import RefusedError

if TYPE_CHECKING:
    from densepath.images.values import Values

Read = TypeVar("Read")

SUFFIXES = frozenset((
    ".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tif", ".tiff", ".webp"
))  # fmt: skip
AVIF_SUFFIXES = frozenset((".avif", ".avifs"))
HEIF_SUFFIXES = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))
MOST_CHANNELS = 16
# Above this Pillow warns of a decompression bomb (Pillow 13 `Image.MAX_IMAGE_PIXELS`).
MAX_PIXELS = 89_478_485
LONGEST_REASON = 300
# Without a handler, Pillow's log of a damaged TIFF would land on standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@functools.cache
def readable_suffixes(*, values: bool = False) -> frozenset[str]:
    """The suffixes, in lower case, of images that are read here: HEIC only with its package.

    With `values` also those of files that are read so: `ReadAs.by_value`.
    """
    avif = AVIF_SUFFIXES if AvifImagePlugin.SUPPORTED else frozenset()
    heif = HEIF_SUFFIXES if is_heif_readable() else frozenset()
    deep = DICOM_SUFFIXES | {NPY_SUFFIX} if values else frozenset()
    return SUFFIXES | avif | heif | deep


def open_image(
    source: str | Path | bytes,
    *,
    channels: int = 3,
    intensity: Intensity | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image:
    """The image as uint8 [height, width, channels], values 0 to 255, read-only.

    Args:
        source: a file, or the bytes of one.
        channels: 3 for RGB, 1 for grayscale (ITU-R 601-2 luma), others up to 16 for TIFFs of as
            many pages and `.npy` arrays.
        intensity: which values of a deep file are black and white.
        max_pixels: the largest height × width that is decoded.

    Raises:
        ImageError: the file cannot be read; its `reason` says why.
        UsageError: channels that no file is read with.
    """
    made = open_picture(source, channels=channels, intensity=intensity, max_pixels=max_pixels)
    return made if isinstance(made, np.ndarray) else to_array(made)


def open_picture(
    source: str | Path | bytes,
    *,
    channels: int = 3,
    intensity: Intensity | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Pillow.Image | Image:
    """Decode an image as `open_image` does, into a Pillow image of mode RGB or L, uncopied.

    Where a file is read for its values, they are an array.
    """
    if not 1 <= channels <= MOST_CHANNELS:
        raise UsageError(f"channels is {channels}; files are read with 1 to {MOST_CHANNELS}.")

    def decode(file: IO[bytes]) -> Pillow.Image | Image:
        if ReadAs(channels, intensity).by_value:
            return _read_values(file, channels, max_pixels).to_pixels(intensity, channels)
        with identify(file) as picture:
            check_pixels(picture.size, max_pixels)
            load(picture, file)
            return flatten(picture, channels)

    if isinstance(source, bytes):
        return _or_image_error("<bytes>", lambda: decode(io.BytesIO(source)))

    def read() -> Pillow.Image | Image:
        _check_file(Path(source))
        with Path(source).open("rb") as file:
            return decode(file)

    return _or_image_error(str(source), read)


def read_values(path: Path, *, channels: int, max_pixels: int = MAX_PIXELS) -> Values:
    """What a file has for each pixel, for a network of so many channels.

    Raises:
        ImageError: the file cannot be read; its `reason` says why.
    """

    def read() -> Values:
        _check_file(path)
        with path.open("rb") as file:
            return _read_values(file, channels, max_pixels)

    return _or_image_error(str(path), read)


def _read_values(file: IO[bytes], channels: int, max_pixels: int) -> Values:
    """A file's values, by the kind that its first bytes say, whatever its name."""
    # Photographs do without all of these.
    from densepath.images.dicom import read_dicom
    from densepath.images.dicom_header import is_dicom
    from densepath.images.npy import is_npy, read_npy
    from densepath.images.pages import read_pages

    start = file.read(START)
    file.seek(0)
    if is_dicom(start):
        return read_dicom(file, max_pixels)
    if is_npy(start):
        return read_npy(file, channels, max_pixels)
    return read_pages(file, channels, max_pixels)


def from_pillow(picture: Pillow.Image, *, channels: int = 3) -> Image:
    """The pixels of a Pillow image as uint8 [height, width, channels], by the same rules.

    Raises:
        ImageError: it cannot be decoded or converted.
        UsageError: channels other than 1 and 3.
    """
    _check_channels(channels)
    return _or_image_error("<picture>", lambda: to_array(flatten(picture, channels)))


def _or_image_error(name: str, read: Callable[[], Read]) -> Read:
    """What `read` gives, or an ImageError about `name`, whatever it raises."""
    try:
        with _without_warnings():
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
def _without_warnings() -> Iterator[None]:
    """Silence the readers' warnings of damaged metadata; threads share one such state.

    pydicom's may quote a header.

    `warnings.catch_warnings` alone would leave the filters wrong when threads overlap.
    """
    global _quiet_count
    with _quiet_lock:
        if _quiet_count == 0:
            caught = warnings.catch_warnings()
            caught.__enter__()
            _quiet_stack.append(caught)
            warnings.filterwarnings("ignore", module=r"(PIL|pydicom)\.")
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
    if channels not in PHOTO_CHANNELS:
        raise UsageError(
            f"channels is {channels}; pictures are read with 1 (gray) or 3 (RGB). Arrays [height, "
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


def _plain_reason(error: OSError) -> str:
    """The system's reason, or Pillow's, in one line."""
    if error.errno is not None and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return f"damaged: {error or type(error).__name__}"

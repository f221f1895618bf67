"""A picture that Pillow opens → its values: gray of any depth, the pages of a TIFF as channels.

On the line: `decode.py` asks for networks with an `intensity`, or of other channels than 1 and 3.
What is made for a screen (a photo, whatever has 8 bits) goes the way of all images. Pages become
channels where there are as many as the network takes; other stacks are refused, not cut.
`deploy/cpp/src/decode_tiff.cpp` and `decode_png.cpp` are the twins.
"""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile

from densepath.images.flatten import flatten, to_array, upright
from densepath.images.opened import check_pixels, identify, load
from densepath.images.refusals import (
    BITS,
    FORMAT,
    PHOTOMETRIC,
    REDUCED,
    SUBFILE,
    RefusedError,
    first_number,
)
from densepath.images.values import Numbers, Values, check_finite, full_range
from densepath.wording import counted

WHITE_IS_ZERO = 0  # photometric interpretation, TIFF 6.0 section 3
UNSIGNED = 1
GRAY_MODES = ("1", "L", "F")
# Directories that are looked at for pages; thumbnails are among them.
MOST_DIRECTORIES = 64
# Of an RGB image; so many values are kept of an image of any channels.
USUAL_CHANNELS = 3


def read_pages(file: IO[bytes], channels: int, max_pixels: int) -> Values:
    """The values of a picture for a network of so many channels.

    Raises:
        RefusedError: it is damaged, or has other pages or colours than are read so.
        Exception: of Pillow, on a damaged file; `decode.py` makes an ImageError of it.
    """
    with identify(file) as picture:
        check_pixels(picture.size, max_pixels)
        _check_depth(picture)
        is_gray = picture.mode in GRAY_MODES or picture.mode.startswith("I")
        if picture.format == "TIFF" and is_gray:
            return _stack(picture, file, channels, max_pixels)
        load(picture, file)
        return _values(picture, channels)


def _stack(picture: ImageFile.ImageFile, file: IO[bytes], channels: int, max_pixels: int) -> Values:
    """The pages of a gray TIFF, side by side as channels."""
    pages = _find_pages(picture, channels)
    if len(pages) > 1 and len(pages) != channels:
        many = "more" if len(pages) > channels else f"{len(pages)}"
        raise RefusedError(
            f"a TIFF of {many} pages, and the network takes {counted(channels, 'channel')}; save "
            "those that are meant as a file"
        )
    width, height = picture.size
    if width * height * len(pages) > max_pixels * USUAL_CHANNELS:
        raise RefusedError(f"{len(pages)} pages of {width} × {height} are more than is allowed")
    made = []
    for page in pages:
        picture.seek(page)
        if picture.size != (width, height):
            raise RefusedError("a TIFF whose pages are of different sizes")
        load(picture, file)
        made.append(_values(picture, 1))
    first = made[0]
    for one in made:
        if (one.stored.dtype, one.stored.shape) != (first.stored.dtype, first.stored.shape):
            raise RefusedError("a TIFF whose pages are of different kinds")
        if one.inverted != first.inverted:
            raise RefusedError("a TIFF in some of whose pages 0 is white")
    stored = np.concatenate([one.stored for one in made], axis=2)
    return Values(
        stored, first.what, inverted=first.inverted, shown=first.shown, own=full_range(stored)
    )


def _find_pages(picture: ImageFile.ImageFile, channels: int) -> list[int]:
    """The numbers of the whole pages, at most one more than the network has channels."""
    found: list[int] = []
    for at in range(MOST_DIRECTORIES):
        try:
            picture.seek(at)
        except EOFError:
            break
        if first_number(_tags(picture).get(SUBFILE)) & REDUCED == 0:
            found.append(at)
        if len(found) > channels:
            break
    picture.seek(found[0] if found else 0)
    return found or [0]


def _values(picture: ImageFile.ImageFile, channels: int) -> Values:
    """The values of a picture that is loaded."""
    deep = picture.mode == "F" or picture.mode.startswith("I")
    if not deep:
        wanted = 1 if channels == 1 else USUAL_CHANNELS
        return Values(
            to_array(flatten(picture, wanted)), f"a {picture.format} image of 8 bits", shown=True
        )
    clear = picture.info.get("transparency")
    stored = _numbers(picture)
    check_finite(stored)
    kind = "floats" if picture.mode == "F" else f"{stored.dtype.itemsize * 8} bits"
    return Values(
        stored,
        f"a {picture.format} image of {kind}",
        inverted=_tags(picture).get(PHOTOMETRIC) == WHITE_IS_ZERO,
        own=full_range(stored),
        white=stored[:, :, 0] == clear if isinstance(clear, int) else None,
    )


def _numbers(picture: ImageFile.ImageFile) -> Numbers:
    """[height, width, 1] of a deep gray picture's numbers, upright."""
    turned: Pillow.Image = upright(picture)
    array = np.asarray(turned)[:, :, None]
    tags = _tags(picture)
    bits = first_number(tags.get(BITS), 16)
    unsigned = first_number(tags.get(FORMAT), UNSIGNED) == UNSIGNED
    if array.dtype.kind == "f":
        return array
    if array.dtype.itemsize == 2:
        return array.astype(np.uint16)
    if bits == 32:
        return array.view(np.uint32) if unsigned else array
    return array.astype(np.uint16 if unsigned else np.int16)


def _check_depth(picture: ImageFile.ImageFile) -> None:
    """Raise RefusedError where Pillow would give fewer bits than a picture has, or other values."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        if picture.format == "PPM":
            raise RefusedError(
                "a PGM of more than 8 bits, whose values would be scaled; save it as a 16-bit PNG"
            )
        return
    args: Any = picture.tile[0].args if picture.tile else ""
    words = args if isinstance(args, tuple) else (args,)
    deep = any(isinstance(word, str) and ";16" in word for word in words)
    if deep or (picture.format == "PPM" and words[-1] not in (255, 1) and _most(words) > 255):
        raise RefusedError(
            "a colour image of 16 bits, of which only the upper 8 would be read; save its channels "
            "as the pages of a TIFF or as an .npy array"
        )


def _most(words: tuple[Any, ...]) -> int:
    """The greatest number in a PPM, by Pillow's arguments of its decoder."""
    return max((word for word in words if isinstance(word, int)), default=0)


def _tags(picture: Pillow.Image) -> Any:
    """The tags of a TIFF's page; none of other formats."""
    return getattr(picture, "tag_v2", {})

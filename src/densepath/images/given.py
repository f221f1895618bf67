"""What a caller hands in → one image after another, each with its name.

One place decides what one image is and what many are; `Predictor.predict` and `explain` ask here.
Names (files, folders, patterns, lists) go the command line's way, through `find.py`.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from densepath.errors import DataError, UsageError
from densepath.images.download import Url, is_url
from densepath.images.find import STDIN, find_images, name_of
from densepath.images.image_files import PassedOver
from densepath.images.reading import ReadImage, check_pixels, is_picture, is_tensor

if TYPE_CHECKING:
    from densepath.images.reading import Readable

    Named: TypeAlias = tuple[str, Readable]

KINDS = (
    "a path, a folder, an image file's bytes or open file, a uint8 array or tensor, a Pillow "
    "image, or an iterable of these"
)
URL_IS_A_NAME = (
    "an address is not downloaded by itself: hand in densepath.images.download.Url(ADDRESS), or "
    "the image's bytes"
)


def images_in(given: Any, *, values: bool = False) -> Iterator[tuple[str, Readable]]:
    """The images that a caller means, in order, with their names.

    One image is: a path (of a folder: all images below it, as on the command line), an image
    file's bytes in any form, an open binary file, a Pillow image, a uint8 array or tensor of two or
    three sides. Many are: an array or tensor of four sides, an array of paths, and whatever can be
    iterated over, but no mapping, table, text file or nested list. With `values` files that are
    read for their values (`read_as.py:ReadAs.by_value`) are among a folder's images.

    Raises:
        UsageError: `given` is nothing that holds images; it is raised here, not by the iterator.
    """
    kind = type(given).__name__
    if isinstance(given, Mapping):
        raise UsageError(f"a {kind} is no list of images; hand in its values: predict(x.values()).")
    if hasattr(given, "columns"):
        raise UsageError(f"a {kind} is no list of images; hand in a column, as frame['path'].")
    given = _as_array(given)
    if isinstance(given, np.ndarray) or is_tensor(given):
        return _of_array(given, values)
    if isinstance(given, str | os.PathLike | Url | ReadImage) or is_picture(given):
        return _of_item(given, 0, values, alone=True)
    if _has_content(given):
        return _of_item(given, 0, values)
    if not hasattr(given, "__iter__"):
        raise UsageError(f"a {kind} is no image. Hand in {KINDS}.")
    return _many(given, values)


def _as_array(given: Any) -> Any:
    """An array of what other libraries keep in theirs (a column, a memory of several sides)."""
    if isinstance(given, np.ndarray | np.generic) or is_tensor(given) or is_picture(given):
        return given
    several = isinstance(given, memoryview) and given.ndim > 1
    return np.asarray(given) if several or hasattr(given, "__array__") else given


def _of_array(array: Any, values: bool) -> Iterator[Named]:
    """The images of an array or tensor: one, a batch, or several names.

    Raises:
        UsageError: its values are no bytes, or it has more sides than a batch has.
    """
    sides = len(array.shape)
    if isinstance(array, np.ndarray) and array.dtype.kind in "OUT":
        if sides > 1:
            raise UsageError(
                f"an array of {sides} sides of names or objects; hand in a flat one: x.ravel()."
            )
        one = sides == 0
        return images_in(array.item(), values=values) if one else _many(array.tolist(), values)
    check_pixels(array)
    if not 0 < sides < 5:
        raise UsageError(f"an array of {sides} sides; an image has 2 or 3, a batch of them 4.")
    return _many(array, values) if sides == 4 else _of_item(array, 0, values)


def _many(given: Iterable[Any], values: bool) -> Iterator[Named]:
    """The images of each item; those without a name are called after their place."""
    place = 0
    for item in map(_as_array, given):
        if isinstance(item, list | tuple | set | Mapping):
            raise UsageError(
                f"item {place} is a {type(item).__name__}, which is no image. Hand in one flat "
                "list of images; of pairs with a label the images alone."
            )
        for named in _of_item(item, place, values):
            yield named
            place += 1


def _of_item(item: Any, place: int, values: bool, *, alone: bool = False) -> Iterator[Named]:
    """The images of one item; why a name stands for none is raised only where it is `alone`."""
    if isinstance(item, str | os.PathLike):
        name = os.fsdecode(item)
        try:
            yield from _of_name(name, values)
        except DataError as error:
            if alone:
                raise
            yield name, ReadImage(name, None, str(error).removeprefix(f"{name}: "))
    elif isinstance(item, ReadImage | Url):
        yield name_of(item), item
    elif _is_encoded(item):
        yield f"image {place}", bytes(item)
    elif _has_content(item):
        name = _file_name(item) or f"image {place}"
        content = _content(item)
        yield name, ReadImage(name, None, content) if isinstance(content, str) else content
    else:
        yield f"image {place}", item


def _of_name(name: str, values: bool) -> Iterator[Named]:
    """The images that a name stands for; Python's warnings are told what is passed over.

    Raises:
        DataError: a folder, pattern or list without images.
    """
    if name in ("", STDIN):
        yield name, ReadImage(name, None, "an empty name" if not name else "no such file")
    elif is_url(name):
        yield name, ReadImage(name, None, URL_IS_A_NAME)
    else:
        passed_over = PassedOver()
        for found in find_images([name], passed_over=passed_over, values=values):
            yield name_of(found), found
        if passed_over:
            warnings.warn(f"{name}: {passed_over}", stacklevel=2)


def _is_encoded(item: Any) -> bool:
    """Whether it is an array of a file's bytes, as torchvision's `read_file` gives."""
    is_array = isinstance(item, np.ndarray) or is_tensor(item)
    return is_array and len(item.shape) == 1 and str(item.dtype).endswith("uint8")


def _has_content(item: Any) -> bool:
    """Whether it is bytes in memory, or an open file of them.

    Raises:
        UsageError: a file that was opened as text.
    """
    if isinstance(item, io.TextIOBase):
        raise UsageError(
            "a file that was opened as text: open an image with open(PATH, 'rb'); of a list of "
            "names hand in the list's path, or [line.strip() for line in file]."
        )
    if isinstance(item, np.ndarray) or is_tensor(item) or is_picture(item):
        return False
    return callable(getattr(item, "read", None)) or _view(item) is not None


def _view(item: Any) -> memoryview | None:
    """The bytes of an object that lays them open; None for any other object."""
    try:
        view = memoryview(item)
    except (TypeError, ValueError, BufferError):
        return None
    return view if view.itemsize == 1 and view.ndim == 1 else None


def _content(item: Any) -> bytes | str:
    """The bytes of memory or an open file; a text says why there are none.

    A file is read from its beginning, and now: whoever handed it in may close it next.
    """
    view = _view(item)
    if view is not None:
        return bytes(view)
    try:
        if item.seekable():
            item.seek(0)
    except (AttributeError, OSError, ValueError):
        pass  # a stream is read from where it is
    try:
        content = item.read()
    except (OSError, ValueError, TypeError) as error:
        return f"cannot be read: {error}"
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    return f"its read() gives {type(content).__name__}, not bytes"


def _file_name(item: Any) -> str | None:
    """The name of an open file, where it has one."""
    name = getattr(item, "name", None)
    return name if isinstance(name, str) and name else None

"""What a user names on the command line → one image after another, in a fixed order.

Files, folders (all images below them, sorted by name), globs, lists (`.txt` files, or on standard
input) and, where they are allowed, URLs. Names are made one by one; only the names of the folder
being read are held at once.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from densepath.errors import DataError, UsageError
from densepath.images.decode import readable_suffixes
from densepath.images.download import Url, is_url
from densepath.images.image_files import PassedOver, UnreadableFolder, images_below
from densepath.images.reading import ReadImage
from densepath.text import read_lines

if TYPE_CHECKING:
    from typing import TypeAlias

    Found: TypeAlias = str | Url | ReadImage

STDIN, LIST = "-", ".txt"
URLS_REFUSED = "URLs are not downloaded here; save the images and name their files"
URLS_ALLOWED_BY = "URLs are not downloaded unless --allow-urls is given"


def find_images(
    arguments: Iterable[str],
    *,
    lines: Iterable[str] = (),
    allow_urls: bool = False,
    refusal: str = URLS_REFUSED,
    passed_over: PassedOver | None = None,
    values: bool = False,
) -> Iterator[Found]:
    """The images that `arguments` name, in order.

    Args:
        arguments: files, folders, globs, lists, URLs, or `-` for the names in `lines`.
        lines: one file, folder, glob or URL a line, as from standard input.
        allow_urls: let `http` and `https` addresses be downloaded.
        refusal: what is said of them otherwise.
        passed_over: is told of the files of folders that are no images.
        values: DICOM files and arrays are images, too: `read_as.py:ReadAs.by_value`.

    Raises:
        UsageError: an argument is a URL, and URLs are not allowed. (In `lines` it becomes an
            image with an error.)
        DataError: a folder or list without images, or a glob that nothing matches.
    """
    given = list(arguments)
    if not allow_urls and any(is_url(argument) for argument in given):
        raise UsageError(f"{next(filter(is_url, given))}: {refusal}.")
    total = PassedOver() if passed_over is None else passed_over
    how = _How(None if allow_urls else refusal, values)
    return _expand_all(given, lines, how, total)


@dataclass(frozen=True)
class _How:
    """How names are looked up.

    Attributes:
        refusal: what is said of addresses; None lets them be downloaded.
        values: as of `find_images`.
    """

    refusal: str | None
    values: bool


def _expand_all(
    given: list[str], lines: Iterable[str], how: _How, total: PassedOver
) -> Iterator[Found]:
    """The images of all arguments."""
    for argument in given:
        if argument != STDIN:
            yield from _expand(argument, how, total)
            continue
        for line in lines:
            if name := line.rstrip("\r\n"):
                yield from _expand(name, how, total)


def _expand(name: str, how: _How, total: PassedOver) -> Iterator[Found]:
    """The images of one argument or line; what is passed over is added to `total`.

    With a refusal an address is an image with that error.
    """
    if is_url(name):
        yield Url(name) if how.refusal is None else ReadImage(name, None, how.refusal)
    elif os.path.isdir(name):  # noqa: PTH112  False, not an error, for a name too long for a file
        nothing = f"{name}: no images in this folder"
        yield from _nonempty(lambda passed: _folder(name, passed, how.values), nothing, total, how)
    elif name.lower().endswith(LIST) and os.path.isfile(name):  # noqa: PTH113
        nothing = f"{name}: names no images"
        yield from _nonempty(lambda passed: _listed(name, how, passed), nothing, total, how)
    elif glob.has_magic(name) and not os.path.lexists(name):
        nothing = f"{name}: nothing matches this pattern"
        yield from _nonempty(lambda passed: _matches(name, passed, how.values), nothing, total, how)
    else:
        yield name


def _listed(name: str, how: _How, passed_over: PassedOver) -> Iterator[Found]:
    """The images that a list names, one a line, its paths starting from its own folder.

    A line's last word may be the number of a class, as in the lists that networks are trained on.
    """
    for line in filter(None, read_lines(Path(name))):
        if is_url(line):
            yield from _expand(line, how, passed_over)
            continue
        path = os.path.join(os.path.dirname(name), line)  # noqa: PTH118, PTH120
        labelled = re.fullmatch(r"(.*\S)\s+\d+", path)
        if labelled and not os.path.lexists(path):
            path = labelled[1]
        if os.path.isdir(path):  # noqa: PTH112
            yield from _folder(path, passed_over, how.values)
        else:
            yield path


def name_of(found: Found) -> str:
    """The path, address or name of an image that was found."""
    if isinstance(found, str):
        return found
    return found.name if isinstance(found, ReadImage) else found.address


def _matches(pattern: str, passed_over: PassedOver, values: bool) -> Iterator[Found]:
    """The files that match, sorted; of matching folders the images below them."""
    for name in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207
        if Path(name).is_dir():
            yield from _folder(name, passed_over, values)
        else:
            yield name


def _folder(folder: str, passed_over: PassedOver, values: bool) -> Iterator[Found]:
    """The images below a folder; a folder that may not be read is one with an error."""
    for found in images_below(folder, passed_over, values=values):
        if isinstance(found, UnreadableFolder):
            yield ReadImage(found.path, None, found.reason)
        else:
            yield found


def _nonempty(
    find: Callable[[PassedOver], Iterator[Found]], message: str, total: PassedOver, how: _How
) -> Iterator[Found]:
    """What `find` finds.

    Raises:
        DataError: nothing is found; the error says what was passed over.
    """
    empty, passed_over = True, PassedOver()
    for item in find(passed_over):
        empty = False
        yield item
    total.update(passed_over)
    if empty:
        said = f"; {passed_over}" if passed_over else ""
        suffixes = " ".join(sorted(readable_suffixes(values=how.values)))
        raise DataError(f"{message}{said}. Images have one of the suffixes {suffixes}.")

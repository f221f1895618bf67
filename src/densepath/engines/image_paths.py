"""What a user names on the command line → one image after another, in a fixed order.

Files, folders (all images below them, sorted by name), globs, lists (`.txt` files, or on standard
input) and, where they are allowed, URLs. Names are made one by one; only the names of the folder
being read are held at once.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from densepath.data.decode import SUFFIXES
from densepath.data.listfile import read_text
from densepath.engines.download import Url, is_url
from densepath.engines.reading import ReadImage
from densepath.errors import DataError, UsageError

if TYPE_CHECKING:
    from typing import TypeAlias

    Found: TypeAlias = str | Url | ReadImage

STDIN, LIST = "-", ".txt"
URLS_REFUSED = "URLs are not downloaded unless --allow-urls is given"


def find_images(
    arguments: Iterable[str], *, lines: Iterable[str] = (), allow_urls: bool = False
) -> Iterator[Found]:
    """The images that `arguments` name, in order.

    Args:
        arguments: files, folders, globs, lists, URLs, or `-` for the names in `lines`.
        lines: one file, folder, glob or URL a line, as from standard input.
        allow_urls: let `http` and `https` addresses be downloaded.

    Raises:
        UsageError: an argument is a URL, and URLs are not allowed. (In `lines` it becomes an
            image with an error.)
        DataError: a folder or list without images, or a glob that nothing matches.
    """
    given = list(arguments)
    if not allow_urls and any(is_url(argument) for argument in given):
        raise UsageError(f"{next(filter(is_url, given))}: {URLS_REFUSED}.")
    return _expand_all(given, lines, allow_urls)


def _expand_all(given: list[str], lines: Iterable[str], allow_urls: bool) -> Iterator[Found]:
    """The images of all arguments."""
    for argument in given:
        if argument != STDIN:
            yield from _expand(argument, allow_urls)
            continue
        for line in lines:
            if name := line.rstrip("\r\n"):
                yield from _expand(name, allow_urls)


def _expand(name: str, allow_urls: bool) -> Iterator[Found]:
    """The images of one argument or line."""
    if is_url(name):
        yield Url(name) if allow_urls else ReadImage(name, None, URLS_REFUSED)
    elif os.path.isdir(name):  # noqa: PTH112  False, not an error, for a name too long for a file
        yield from _nonempty(_images_below(name), f"{name}: no images in this folder")
    elif name.lower().endswith(LIST) and os.path.isfile(name):  # noqa: PTH113
        yield from _nonempty(_listed(name, allow_urls), f"{name}: names no images")
    elif glob.has_magic(name) and not os.path.lexists(name):
        yield from _nonempty(_matches(name), f"{name}: nothing matches this pattern")
    else:
        yield name


def _listed(name: str, allow_urls: bool) -> Iterator[Found]:
    """The images that a list names, one a line, its paths starting from its own folder.

    A line's last word may be the number of a class, as in the lists that networks are trained on.
    """
    for line in filter(str.strip, read_text(Path(name)).splitlines()):
        if is_url(line):
            yield from _expand(line.strip(), allow_urls)
            continue
        path = os.path.join(os.path.dirname(name), line.strip())  # noqa: PTH118, PTH120
        labelled = re.fullmatch(r"(.*\S)\s+\d+", path)
        if labelled and not os.path.lexists(path):
            path = labelled[1]
        if os.path.isdir(path):  # noqa: PTH112
            yield from _images_below(path)
        else:
            yield path


def _matches(pattern: str) -> Iterator[Found]:
    """The files that match, sorted; of matching folders the images below them."""
    for name in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207
        if Path(name).is_dir():
            yield from _images_below(name)
        else:
            yield name


def _images_below(folder: str) -> Iterator[Found]:
    """Files with an image's suffix below `folder`, sorted by name, folder by folder.

    Hidden files and folders are passed over, and links to folders are not followed.
    """
    try:
        with os.scandir(folder) as entries:
            inside = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if not entry.name.startswith(".")
            )
    except OSError as error:
        yield ReadImage(folder, None, error.strerror or str(error))
        return
    for name, is_folder in inside:
        path = os.path.join(folder, name)  # noqa: PTH118
        if is_folder:
            yield from _images_below(path)
        elif os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122
            yield path


def _nonempty(found: Iterator[Found], message: str) -> Iterator[Found]:
    """What is found.

    Raises:
        DataError: nothing is.
    """
    empty = True
    for item in found:
        empty = False
        yield item
    if empty:
        raise DataError(f"{message}. Images have one of the suffixes {' '.join(sorted(SUFFIXES))}")

"""What a folder holds at first sight: its visible folders, images and everything else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from densepath.data.image_files import PassedOver, is_hidden_name, is_image_name
from densepath.errors import DatasetError


@dataclass
class Listing:
    """The entries of one folder.

    Attributes:
        folders: the names of the visible folders, sorted.
        num_images: files that are images by their ending.
        passed_over: the rest.
    """

    folders: list[str] = field(default_factory=list)
    num_images: int = 0
    passed_over: PassedOver = field(default_factory=PassedOver)


def list_folder(folder: Path) -> Listing:
    """What is in a folder; links to folders count as folders.

    Raises:
        DatasetError: it may not be read.
    """
    found = Listing()
    with scan(folder) as entries:
        for entry in entries:
            if is_hidden_entry(entry):
                found.passed_over.hidden[entry.name] += 1
            elif entry.is_dir():
                found.folders.append(entry.name)
            elif is_image_name(entry.name):
                found.num_images += 1
            else:
                found.passed_over.add(entry.name)
    found.folders.sort()
    return found


@contextlib.contextmanager
def scan(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    """What the folder holds.

    Raises:
        DatasetError: it may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}.") from error


def is_hidden_entry(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is none of the user's by its name, or the folder of the version control CVS.

    The latter is known by what lies in it: a class may have that name, too.
    """
    if entry.name == "CVS":
        return os.path.isfile(os.path.join(entry.path, "Entries"))  # noqa: PTH113, PTH118
    return is_hidden_name(entry.name)

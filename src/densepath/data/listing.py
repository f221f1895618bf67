"""What a folder holds at first sight: its visible folders, images and everything else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from densepath.errors import DatasetError
from densepath.images.clutter import is_clutter_entry
from densepath.images.image_files import PassedOver, is_image_name


@dataclass
class Listing:
    """The entries of one folder.

    Attributes:
        folders: the names of the visible folders, sorted.
        num_images: files that are images by their ending.
        ignored: the rest.
    """

    folders: list[str] = field(default_factory=list)
    num_images: int = 0
    ignored: PassedOver = field(default_factory=PassedOver)


def list_folder(folder: Path) -> Listing:
    """What is in a folder; links to folders count as folders.

    Raises:
        DatasetError: it may not be read.
    """
    found = Listing()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_clutter_entry(entry):
                    found.ignored.clutter[entry.name] += 1
                elif entry.is_dir():
                    found.folders.append(entry.name)
                elif is_image_name(entry.name):
                    found.num_images += 1
                else:
                    found.ignored.add(entry.name)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}.") from error
    found.folders.sort()
    return found

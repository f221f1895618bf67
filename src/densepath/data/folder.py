"""A folder with one folder a class; or one with such a folder for each split."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from densepath.data.decode import readable_suffixes
from densepath.data.files_dataset import FilesDataset
from densepath.data.image_files import is_image_name
from densepath.data.options import DataOptions
from densepath.data.parts import WHOLE, Part, Parts
from densepath.errors import DatasetError

SPLIT_FOLDERS: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}


def find_folders(root: Path, channels: int, options: DataOptions) -> Parts:
    """The parts of a folder: its split folders, or the whole of it.

    Raises:
        DatasetError: no class folders, or no images in them.
    """
    found = _split_folders(root)
    if not found:
        whole = partial(read_class_folders, root, channels=channels)
        return Parts({WHOLE: whole}, {WHOLE: f"the class folders of {root}"})
    # The classes are those of the training images, whether or not a folder is missing here.
    class_names = _visible_folders(found["train"]) if "train" in found else None
    return Parts(
        {
            split: partial(read_class_folders, path, channels=channels, class_names=class_names)
            for split, path in found.items()
        },
        {split: f"the folder {path.name}" for split, path in found.items()},
    )


def _split_folders(root: Path) -> dict[Part, Path]:
    """The folders of `root` that are splits, by the name of the split."""
    found: dict[Part, Path] = {}
    for split, names in SPLIT_FOLDERS.items():
        for name in names:
            if (root / name).is_dir():
                found.setdefault(split, root / name)
    # A class that is called "test" among others is no split.
    return found if "train" in found or len(found) == len(_visible_folders(root)) else {}


def read_class_folders(
    root: Path, *, channels: int = 3, class_names: list[str] | None = None
) -> FilesDataset:
    """The images below `root/CLASS/`, at any depth, in sorted order.

    Hidden entries and files without an image's suffix are passed over; the description counts
    the latter. A class folder without images stays a class, so that class numbers never shift.

    Args:
        root: the folder.
        channels: 3 for RGB, 1 for grayscale.
        class_names: the classes where they are known; by default the folders, sorted.

    Raises:
        DatasetError: no class folders, folders of other classes, or no images in them.
    """
    folders = _visible_folders(root)
    if not folders:
        raise DatasetError(
            f"{root} has no class folders. A data set is a folder with one folder a class, or "
            "with `train` and `validation` (or `test`) folders that have one folder a class each."
        )
    class_names = class_names or folders
    _check_known(root, folders, class_names)
    files: list[str] = []
    targets: list[int] = []
    num_others = 0
    for number, name in enumerate(class_names):
        entries = sorted(_files_below(root / name, name)) if name in folders else []
        images = [entry for entry in entries if is_image_name(entry)]
        files += images
        targets += [number] * len(images)
        num_others += len(entries) - len(images)
    if not files:
        raise DatasetError(
            f"{root} has {len(class_names)} class folders and no image in any of them. "
            f"Images end in {', '.join(sorted(readable_suffixes()))}."
        )
    passed_over = f"; {num_others:,} other files passed over" if num_others else ""
    description = f"class folders of {root}{passed_over}"
    return FilesDataset(
        root, files, targets, class_names, description=description, channels=channels
    )


def _check_known(root: Path, folders: list[str], class_names: list[str]) -> None:
    """Returns when every folder is a class."""
    unknown = [name for name in folders if name not in set(class_names)]
    if unknown:
        raise DatasetError(
            f"{root} has folders of classes that the training images do not have: "
            f"{', '.join(unknown[:5])}{' …' if len(unknown) > 5 else ''}. Rename or remove them."
        )


def _visible_folders(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted, without hidden ones."""
    with _entries(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _files_below(
    folder: Path, prefix: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[str]:
    """The visible files below `folder`, as paths that begin with `prefix`.

    Links are followed, but not back to a folder `above`.
    """
    found = folder.stat()
    here = (found.st_dev, found.st_ino)
    if here in above:
        return
    with _entries(folder) as entries:
        for entry in entries:
            name = f"{prefix}/{entry.name}"
            if entry.name.startswith("."):
                continue
            # A folder called x.jpg is taken for a broken image, and named as one.
            if entry.is_dir() and not is_image_name(entry.name):
                yield from _files_below(folder / entry.name, name, above | {here})
            else:
                yield name


@contextlib.contextmanager
def _entries(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    """What the folder holds.

    Raises:
        DatasetError: it may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}.") from error

"""A folder with one folder a class; or one with such a folder for each split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from densepath.data.dataset import Dataset, Split, check_split, hold_out
from densepath.data.decode import SUFFIXES
from densepath.data.files_dataset import FilesDataset
from densepath.errors import DatasetError

SPLIT_FOLDERS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}


def open_folder(
    root: Path, split: Split, *, channels: int, validation_fraction: float, seed: int
) -> Dataset:
    """The split of a folder: its own folder when there is one, else a part held out.

    Without `validation` the test split serves, and the other way round; with neither, a
    fraction of the training images.

    Raises:
        DatasetError: no class folders, or no images in them.
    """
    check_split(split)
    found = _split_folders(root)
    if not found:
        dataset = read_class_folders(root, channels=channels)
        return hold_out(dataset, split, validation_fraction, seed)
    if split in found:
        return read_class_folders(found[split], channels=channels)
    others = [name for name in ("validation", "test") if name in found]
    if split != "train" and others:
        return read_class_folders(found[others[0]], channels=channels)
    if "train" not in found:
        names = ", ".join(sorted(path.name for path in found.values()))
        raise DatasetError(f"{root} has no folder `train` to train on; it has {names}.")
    if split == "test":
        raise DatasetError(
            f"{root} has a folder `train` but neither `test` nor `validation`. To evaluate on "
            f"the training images, name {found['train']}."
        )
    dataset = read_class_folders(found["train"], channels=channels)
    return hold_out(dataset, split, validation_fraction, seed)


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of `root` that are splits, by the name of the split."""
    found: dict[str, Path] = {}
    for split, names in SPLIT_FOLDERS.items():
        for name in names:
            if (root / name).is_dir():
                found.setdefault(split, root / name)
    # A class that is called "test" among others is no split.
    return found if "train" in found or len(found) == len(_visible_folders(root)) else {}


def read_class_folders(root: Path, *, channels: int = 3) -> FilesDataset:
    """The images below `root/CLASS/`, at any depth, in sorted order.

    Hidden entries and files without an image's suffix are passed over. A class folder without
    images stays a class, so that class numbers never shift.

    Raises:
        DatasetError: no class folders, or no images in them.
    """
    class_names = _visible_folders(root)
    if not class_names:
        raise DatasetError(
            f"{root} has no class folders. A data set is a folder with one folder a class, or "
            "with `train` and `validation` (or `test`) folders that have one folder a class each."
        )
    files: list[str] = []
    targets: list[int] = []
    for number, name in enumerate(class_names):
        found = sorted(_image_files(root / name, name))
        files += found
        targets += [number] * len(found)
    if not files:
        raise DatasetError(
            f"{root} has {len(class_names)} class folders and no image in any of them. "
            f"Images end in {', '.join(sorted(SUFFIXES))}."
        )
    return FilesDataset(
        root, files, targets, class_names, description=f"class folders of {root}", channels=channels
    )


def _visible_folders(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted, without hidden ones."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _image_files(folder: Path, prefix: str) -> Iterator[str]:
    """The image files below `folder`, as paths that begin with `prefix`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}/{entry.name}"
            if entry.name.startswith("."):
                continue
            if Path(entry.name).suffix.lower() in SUFFIXES:
                yield name
            elif entry.is_dir():
                yield from _image_files(folder / entry.name, name)

"""A folder with one folder a class; or one with such a folder for each split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from densepath.data.dataset import Split
from densepath.data.files_dataset import FilesDataset
from densepath.data.listing import list_folder
from densepath.data.parts import WHOLE, Part, Parts
from densepath.data.split_folders import find_split_folders
from densepath.errors import DatasetError
from densepath.images.decode import readable_suffixes
from densepath.images.image_files import PassedOver, UnreadableFolder, images_below
from densepath.images.read_as import AS_PHOTOS, ReadAs
from densepath.text import normal_form
from densepath.wording import counted, first_of

NAMED = 5


def find_folders(root: Path, read_as: ReadAs, named: Mapping[Split, str]) -> Parts:
    """The parts of a folder: its split folders, or the whole of it.

    Args:
        root: the folder.
        read_as: how files are read.
        named: split → the folder in `root` that the user says it is.

    Raises:
        DatasetError: no class folders, no images in them, or names that leave a doubt.
    """
    divided = find_split_folders(root, named)
    parts = Parts({}, {}, divided.notes)
    if divided.classes is None:
        parts.notes += list_folder(divided.root).ignored.sentences(divided.root)
    read = partial(read_class_folders, read_as=read_as, notes=parts.notes)
    # The classes are those of the training images, whether or not a folder is missing here.
    known = None
    if divided.classes is not None:
        part: Part = "train" if divided.folders else WHOLE
        parts.openers[part] = partial(read, divided.root, folders=divided.classes)
        parts.rules[part] = "its class folders"
        known = class_folders(divided.root, divided.classes) if divided.folders else None
    elif (trained := divided.folders.get("train")) is not None:
        known = class_folders(trained)
    for split, folder in divided.folders.items():
        parts.openers[split] = partial(read, folder, class_names=known and list(known))
        parts.rules[split] = f"the folder {folder.relative_to(divided.root)}"
    return parts


def read_class_folders(
    root: Path,
    *,
    read_as: ReadAs = AS_PHOTOS,
    folders: Sequence[str] | None = None,
    class_names: list[str] | None = None,
    notes: list[str] | None = None,
) -> FilesDataset:
    """The images below `root/CLASS/`, at any depth, in sorted order.

    Clutter and files without an image's ending are passed over; the description counts the
    latter. A class folder without images stays a class, so that class numbers never shift.

    Args:
        root: the folder.
        read_as: how files are read.
        folders: the folders in it that are classes; by default all.
        class_names: the classes where they are known; by default the folders, sorted.
        notes: takes in sentences on what was passed over.

    Raises:
        DatasetError: no class folders, folders of other classes, or no images in them.
    """
    found = class_folders(root, folders)
    class_names = class_names or list(found)
    _check_known(root, list(found), class_names)
    ignored = PassedOver()
    files: list[str] = []
    targets: list[int] = []
    for number, name in enumerate(class_names):
        folder = found.get(name)
        images = (
            [] if folder is None else _images_below(root, folder, ignored, values=read_as.by_value)
        )
        files += images
        targets += [number] * len(images)
    if not files:
        raise DatasetError(
            f"{root} has {counted(len(class_names), 'class folder')} and no image in any of them"
            f"{f'; {ignored}' if ignored else ''}. "
            f"Images end in {', '.join(sorted(readable_suffixes(values=read_as.by_value)))}."
        )
    others = ignored.suffixes.total()
    passed_over = f"; {counted(others, 'other file')} passed over" if others else ""
    if notes is not None:
        notes += _remarks(root, found, ignored)
    return FilesDataset(
        root,
        files,
        targets,
        class_names,
        description=f"class folders of {root}{passed_over}",
        read_as=read_as,
    )


def class_folders(root: Path, folders: Sequence[str] | None = None) -> dict[str, str]:
    """Class name → folder in `root`, sorted by name; by default of all visible folders.

    Raises:
        DatasetError: there are none, or two have the same name but for its Unicode form.
    """
    folders = list_folder(root).folders if folders is None else folders
    if not folders:
        raise DatasetError(
            f"{root} has no class folders. A data set is a folder with one folder a class, or "
            "with `train` and `validation` (or `test`) folders that have one folder a class each."
        )
    found: dict[str, str] = {}
    for folder in folders:
        other = found.setdefault(normal_form(folder), folder)
        if other != folder:
            raise DatasetError(
                f"{root} has two folders that both read {folder}: one in the Unicode form NFC, one "
                f"in NFD ({other!a} and {folder!a}). Move the images into one of them."
            )
    return dict(sorted(found.items()))


def _check_known(root: Path, found: list[str], class_names: list[str]) -> None:
    """Raise unless every folder is a class."""
    known = set(class_names)
    unknown = [name for name in found if name not in known]
    if unknown:
        raise DatasetError(
            f"{root} has folders of classes that the training images do not have: "
            f"{first_of(unknown, NAMED)}. Rename or remove them."
        )


def _images_below(root: Path, folder: str, ignored: PassedOver, *, values: bool) -> list[str]:
    """The images below `root/folder`, as paths from `root` on, sorted; links are followed.

    Raises:
        DatasetError: a folder may not be read.
    """
    found = []
    start = os.path.join(root, "")  # noqa: PTH118
    for path in images_below(start + folder, ignored, follow_links=True, values=values):
        if isinstance(path, UnreadableFolder):
            raise DatasetError(f"{path.path} cannot be read: {path.reason}.")
        found.append(path.removeprefix(start))
    return sorted(found)


def _remarks(root: Path, found: Mapping[str, str], ignored: PassedOver) -> Iterator[str]:
    """What a person should know of a folder, a sentence each."""
    listing = list_folder(root)
    if listing.num_images:
        images = counted(listing.num_images, "image")
        yield f"not used: {images} directly in {root}, in no class folder."
    if len(found) == 1:
        (folder,) = found.values()
        inside = list_folder(root / folder).folders
        if len(inside) > 1:
            yield (
                f"{root} has one class folder, {folder}, with {len(inside):,} folders in it. If "
                f"those are the classes, name {root / folder}."
            )
    ignored.update(listing.ignored)
    yield from ignored.sentences(root)

"""Which folders of a data set are its splits, and which are classes: one rule that can be stated.

A folder is a split when its name says so (`split_names.py`) and class folders lie in it. Where
there is no such folder, every folder is a class. Where there are, the data set has splits, as long
as each is there once, and no other folder leaves a doubt. A doubt is refused, with the options
that decide it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from densepath.data.dataset import Split
from densepath.data.listing import Listing, list_folder
from densepath.data.split_names import Reading, is_plain, read_split_name
from densepath.errors import DatasetError
from densepath.wording import first_of

CLASSES_HERE = "."  # as data.train: the folders here are classes, whatever they are called
NAMED = 5
MOST_WRAPPERS = 3


@dataclass
class SplitFolders:
    """How a data set's folder is divided.

    Attributes:
        root: the folder that is divided; it may be the only folder in the one that was named.
        folders: split → the folder that its class folders lie in.
        classes: the folders of `root` that are classes; None where they are splits.
        notes: what else lies there, one sentence each.
    """

    root: Path
    folders: dict[Split, Path] = field(default_factory=dict)
    classes: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def find_split_folders(root: Path, named: Mapping[Split, str]) -> SplitFolders:
    """How the folder `root` is divided.

    Args:
        root: the data set.
        named: split → the folder in `root` that the user says it is.

    Raises:
        DatasetError: the names can be understood in two ways, or a folder cannot be read.
    """
    listing = list_folder(root)
    if not named and _is_wrapper(root, listing):
        inner = root / listing.folders[0]
        found = find_split_folders(inner, {})
        found.notes.insert(0, f"read from {inner}, the only folder in {root}.")
        return found
    given = {s: descend(root / name) for s, name in named.items() if name != CLASSES_HERE}
    taken = {Path(name).parts[0] for name in named.values() if name != CLASSES_HERE}
    rest = [name for name in listing.folders if name not in taken]
    if named.get("train") == CLASSES_HERE:
        return SplitFolders(root, given, rest)
    found = _divide(root, rest, named)
    found.folders |= given
    return found


def descend(folder: Path) -> Path:
    """The folder, or the only one in it that repeats its name or says nothing.

    `seg_train/seg_train/forest`, `train/images/cat`.
    """
    listing = list_folder(folder)
    if listing.num_images or len(listing.folders) != 1:
        return folder
    (inner,) = listing.folders
    repeats = inner.lower() == folder.name.lower() or is_plain(inner)
    if not repeats or not list_folder(folder / inner).folders:
        return folder
    return descend(folder / inner)


def _classes_in(folder: Path) -> list[str]:
    """The class folders of a split; none where images without labels lie in the only one.

    `asl_alphabet_test/asl_alphabet_test/A.jpg`, `test/images/1.jpg`.
    """
    folders = list_folder(folder).folders
    if len(folders) == 1 and (folders[0].lower() == folder.name.lower() or is_plain(folders[0])):
        return []
    return folders


def _is_wrapper(root: Path, listing: Listing) -> bool:
    """Whether the data set lies in the only folder of `root`, as archives are often packed."""
    if len(listing.folders) != 1 or listing.num_images:
        return False
    (name,) = listing.folders
    if read_split_name(name) is not None:
        return False
    inner = list_folder(root / name)
    if not inner.folders or inner.num_images:
        return False
    return name.lower() == root.name.lower() or is_plain(name) or _holds_splits(root / name)


def _holds_splits(folder: Path, depth: int = MOST_WRAPPERS) -> bool:
    """Whether a training folder lies in the folder, or in the only folder in it."""
    listing = list_folder(folder)
    if "train" in _read_names(listing.folders).values():
        return True
    wraps = len(listing.folders) == 1 and not listing.num_images and depth > 1
    return wraps and _holds_splits(folder / listing.folders[0], depth - 1)


def _divide(root: Path, names: list[str], named: Mapping[Split, str]) -> SplitFolders:
    """The splits among the folders `names`, by what they are called and hold.

    Raises:
        DatasetError: they can be understood in two ways.
    """
    readings = _read_names(names)
    homes = {name: descend(root / name) for name in readings}
    classes = {name: _classes_in(home) for name, home in homes.items()}
    found: dict[Split, list[str]] = {}
    for name, split in readings.items():
        if classes[name] and split not in named:
            found.setdefault(split, []).append(name)
    if "train" in named:
        _check_once(root, found)
    elif not found:
        _check_are_classes(root, readings, names)
        return SplitFolders(root, classes=names)
    else:
        _check_once(root, found)
        _check_beside(root, readings, names, {n: classes[n] for (n,) in found.values()}, named)
    used = {split: homes[name] for split, (name,) in found.items()}
    left = [name for name in names if [name] not in found.values()]
    said = f"not used: {_listed(left)} in {root}, beside the folders that are splits."
    return SplitFolders(root, used, notes=[said] if left else [])


def _read_names(names: Collection[str]) -> dict[str, Split]:
    """The names that speak of a split.

    Words of its own (`seg` of `seg_train`) may stand beside it when another split has the same
    (`seg_test`), or when there is no other folder.
    """
    readings = {name: reading for name in names if (reading := read_split_name(name))}
    splits_of: dict[tuple[str, ...], set[Split]] = {}
    for reading in readings.values():
        splits_of.setdefault(reading.affix, set()).add(reading.split)

    def counts(reading: Reading) -> bool:
        """Whether a name that reads so speaks of a split."""
        return not reading.affix or len(splits_of[reading.affix]) > 1 or len(names) == 1

    return {name: reading.split for name, reading in readings.items() if counts(reading)}


def _check_once(root: Path, found: Mapping[Split, list[str]]) -> None:
    """Raise if two folders are the same split."""
    for split, several in found.items():
        if len(several) > 1:
            raise _doubtful(root, f"{_listed(several)} are each called like {split} images")


def _check_are_classes(root: Path, readings: Mapping[str, Split], names: list[str]) -> None:
    """Raise if folders of images are called like splits and are hardly classes.

    Raises:
        DatasetError: they are two splits or more, or there is nothing else.
    """
    flat = list(readings)
    if len({*readings.values()}) > 1 or (flat and len(flat) == len(names)):
        raise DatasetError(
            f"{root} has folders that are called like splits ({_listed(flat)}), but no class "
            f"folders in them. A split has one folder a class: {flat[0]}/cat/1.jpg. Where labels "
            "stand in a table or a list, name that file; where these folders are the classes, "
            "say so: --set data.train=."
        )


def _check_beside(
    root: Path,
    readings: Mapping[str, Split],
    names: list[str],
    found: Mapping[str, list[str]],
    named: Mapping[Split, str],
) -> None:
    """Raise if folders beside those that are splits (`found`, with their classes) leave a doubt.

    There is none when training images and those of another split are spoken of, and no other
    folder has the name of a class.

    Raises:
        DatasetError: there is one.
    """
    others = [name for name in names if name not in found]
    spoken_of = {*readings.values(), *named}
    classes = {name.lower() for inside in found.values() for name in inside}
    trained_on = "train" in {readings[name] for name in found}
    sure = trained_on and len(spoken_of) > 1
    if others and not (sure and classes.isdisjoint(name.lower() for name in others)):
        raise _doubtful(
            root,
            f"{_listed(found)} could be splits, by their names and the class folders in them, "
            f"or classes, like {_listed(others)}",
        )


def _doubtful(root: Path, what: str) -> DatasetError:
    """The error of names that can be understood in two ways."""
    return DatasetError(
        f"{root} can be understood in two ways: {what}. Say which folder is which: "
        "--set data.train=FOLDER (likewise data.validation and data.test); or, where all folders "
        "are classes: --set data.train=."
    )


def _listed(names: Iterable[str]) -> str:
    """`a`, `b` and 3 more."""
    return first_of([f"`{name}`" for name in names], NAMED)

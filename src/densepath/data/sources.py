"""The one way in: a source's name or path → the parts that it has."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from densepath.data.cifar10_files import is_batches_folder
from densepath.data.dataset import SPLITS, Dataset, Split
from densepath.data.listing import list_folder
from densepath.data.options import FILE_OPTIONS, TABLE_OPTIONS, DataOptions
from densepath.data.parts import WHOLE, Part, Parts
from densepath.data.split_folders import CLASSES_HERE
from densepath.errors import DatasetError, UnknownNameError, UsageError
from densepath.files import expand_user, nearest_paths
from densepath.images.read_as import PHOTO_CHANNELS, ReadAs

SOURCES = (
    "`digits`, `cifar10`, a folder with one folder a class, a list file (.txt), "
    "a table (.csv or .tsv), or CIFAR-10 as a .tar.gz, a .zip of JPEGs or the unpacked folder"
)
BUILT_IN_NAMES = ("digits", "cifar10")
BUILT_IN = "builtin:"  # before `digits` or `cifar10`: never a folder of that name
TABLES = (".csv", ".tsv")
LISTS = (".txt",)
ARCHIVES = (".zip", ".tar.gz", ".tgz")


def find_parts(source: str | Path, read_as: ReadAs, options: DataOptions) -> Parts:
    """The parts of a source, some of them sources of their own where the options say so.

    Raises:
        DatasetError: no such source, or one that cannot be read.
        UsageError: options that have no meaning for this source.
    """
    named = {split: name for split in SPLITS if (name := getattr(options, split)) is not None}
    for split, name in named.items():
        if not name or (name == CLASSES_HERE and split != "train"):
            raise UsageError(f"data.{split} is {name!r}; it is a folder in {source} or a data set.")
    inside = {split: name for split, name in named.items() if _is_inside(source, name)}
    if named.get("train") == CLASSES_HERE and "train" not in inside:
        raise UsageError(f"data.train=. says that the folders are classes; {source} has none.")
    parts = _open_source(source, read_as, options, inside, strict=not named)
    for split in (split for split in SPLITS if split in named and split not in inside):
        _put(parts, source, split, read_as, options)
    return parts


def built_in(source: str | Path) -> str | None:
    """The name of the set that comes with the package, or that it downloads; None of others.

    Raises:
        DatasetError: a folder of that name is here too.
        UnknownNameError: `builtin:` and no such name.
    """
    name = str(source)
    if name.startswith(BUILT_IN):
        name = name.removeprefix(BUILT_IN)
        if name not in BUILT_IN_NAMES:
            raise UnknownNameError("data set", source, (f"{BUILT_IN}{n}" for n in BUILT_IN_NAMES))
        return name
    if name not in BUILT_IN_NAMES:
        return None
    if not Path(name).is_dir():
        return name
    if isinstance(source, Path):
        return None
    whose = "scikit-learn's digits" if name == "digits" else "the CIFAR-10 that is downloaded"
    raise DatasetError(
        f"`{name}` is a folder here, and also the name of {whose}. Name the folder as ./{name}, "
        f"or the other as {BUILT_IN}{name}."
    )


def _open_source(
    source: str | Path,
    read_as: ReadAs,
    options: DataOptions,
    inside: Mapping[Split, str],
    *,
    strict: bool,
) -> Parts:
    """The parts of one source, by its kind.

    Args:
        source: its name.
        read_as: how files are read.
        options: how it is to be read.
        inside: split → the folder in it that the user says it is.
        strict: refuse options that belong to another kind; else they may be meant for another
            source.

    Raises:
        DatasetError: no such source, or one that cannot be read.
        UsageError: options that have no meaning for this kind.
    """
    name, known = str(source), built_in(source)
    path = expand_user(source)
    if known is None and not path.exists():
        near = [*nearest_paths(path), *difflib.get_close_matches(name, BUILT_IN_NAMES)]
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise DatasetError(f"there is no data set {name!r}{hint} A data set is {SOURCES}.")
    if known is None and path.suffix.lower() in TABLES:
        from densepath.data.table import find_rows

        return find_rows(path, read_as, options)
    if strict:
        _refuse(source, options, TABLE_OPTIONS, "a table")
    if known is None and path.suffix.lower() in LISTS:
        from densepath.data.listfile import find_lists

        return find_lists(path, read_as, options)
    if strict:
        _refuse(source, options, FILE_OPTIONS, "a list or a table")
    if known == "digits":
        from densepath.data.digits import find_digits

        return find_digits(read_as.channels)
    packed = path.is_file() and name.lower().endswith(ARCHIVES)
    if known == "cifar10" or packed or (path.is_dir() and is_batches_folder(path)):
        from densepath.data.cifar10 import find_cifar10

        if read_as.channels not in PHOTO_CHANNELS:
            raise UsageError(f"data.channels is {read_as.channels}; CIFAR-10's images have 1 or 3.")
        return find_cifar10(None if known else path, read_as.channels)
    if path.is_dir():
        from densepath.data.folder import find_folders

        return find_folders(path, read_as, inside)
    raise DatasetError(f"{name} is no kind of data set that is known. A data set is {SOURCES}.")


def _refuse(
    source: str | Path, options: DataOptions, names: tuple[str, ...], belongs_to: str
) -> None:
    """Raise if an option is given that this source cannot have."""
    given = [name for name in names if getattr(options, name) is not None]
    if given:
        raise UsageError(f"data.{given[0]} belongs to {belongs_to}; {source} is none.")


def _is_inside(source: str | Path, name: str) -> bool:
    """Whether a split's name is a folder in the source: `.` is the source itself."""
    folder = expand_user(source)
    return not Path(name).is_absolute() and folder.is_dir() and (folder / name).is_dir()


def _put(
    parts: Parts, source: str | Path, split: Split, read_as: ReadAs, options: DataOptions
) -> None:
    """Make the part `split` of a source another source.

    Raises:
        DatasetError: there is no such source, or the parts do not fit together.
    """
    name = str(getattr(options, split))
    if built_in(name) is None and not expand_user(name).exists():
        folder = expand_user(source)
        has = ", ".join(list_folder(folder).folders) if folder.is_dir() else ""
        inside = f"a folder in {source} (it has {has}) or " if has else ""
        raise DatasetError(f"data.{split} is {name!r}, which is not {inside}{SOURCES}.")
    found = _open_source(name, read_as, options, {}, strict=False)
    if split == "train" and (WHOLE in parts.openers or "train" in parts.openers):
        raise DatasetError(
            f"{source} and data.train ({name}) are both training images. Name one of them; for "
            "images of another split use data.validation or data.test."
        )
    part = _pick(found, name, split)
    if WHOLE in parts.openers:
        parts.openers["train"] = parts.openers.pop(WHOLE)
        parts.rules["train"] = parts.rules.pop(WHOLE)

    def read() -> Dataset:
        """The images of the other source, whose notes are then known."""
        dataset = found.openers[part]()
        parts.notes += found.notes
        return dataset

    parts.mixed = True
    parts.openers[split] = read
    parts.rules[split] = f"{name}: {found.rules[part]}"


def _pick(found: Parts, name: str, split: Split) -> Part:
    """Which part of a source stands for `split`: its own, the whole, or the only one.

    Raises:
        DatasetError: it has several others.
    """
    if split in found.openers:
        return split
    if WHOLE in found.openers:
        return WHOLE
    if len(found.openers) == 1:
        return next(iter(found.openers))
    raise DatasetError(
        f"{name} has no {split} images, only {', '.join(found.openers)}; name one of its parts."
    )

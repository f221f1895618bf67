"""A list file: one `path label` a line, PaddleClas's `train_list.txt`.

Labels are numbers from 0. Class names come from `label_list.txt` beside the list (`number name`
a line) and are otherwise the numbers. Beside `train_list.txt`, the files `val_list.txt` and
`test_list.txt` are its other splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from densepath.data.files_dataset import FilesDataset
from densepath.data.options import DataOptions
from densepath.data.parts import WHOLE, Part, Parts
from densepath.errors import DatasetError

LABELS_FILE = "label_list.txt"
SPLIT_FILES: dict[Part, str] = {
    "train": "train_list.txt",
    "validation": "val_list.txt",
    "test": "test_list.txt",
}


def find_lists(path: Path, channels: int, options: DataOptions) -> Parts:
    """The parts of a list file: the lists beside it, or the whole of it.

    Raises:
        DatasetError: a line that is not `path label`, or no lines at all.
    """
    root = Path(options.root).expanduser() if options.root is not None else None
    siblings = _siblings(path)
    if not siblings:
        whole = partial(read_list, path, root=root, channels=channels)
        return Parts({WHOLE: whole}, {WHOLE: f"the list {path.name}"})
    of = list(siblings.values())
    return Parts(
        {
            split: partial(read_list, one, root=root, channels=channels, of=of)
            for split, one in siblings.items()
        },
        {split: f"the list {one.name}" for split, one in siblings.items()},
    )


def _siblings(path: Path) -> dict[Part, Path]:
    """The lists of all splits, when `path` is a `train_list.txt` that has others beside it."""
    if path.name != SPLIT_FILES["train"]:
        return {}
    found = {s: path.with_name(n) for s, n in SPLIT_FILES.items() if path.with_name(n).exists()}
    return found if len(found) > 1 else {}


def read_list(
    path: Path, *, root: Path | None = None, channels: int = 3, of: list[Path] | None = None
) -> FilesDataset:
    """The images of one list file; `of` are all lists that share its classes.

    Raises:
        DatasetError: a line that is not `path label`, or no lines at all.
    """
    rows = list(_rows(path))
    if not rows:
        raise DatasetError(f"{path} has no lines. A list file has one `path label` a line.")
    largest = max(label for one in of or [path] for _, label in _rows(one))
    return FilesDataset(
        root or path.parent,
        [file for file, _ in rows],
        [label for _, label in rows],
        _class_names(path.with_name(LABELS_FILE), largest + 1),
        description=f"list file {path}",
        channels=channels,
        named=path.with_name(LABELS_FILE).exists(),
    )


def _rows(path: Path) -> Iterator[tuple[str, int]]:
    """(file, label) of each line; the label is what stands behind the last blank or tab."""
    for number, line in enumerate(_lines(path), start=1):
        if not line:
            continue
        *file, label = line.rsplit(maxsplit=1)
        if not file or not (label.isascii() and label.isdecimal()):
            raise DatasetError(
                f"{path}, line {number}: {line!r} is not `path label` with a label from 0."
            )
        yield file[0], int(label)


def _lines(path: Path) -> list[str]:
    """The lines without blanks at their ends."""
    return [line.strip() for line in read_text(path).split("\n")]


def read_text(path: Path) -> str:
    """A text file in UTF-8, without a byte-order mark.

    Raises:
        DatasetError: it is not text in UTF-8, or cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 text: {error}.") from error


def _class_names(path: Path, count: int) -> list[str]:
    """The names of classes 0 … count − 1; the numbers where there is no file of names.

    Raises:
        DatasetError: a line that is not `number name`, or a class without a name.
    """
    if not path.exists():
        return [str(i) for i in range(count)]
    names: dict[int, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        label, _, name = line.partition(" ")
        if line and (not label.isdecimal() or not name.strip()):
            raise DatasetError(f"{path}, line {number}: {line!r} is not `number name`.")
        if line:
            names[int(label)] = name.strip()
    total = max(count, max(names, default=-1) + 1)
    missing = [i for i in range(total) if i not in names]
    if missing:
        raise DatasetError(f"{path} has no name for class {missing[0]}; the list has {count}.")
    return [names[i] for i in range(total)]

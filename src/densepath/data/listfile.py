"""A list file: one `path label` a line, PaddleClas's `train_list.txt`.

Labels are numbers from 0; or, of images that can have several classes, `path 1,0,1`: a 0 or 1 for
each class, as PaddleClas's `MultiLabelDataset` has them. Class names come from `label_list.txt`
beside the list (`number name` a line) and are otherwise the numbers. Lists beside it that are
called alike but for the split (`val_list.txt`, `test_list.txt`) are the other splits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from densepath.choices import Uncertain
from densepath.data.files_dataset import FilesDataset
from densepath.data.label_cells import CellReader, Labels, is_cell
from densepath.data.label_names import read_label_names
from densepath.data.options import DataOptions
from densepath.data.parts import WHOLE, Part, Parts
from densepath.data.repeats import merge_repeats, to_targets
from densepath.data.split_names import read_split_name
from densepath.errors import DatasetError
from densepath.files import expand_user
from densepath.text import read_lines

LABELS_FILE = "label_list.txt"
# Without names, more classes than this of which not half have an image are database ids.
MOST_CLASSES = 50_000


# Where a line stands, its file, its label: a number, or a text of cells with commas between. Plain
# tuples cost garbage collection nothing.
Line: TypeAlias = tuple[int, str, int | str]


def find_lists(path: Path, channels: int, options: DataOptions) -> Parts:
    """The parts of a list file: the lists beside it, or the whole of it.

    Raises:
        DatasetError: a line that is not `path label`, or no lines at all.
    """
    root = expand_user(options.root) if options.root is not None else None
    lists = _siblings(path, options)
    unlike = [part for part, one in lists.items() if one != path and not _is_list(one)]
    notes = [f"not used: {lists.pop(part)}, whose lines are not `path label`." for part in unlike]
    if len(lists) < 2:
        lists = {WHOLE: path}
    read = partial(
        read_list,
        root=root,
        channels=channels,
        of=list(lists.values()),
        multi_label=options.multi_label,
        uncertain=options.uncertain,
        notes=notes,
    )
    return Parts(
        {part: partial(read, one) for part, one in lists.items()},
        {part: f"the list {one.name}" for part, one in lists.items()},
        notes,
    )


def _siblings(path: Path, options: DataOptions) -> dict[Part, Path]:
    """The lists of all splits, when `path` is one to train on that has others beside it.

    Raises:
        DatasetError: two files are called like the same split.
    """
    own = read_split_name(path.stem)
    if own is None or own.split != "train":
        return {}
    found: dict[Part, Path] = {"train": path}
    for other in sorted(path.parent.glob(f"*{path.suffix}")):
        reading = read_split_name(other.stem)
        if reading is None or reading.affix != own.affix or reading.split == "train":
            continue
        if getattr(options, reading.split) is not None:
            continue
        if reading.split in found:
            raise DatasetError(
                f"{found[reading.split]} and {other} are both called like {reading.split} images. "
                f"Say which is: --set data.{reading.split}={other}"
            )
        found[reading.split] = other
    return found


def _is_list(path: Path) -> bool:
    """Whether the first line is `path label`: images to be answered are often listed without."""
    try:
        next(_rows(path), None)
    except DatasetError:
        return False
    return True


def read_list(
    path: Path,
    *,
    root: Path | None = None,
    channels: int = 3,
    of: Sequence[Path] = (),
    multi_label: bool | None = False,
    uncertain: Uncertain = "mask",
    notes: list[str] | None = None,
) -> FilesDataset:
    """The images of one list file.

    Args:
        path: the list.
        root: the folder that its paths start from; its own by default.
        channels: 3 for RGB, 1 for grayscale.
        of: all lists that share its classes.
        multi_label: lines that name a file again add a class; None: where lines are of cells.
        uncertain: what a cell of −1 is.
        notes: takes in sentences on what is doubtful.

    Raises:
        DatasetError: a line that is not `path label`, or no lines at all.
    """
    rows = list(_rows(path))
    if not rows:
        raise DatasetError(f"{path} has no lines. A list file has one `path label` a line.")
    others = (one for one in of if one != path)
    found = {label for _, _, label in rows}.union(
        label for one in others for _, _, label in _rows(one)
    )
    reader = CellReader(uncertain)
    labels, own = _read_labels(path, rows, found, reader)
    multi_label = bool(multi_label) or isinstance(rows[0][2], str)
    class_names = _class_names(path.with_name(LABELS_FILE), labels, path)
    named = path.with_name(LABELS_FILE).exists()
    kept, merged, said = merge_repeats(
        path,
        [file for _, file, _ in rows],
        own,
        [number for number, _, _ in rows],
        [""] * len(rows),
        multi_label=multi_label,
    )
    if notes is not None:
        notes += reader.notes(path) + said + ([] if named else _unused(path, labels))
    return FilesDataset(
        root or path.parent,
        [rows[i][1] for i in kept],
        to_targets([merged[i] for i in kept], len(class_names), multi_label=multi_label),
        class_names,
        description=f"list file {path}",
        channels=channels,
        multi_label=multi_label,
        named=named,
    )


def _rows(path: Path) -> Iterator[Line]:
    """The lines; the label is what stands behind the last blank or tab."""
    for number, line in enumerate(read_lines(path), start=1):
        if not line:
            continue
        *file, label = line.rsplit(maxsplit=1)
        cells = label.split(",") if "," in label else []
        if file and cells and all(map(is_cell, cells)):
            yield number, file[0], label
            continue
        if not file or not (label.isascii() and label.isdecimal()):
            raise DatasetError(
                f"{path}, line {number}: {line!r} is not `path label` with a label from 0, or "
                "`path 1,0,1` with a 0 or 1 for each class. (For "
                "labels that are names, use a table: a CSV with the columns path and label.)"
            )
        yield number, file[0], int(label)


def _read_labels(
    path: Path, rows: Sequence[Line], found: set[int | str], reader: CellReader
) -> tuple[set[int], list[Labels]]:
    """The numbers of the classes that there are, and the labels of each line.

    Raises:
        DatasetError: lines of both kinds, or of another number of classes.
    """
    numbers = {label for label in found if isinstance(label, int)}
    widths = {label.count(",") + 1 for label in found if isinstance(label, str)}
    if len(widths) + bool(numbers) > 1:
        first = rows[0][2]
        other = next(
            (line for line in rows if _width(line[2]) != _width(first)), (0, "in a list beside", "")
        )
        raise DatasetError(
            f"{path}, line {other[0]}: {other[1]} {other[2]}: the first line has "
            f"{_width(first) or 'one number'}{' cells' if _width(first) else ''}; all lines have a "
            "number, or a 0 or 1 for each of the same classes."
        )
    if numbers:
        alone = {label: frozenset((label,)) for label in numbers}  # an object a class, not a line
        return numbers, [alone[label] for _, _, label in rows if isinstance(label, int)]
    cells = (label.split(",") for _, _, label in rows if isinstance(label, str))
    return set(range(widths.pop())), [reader.read(one) for one in cells]


def _width(label: int | str) -> int:
    """The cells of a label; 0 of a number."""
    return label.count(",") + 1 if isinstance(label, str) else 0


def _class_names(path: Path, labels: set[int], of: Path) -> list[str]:
    """The names of the classes; the numbers where there is no file of names.

    Raises:
        DatasetError: a file of names that cannot be read, a class without a name, or numbers
            that do not count classes.
    """
    count = max(labels) + 1
    if path.exists():
        names = read_label_names(path)
        if len(names) < count:
            raise DatasetError(f"{path} has no name for class {len(names)}; the list has {count}.")
        return names
    if count > MOST_CLASSES and 2 * len(labels) < count:
        raise DatasetError(
            f"{of}: its {len(labels):,} different labels go up to {count - 1:,}. Labels count the "
            f"classes from 0; these look like ids of a database. Number the classes from 0 to "
            f"{len(labels) - 1:,}, or use a CSV with the columns path and label, whose labels are "
            "names."
        )
    return [str(number) for number in range(count)]


def _unused(path: Path, labels: set[int]) -> list[str]:
    """The sentence on numbers that are left out, as in lists that count from 1 or give ids."""
    count = max(labels) + 1
    if len(labels) == count:
        return []
    missing = next(number for number in range(count) if number not in labels)
    return [
        f"{path}: the labels are {len(labels):,} numbers up to {count - 1:,}, so that there are "
        f"{count:,} classes, {count - len(labels):,} of them without images (such as {missing})."
    ]

"""What each column of a table is: the file, the labels, the split, the group, or nothing to us."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from densepath.data.label_cells import BINARY, is_cell
from densepath.data.options import DataOptions
from densepath.data.split_names import read_split_name
from densepath.data.table_file import ImageTable
from densepath.errors import DatasetError, UnknownNameError, UsageError
from densepath.wording import first_of

# In any case and with blanks, dashes or underscores.
PATH_COLUMNS = (
    "path",
    "file",
    "filename",
    "image",
    "file name",
    "file path",
    "filepath",
    "image path",
    "img path",
    "image file",
    "image name",
    "img",
)
LABEL_COLUMNS = (
    "label",
    "labels",
    "class",
    "classes",
    "class name",
    "label name",
    "category",
    "class id",
    "classid",
)
SPLIT_COLUMNS = ("split",)
# Columns that often name what must not be divided between training and validation.
GROUP_WORDS = ("patient", "subject", "person", "group", "scene", "study", "case")
NAMED = 8
MOST_CELLS = 10


@dataclass(frozen=True)
class Columns:
    """The columns that are used.

    Attributes:
        path: the files.
        label: the class names; None where `classes` are there instead.
        split: the splits, if any.
        group: the groups, if any.
        classes: columns of 0 and 1, one a class.
        notes: what was ignored or guessed, one sentence each.
    """

    path: str
    label: str | None
    split: str | None
    group: str | None
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def find_columns(table: ImageTable, options: DataOptions) -> Columns:
    """The columns, as the options name them or as they are called.

    Raises:
        DatasetError: none is the file, or none the classes.
        UsageError: an option names a column that is not there, or two that exclude each other.
    """
    for option in ("path_column", "label_column", "split_column", "group_column"):
        _check_column(table, option, getattr(options, option))
    for name in options.class_columns or ():
        _check_column(table, "class_columns", name)
    if options.label_column is not None and options.class_columns is not None:
        raise UsageError("data.label_column and data.class_columns exclude each other; give one.")
    path = options.path_column or _called(table, PATH_COLUMNS)
    if path is None:
        raise DatasetError(
            f"{table.path} has the columns {first_of(table.header, NAMED)}; one of them must be "
            "called path, file, filename or image, or be named: --set data.path_column=NAME"
        )
    label = options.label_column
    if label is None and options.class_columns is None:
        label = _called(table, LABEL_COLUMNS)
    split = options.split_column or _called(table, SPLIT_COLUMNS)
    group = options.group_column
    special = {path, label, split, group}
    rest = [name for name in table.header if name not in special]
    if label is not None:
        return Columns(path, label, split, group, (), tuple(_ignored(table, rest)))
    classes = list(options.class_columns or ())
    notes = []
    if options.class_columns is None:
        classes = _class_columns(table, rest)
        notes = [
            f"{table.path}: every column of 0 and 1 is a class ({first_of(classes, NAMED)}). Name "
            "them where that is wrong: --set data.class_columns=[NAME,NAME]"
        ]
    left = [name for name in rest if name not in classes]
    return Columns(path, None, split, group, tuple(classes), (*notes, *_ignored(table, left)))


def _check_column(table: ImageTable, option: str, name: str | None) -> None:
    """Raise if an option names a column that is not there."""
    if name is not None and name not in table.header:
        raise UnknownNameError(f"column of {table.path} in data.{option}", name, table.header)


def _called(table: ImageTable, names: tuple[str, ...]) -> str | None:
    """The first column with one of these names, in any case and way of writing."""
    plain = {_plain(column): column for column in reversed(table.header)}
    return next((plain[name] for name in map(_plain, names) if name in plain), None)


def _plain(name: str) -> str:
    """`Image_Path` is `imagepath`."""
    return "".join(c for c in name.lower() if c.isalnum())


def _class_columns(table: ImageTable, names: list[str]) -> list[str]:
    """The columns whose every cell is 0 or 1, or not known.

    Raises:
        DatasetError: fewer than two, or one that is nearly so.
    """
    classes, others = [], []
    for name in names:
        wrong = [row for row in table.rows if not is_cell(row[name])]
        some = any(row[name] in BINARY for row in table.rows)
        if not wrong and some:
            classes.append(name)
            continue
        if not wrong:
            others.append(f"{name} is blank")
            continue
        others.append(f"{name} is {wrong[0][name]!r} in line {wrong[0].line}")
        if 2 * len(wrong) < len(table.rows):
            raise DatasetError(
                f"{table.path}, line {wrong[0].line}: {name} is {wrong[0][name]!r}; it must be 0 "
                "or 1, as most of its cells are. Mend it; or, where it is no class, name those "
                "that are: --set data.class_columns=[NAME,NAME]"
            )
    if len(classes) >= 2:
        return classes
    found = f"only {classes[0]}" if classes else "none"
    because = f" ({'; '.join(others[:NAMED])})" if others else ""
    raise DatasetError(
        f"{table.path} has no classes: no column is called label or class, and of the columns of 0 "
        f"and 1, of which each would be a class, there is {found}{because}. Name the column of "
        "labels: --set data.label_column=NAME, or the classes: --set data.class_columns=[NAME,NAME]"
    )


def _ignored(table: ImageTable, names: list[str]) -> Iterator[str]:
    """The columns that are not used, in words."""
    if not names:
        return
    yield f"ignored in {table.path}: the columns {first_of(names, NAMED)}."
    if (splits := _looks_like_splits(table, names)) is not None:
        yield (
            f"{splits} looks like a column of splits: to keep those apart: "
            f"--set data.split_column={splits}"
        )
    for name in names:
        if any(word in name.lower() for word in GROUP_WORDS):
            yield (
                f"where images of one {name} must not be on both sides of a held-out part: "
                f"--set data.group_column={name}"
            )
            return


def _looks_like_splits(table: ImageTable, names: list[str]) -> str | None:
    """The first of these columns whose every cell names a split, where there are several."""
    for name in names:
        cells = {row[name] for row in table.rows}
        readings = [read_split_name(cell) for cell in cells] if 1 < len(cells) < MOST_CELLS else []
        if readings and all(reading and not reading.affix for reading in readings):
            return name
    return None

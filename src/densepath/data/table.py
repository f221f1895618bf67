"""A table with a header: one image a row, with one label or with several.

The classes stand either in a column of names (several as `cat|dog`, which makes the set
multi-label), or in one column of 0 and 1 a class. A column of splits is optional, and one of
groups. `table_columns.py` finds the columns.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from densepath.data.dataset import Split
from densepath.data.files_dataset import FilesDataset
from densepath.data.label_cells import CellReader, Labels, is_cell, unknown
from densepath.data.options import DataOptions
from densepath.data.parts import WHOLE, Part, Parts
from densepath.data.repeats import merge_repeats, to_targets
from densepath.data.split_names import SPLIT_WORDS, read_split_name
from densepath.data.table_columns import Columns, find_columns
from densepath.data.table_file import ImageTable, read_table
from densepath.errors import DatasetError
from densepath.files import expand_user
from densepath.text import normal_form

SEPARATOR = "|"


def find_rows(path: Path, channels: int, options: DataOptions) -> Parts:
    """The parts of a table: the rows of each split where it has such a column, or all rows.

    The classes are those of all rows, so that every split has the same numbers.

    Raises:
        DatasetError: no header with a path and classes, or a bad row.
        UsageError: an option names a column that is not there.
    """
    table = read_table(path)
    columns = find_columns(table, options)
    for row in table.rows:
        if not row[columns.path]:
            raise DatasetError(f"{path}, line {row.line}: no {columns.path}.")
    reader = CellReader(options.uncertain)
    class_names, labels = _labels(table, columns, reader)
    multi_label = _is_multi_label(table, columns, labels, options)
    splits: list[Part] = (
        [WHOLE] * len(table.rows) if columns.split is None else _splits(table, columns.split)
    )
    kept, labels, said = merge_repeats(
        path,
        [row[columns.path] for row in table.rows],
        labels,
        [row.line for row in table.rows],
        splits,
        multi_label=multi_label,
    )
    groups = _groups(table, columns.group)
    root = expand_user(options.root) if options.root is not None else path.parent

    def read(part: Part) -> FilesDataset:
        """The images of the rows that are in a part."""
        chosen = [row for row in kept if splits[row] == part]
        return FilesDataset(
            root,
            [table.rows[row][columns.path] for row in chosen],
            to_targets([labels[row] for row in chosen], len(class_names), multi_label=multi_label),
            class_names,
            description=f"table {path}",
            channels=channels,
            multi_label=multi_label,
            groups=None if groups is None else [groups[row] for row in chosen],
        )

    names = dict.fromkeys(splits)
    where = f"the rows of {path.name}"
    rule = where if columns.split is None else f"{where} whose {columns.split} says so"
    return Parts(
        {part: partial(read, part) for part in names},
        dict.fromkeys(names, rule),
        [
            *columns.notes,
            *_said_of_kind(table, columns, labels, options),
            *reader.notes(path),
            *said,
        ],
    )


def _labels(
    table: ImageTable, columns: Columns, reader: CellReader
) -> tuple[list[str], list[Labels]]:
    """The class names, and the classes of each row."""
    if columns.label is None:
        for row in table.rows:
            wrong = next((name for name in columns.classes if not is_cell(row[name])), None)
            if wrong is not None:
                raise DatasetError(
                    f"{table.path}, line {row.line}: {wrong} is {row[wrong]!r}; it must be 0 or 1, "
                    "or, where it is not known, blank, NaN or -1."
                )
        classes = [normal_form(name) for name in columns.classes]
        return classes, [reader.read(row[name] for name in columns.classes) for row in table.rows]
    cells = [normal_form(row[columns.label]) for row in table.rows]
    parts = {cell: [n.strip() for n in cell.split(SEPARATOR) if n.strip()] for cell in {*cells}}
    class_names = sorted({name for names in parts.values() for name in names})
    numbers = {name: i for i, name in enumerate(class_names)}
    # One set for all rows of the same cell: a table may have millions.
    sets = {cell: frozenset(numbers[name] for name in names) for cell, names in parts.items()}
    return class_names, [sets[cell] for cell in cells]


def _is_multi_label(
    table: ImageTable, columns: Columns, labels: list[Labels], options: DataOptions
) -> bool:
    """Whether an image can have several classes: as the options say, or as the table shows.

    Raises:
        DatasetError: rows without a class or with several, where each image has one.
    """
    shown = columns.label is None or any(
        SEPARATOR in row[columns.label] for row in table.rows if columns.label
    )
    if options.multi_label or (options.multi_label is None and shown):
        return True
    for row, numbers in zip(table.rows, labels, strict=True):
        if numbers and min(numbers) < 0:
            name = columns.classes[unknown(min(numbers))]
            raise DatasetError(
                f"{table.path}, line {row.line}: {name} is {row[name]!r}, which is not known; "
                "where each image has one label, all are."
            )
        if len(numbers) != 1:
            what = f"no {columns.label}" if not numbers else f"{len(numbers)} labels"
            how = "" if numbers else ". Where images may have none: --set data.multi_label=true"
            raise DatasetError(
                f"{table.path}, line {row.line}: {what}, where each image has one{how}"
            )
    return False


def _said_of_kind(
    table: ImageTable, columns: Columns, labels: list[Labels], options: DataOptions
) -> list[str]:
    """Where columns of 0 and 1 give every image one class, how to have it answered as one."""
    one_each = columns.label is None and all(
        len(numbers) == 1 and min(numbers) >= 0 for numbers in labels
    )
    if options.multi_label is not None or not one_each:
        return []
    return [
        f"{table.path}: every row has a 1 in one column alone. The network learns each class by "
        "itself, as if images could have several; where each has one: --set data.multi_label=false"
    ]


def _splits(table: ImageTable, column: str) -> list[Part]:
    """The split of each row.

    Raises:
        DatasetError: a cell that names none.
    """
    readings: dict[str, Split] = {}
    for row in table.rows:
        cell = row[column]
        if cell in readings:
            continue
        reading = read_split_name(cell)
        if reading is None or reading.affix:
            raise DatasetError(
                f"{table.path}, line {row.line}: unknown split {cell!r}; choices: train, "
                f"validation, test (and {', '.join(n for n in SPLIT_WORDS if len(n) < 9)})."
            )
        readings[cell] = reading.split
    return [readings[row[column]] for row in table.rows]


def _groups(table: ImageTable, column: str | None) -> list[int] | None:
    """The number of each row's group.

    Raises:
        DatasetError: a row without one.
    """
    if column is None:
        return None
    numbers: dict[str, int] = {}
    for row in table.rows:
        if not row[column]:
            raise DatasetError(f"{table.path}, line {row.line}: no {column}, the group's column.")
        numbers.setdefault(row[column], len(numbers))
    return [numbers[row[column]] for row in table.rows]

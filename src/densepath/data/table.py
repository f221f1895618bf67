"""A CSV with a header: one image a row, with one label or with several.

The file stands in the column `path`, `file`, `filename` or `image`. The classes stand either in a
column `label` or `class` (a name; several as `cat|dog`, which makes the set multi-label), or in
one column of 0 and 1 a class. A column `split` (train, validation, test) is optional.
"""

from __future__ import annotations

import csv
import io
from functools import partial
from pathlib import Path

import numpy as np

from densepath.data.dataset import Target
from densepath.data.files_dataset import FilesDataset
from densepath.data.listfile import read_text
from densepath.data.options import DataOptions
from densepath.data.parts import WHOLE, Part, Parts
from densepath.errors import DatasetError

PATH_COLUMNS = ("path", "file", "filename", "image")
LABEL_COLUMNS = ("label", "labels", "class", "classes")
SPLIT_COLUMN = "split"
SEPARATOR = "|"


class Row(dict[str, str]):
    """The cells of one row by column, and the line of the file that it ends on."""

    line: int


def find_rows(path: Path, channels: int, options: DataOptions) -> Parts:
    """The parts of a CSV: the rows of each `split` where it has the column, or all rows.

    The classes are those of all rows, so that every split has the same numbers.

    Raises:
        DatasetError: no header with a path and classes, or a bad row.
    """
    header, rows = _read(path)
    files = _path_column(path, header)
    for row in rows:
        if not row[files]:
            raise DatasetError(f"{path}, line {row.line}: no {files}.")
    class_names, targets, multi_label = _classes(path, header, rows)
    root = Path(options.root).expanduser() if options.root is not None else path.parent

    def open_rows(chosen: list[int]) -> FilesDataset:
        return FilesDataset(
            root,
            [rows[i][files] for i in chosen],
            [targets[i] for i in chosen],
            class_names,
            description=f"table {path}",
            channels=channels,
            multi_label=multi_label,
        )

    if SPLIT_COLUMN not in header:
        return Parts(
            {WHOLE: partial(open_rows, list(range(len(rows))))},
            {WHOLE: f"the rows of {path.name}"},
        )
    found = _rows_by_split(path, rows)
    return Parts(
        {split: partial(open_rows, chosen) for split, chosen in found.items()},
        dict.fromkeys(found, f"the rows whose {SPLIT_COLUMN} says so"),
    )


def _read(path: Path) -> tuple[list[str], list[Row]]:
    """The header and the rows, every one of as many cells as the header."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    header: list[str] = []
    rows = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            if not header:
                header = _checked_header(path, stripped)
            else:
                rows.append(_row(path, reader.line_num, header, stripped))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}.") from error
    if not rows:
        raise DatasetError(f"{path} has no rows. A table has a header and one image a row.")
    return header, rows


def _checked_header(path: Path, header: list[str]) -> list[str]:
    """The names of the columns, each of which occurs once."""
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        raise DatasetError(f"{path}: the header needs a name of its own for every column: {header}")
    return header


def _row(path: Path, line: int, header: list[str], cells: list[str]) -> Row:
    """One row by column."""
    if len(cells) != len(header):
        raise DatasetError(
            f"{path}, line {line}: {len(cells)} cells where the header has {len(header)}."
        )
    row = Row(zip(header, cells, strict=True))
    row.line = line
    return row


def _path_column(path: Path, header: list[str]) -> str:
    """The name of the column of files."""
    for name in PATH_COLUMNS:
        if name in header:
            return name
    raise DatasetError(
        f"{path} has the columns {', '.join(header)}; one of them must be called "
        f"{', '.join(PATH_COLUMNS)}."
    )


def _classes(
    path: Path, header: list[str], rows: list[Row]
) -> tuple[list[str], list[Target], bool]:
    """Class names, the target of each row, and whether the set is multi-label."""
    for column in LABEL_COLUMNS:
        if column in header:
            return _from_label_column(path, column, rows)
    columns = [n for n in header if n not in (*PATH_COLUMNS, SPLIT_COLUMN)]
    if len(columns) < 2:
        raise DatasetError(
            f"{path} has no classes: it needs a column {', '.join(LABEL_COLUMNS)}, or one "
            "column of 0 and 1 a class."
        )
    return columns, _from_binary_columns(path, columns, rows), True


def _from_label_column(
    path: Path, column: str, rows: list[Row]
) -> tuple[list[str], list[Target], bool]:
    """Classes from one column of names; `a|b` in any row makes the set multi-label."""
    multi_label = any(SEPARATOR in row[column] for row in rows)
    sets = [[n.strip() for n in row[column].split(SEPARATOR) if n.strip()] for row in rows]
    class_names = sorted({name for names in sets for name in names})
    numbers = {name: i for i, name in enumerate(class_names)}
    if multi_label:
        return class_names, [_multi_hot([numbers[n] for n in s], len(numbers)) for s in sets], True
    for row, names in zip(rows, sets, strict=True):
        if not names:
            raise DatasetError(f"{path}, line {row.line}: no {column}.")
    return class_names, [numbers[names[0]] for names in sets], False


def _from_binary_columns(path: Path, columns: list[str], rows: list[Row]) -> list[Target]:
    """Targets from one column of 0 and 1 a class."""
    targets: list[Target] = []
    for row in rows:
        bad = [name for name in columns if row[name] not in ("0", "1", "0.0", "1.0")]
        if bad:
            raise DatasetError(
                f"{path}, line {row.line}: {bad[0]} is {row[bad[0]]!r}; it must be 0 or 1."
            )
        targets.append(np.array([float(row[name]) for name in columns], np.float32))
    return targets


def _multi_hot(numbers: list[int], count: int) -> np.ndarray:
    """float32 [count], 1 at `numbers`."""
    target = np.zeros(count, np.float32)
    target[numbers] = 1.0
    return target


def _rows_by_split(path: Path, rows: list[Row]) -> dict[Part, list[int]]:
    """The rows of each split."""
    names: dict[str, Part] = {
        "train": "train",
        "validation": "validation",
        "val": "validation",
        "valid": "validation",
        "test": "test",
    }
    found: dict[Part, list[int]] = {}
    for number, row in enumerate(rows):
        name = row[SPLIT_COLUMN]
        if name not in names:
            raise DatasetError(
                f"{path}, line {row.line}: unknown split {name!r}; choices: train, validation, "
                "test."
            )
        found.setdefault(names[name], []).append(number)
    return found

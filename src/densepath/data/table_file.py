"""A table's file → its header and rows: commas, semicolons or tabs, quoted or not."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from densepath.errors import DatasetError
from densepath.text import read_text

DELIMITERS = (",", ";", "\t")


class TableRow(dict[str, str]):
    """The cells of one row by column, and the line of the file that it ends on."""

    line: int


@dataclass(frozen=True)
class ImageTable:
    """A table as it stands in its file.

    Attributes:
        path: the file.
        header: the columns' names, in their order.
        rows: at least one.
    """

    path: Path
    header: list[str]
    rows: list[TableRow]


def read_table(path: Path) -> ImageTable:
    """The header and the rows, every one of as many cells as the header.

    The delimiter is what the header has most of: comma, semicolon or tab. A column without a name
    (pandas writes its row numbers so) is called `column 1`, and so on.

    Raises:
        DatasetError: no rows, a row of other length, or a column's name twice.
    """
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    header: list[str] = []
    rows = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            if not header:
                header = _named(path, stripped)
            else:
                rows.append(_row(path, reader.line_num, header, stripped))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}.") from error
    if not rows:
        raise DatasetError(f"{path} has no rows. A table has a header and one image a row.")
    return ImageTable(path, header, rows)


def _delimiter(text: str) -> str:
    """The delimiter of the first line that is not blank."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=header.count)


def _named(path: Path, header: list[str]) -> list[str]:
    """The columns' names, each of which occurs once."""
    names = [name or f"column {number}" for number, name in enumerate(header, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(
            f"{path}: two columns are called {twice[0]!r}; each needs a name of its own: "
            f"{', '.join(names)}"
        )
    return names


def _row(path: Path, line: int, header: list[str], cells: list[str]) -> TableRow:
    """One row by column."""
    if len(cells) != len(header):
        raise DatasetError(
            f"{path}, line {line}: {len(cells)} cells where the header has {len(header)}."
        )
    row = TableRow(zip(header, cells, strict=True))
    row.line = line
    return row

"""Cells of 0 and 1, one a class: yes, no, or not known. What tables and lists of them share.

A blank cell or NaN is a label that nobody gave; −1 is what CheXpert writes where a report is
uncertain. Neither is a no: they have no part in loss and figures, unless `data.uncertain` says how
−1 counts (Irvin et al., arXiv:1901.07031, section 3: U-Ignore, U-Zeros, U-Ones).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from densepath.choices import Uncertain

# The classes of an image by number; a class of which it is not known, as `unknown(number)`.
Labels: TypeAlias = frozenset[int]

BINARY = {"0": False, "1": True, "0.0": False, "1.0": True}
UNCERTAIN = ("-1", "-1.0")
BLANK = ("", "nan", "na", "n/a", "null")
COUNTED_AS = {"zeros": "0", "ones": "1"}


def unknown(number: int) -> int:
    """How `Labels` hold a class of which it is not known; its own inverse."""
    return ~number


def is_cell(cell: str) -> bool:
    """Whether it is a yes, a no, or neither of the two."""
    return cell in BINARY or not_known(cell)


def not_known(cell: str) -> bool:
    """Whether it is blank or uncertain."""
    return cell in UNCERTAIN or cell.lower() in BLANK


class CellReader:
    """Cells → `Labels`, with a count of those that are not known."""

    def __init__(self, uncertain: Uncertain) -> None:
        self._uncertain = uncertain
        self._cells = self._blank = self._minus = 0

    def read(self, cells: Iterable[str]) -> Labels:
        """The labels of one image; each of its cells `is_cell`."""
        found = []
        for number, cell in enumerate(cells):
            self._cells += 1
            if cell in BINARY:
                found += [number] if BINARY[cell] else []
            elif cell in UNCERTAIN:
                self._minus += 1
                found += {"mask": [unknown(number)], "ones": [number], "zeros": []}[self._uncertain]
            else:
                self._blank += 1
                found.append(unknown(number))
        return frozenset(found)

    def notes(self, path: Path) -> list[str]:
        """How many labels of the file are not known, and what becomes of them, in sentences."""
        said = []
        masked = self._blank + (self._minus if self._uncertain == "mask" else 0)
        if masked:
            kinds = [f"{self._blank:,} blank"] if self._blank else []
            if self._minus and self._uncertain == "mask":
                kinds.append(
                    f"{self._minus:,} of -1, which --set data.uncertain=zeros or ones counts"
                )
            said.append(
                f"{path}: {masked:,} of {self._cells:,} labels are not known "
                f"({'; '.join(kinds)}): they have no part in loss and figures."
            )
        if self._minus and self._uncertain != "mask":
            said.append(
                f"{path}: {self._minus:,} of {self._cells:,} labels are -1 and count as "
                f"{COUNTED_AS[self._uncertain]} (data.uncertain={self._uncertain})."
            )
        return said

"""Rows of a list or a table: those that name a file a second time, and their targets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densepath.data.dataset import Target
from densepath.data.label_cells import Labels, unknown
from densepath.errors import DatasetError


def merge_repeats(
    path: Path,
    files: Sequence[str],
    labels: Sequence[Labels],
    lines: Sequence[int],
    keys: Sequence[str],
    *,
    multi_label: bool,
) -> tuple[list[int], list[Labels], list[str]]:
    """(rows that stay, labels of all rows, sentences): each file once in each split.

    Args:
        path: the list or table, for messages.
        files: of each row.
        labels: of each row, its classes.
        lines: of each row, where it stands.
        keys: of each row, its split: a file may stand once in each.
        multi_label: rows of one file then add up.

    Raises:
        DatasetError: an image that has one class has another one in a second row.
    """
    places = list(map(os.path.normpath, files))
    if len(set(places)) == len(places):
        return list(range(len(files))), list(labels), []
    first: dict[str, int] = {}
    merged = list(labels)
    kept: dict[tuple[str, str], int] = {}
    repeated = 0
    for row, (place, key) in enumerate(zip(places, keys, strict=True)):
        other = first.setdefault(place, row)
        if labels[row] != labels[other] and not multi_label:
            raise DatasetError(
                f"{path}, lines {lines[other]} and {lines[row]}: {files[row]} is given two "
                "different labels. Mend one; or, where an image can have several classes, say so: "
                "--set data.multi_label=true"
            )
        there = kept.setdefault((place, key), row)
        if there != row:
            repeated += 1
            merged[there] |= labels[row]
    if not repeated:
        return list(kept.values()), merged, []
    rows, count = ("row repeats", "counts") if repeated == 1 else ("rows repeat", "count")
    added = "; its labels were added up" if multi_label else ""
    said = f"{path}: {repeated:,} {rows} a file of an earlier one and {count} once{added}."
    return list(kept.values()), merged, [said]


def to_targets(labels: Sequence[Labels], num_classes: int, *, multi_label: bool) -> list[Target]:
    """The one class of each row, or float32 [classes] of 0 and 1 where it can have several.

    NaN where it is not known; of rows that were added up a yes is known.
    """
    if not multi_label:
        return [next(iter(numbers)) for numbers in labels]
    targets: list[Target] = []
    for numbers in labels:
        target = np.zeros(num_classes, np.float32)
        target[[unknown(number) for number in numbers if number < 0]] = np.nan
        target[[number for number in numbers if number >= 0]] = 1.0
        targets.append(target)
    return targets

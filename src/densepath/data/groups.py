"""Groups (patients, scenes) that are found in the names of images, where no column gives them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densepath.data.dataset import Dataset, Subset
from densepath.errors import DatasetError, UsageError

UNMATCHED_SHOWN = 3


class NamedGroups:
    """A pattern → the group of each image; the same group has one number in all parts."""

    def __init__(self, pattern: str, base: Path) -> None:
        """
        Args:
            pattern: a regular expression, searched in paths with `/` between folders.
            base: the folder that paths start below; of others the whole path is searched.

        Raises:
            UsageError: it is no regular expression.
        """
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise UsageError(
                f"data.group_pattern {pattern!r} is no regular expression: {error}."
            ) from error
        self._base = f"{os.fspath(base)}{os.sep}"
        self._numbers: dict[str, int] = {}

    def put(self, dataset: Dataset) -> Dataset:
        """The set with groups.

        Raises:
            DatasetError: it has a column of groups, or images whose names the pattern is not in.
        """
        if dataset.groups is not None:
            raise DatasetError(
                f"{dataset.description} has groups of its own (data.group_column); leave out "
                "data.group_pattern, or that."
            )
        names = [self._short(dataset.path(index)) for index in range(len(dataset))]
        found = [self._pattern.search(name) for name in names]
        without = [name for name, match in zip(names, found, strict=True) if match is None]
        if without:
            raise DatasetError(self._said_of(without, names))
        texts = [match.group(1 if match.re.groups else 0) or "" for match in found if match]
        numbers = [self._numbers.setdefault(text, len(self._numbers)) for text in texts]
        grouped = Subset(dataset, np.arange(len(dataset)), dataset.description)
        grouped.groups = np.array(numbers, np.int64)
        return grouped

    def _short(self, path: str) -> str:
        """The path below the source."""
        return path.removeprefix(self._base).replace(os.sep, "/")

    def _said_of(self, without: Sequence[str], names: Sequence[str]) -> str:
        """What is wrong with names without a group."""
        shown = ", ".join(without[:UNMATCHED_SHOWN])
        more = ", ..." if len(without) > UNMATCHED_SHOWN else ""
        return (
            f"data.group_pattern {self._pattern.pattern!r} is not found in {len(without):,} of "
            f"{len(names):,} names: {shown}{more}. Every image needs a group."
        )

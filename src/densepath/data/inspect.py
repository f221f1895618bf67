"""What a data set holds, before anything is trained or measured on it: counted, and said.

Reads every image's contents (64 KiB at most) for the copies, and no pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import SPLITS, Dataset, Split, gather_targets
from densepath.data.fingerprint import Fingerprints, fingerprints, is_unopened
from densepath.data.splits import Splits

SHOWN_COPIES = 3


@dataclass(frozen=True)
class Copies:
    """Images that are in a data set twice.

    Attributes:
        first, second: the splits; the same where both copies are in one.
        count: the images of `second` of which `first` has a copy (of one split: the images that
            repeat an earlier one).
        examples: a few pairs of names, those whose labels differ first.
        other_labels: those of them whose labels differ.
    """

    first: str
    second: str
    count: int
    examples: tuple[tuple[str, str], ...]
    other_labels: int


@dataclass(frozen=True)
class Unopened:
    """Files of a split that are not there, or may not be read.

    Attributes:
        split: it.
        count: their number.
        example: one of them.
    """

    split: str
    count: int
    example: str


@dataclass(frozen=True)
class Inspection:
    """What a data set holds.

    Attributes:
        source: as it was named.
        class_names: in the order of the class numbers.
        multi_label: whether an image can have several classes, or none.
        counts: for each split that there is, int64 [classes], the images of each class.
        images: for each split its number of images.
        rules: for each split how it was made, or why there is none.
        notes: what was ignored, guessed or is doubtful.
        copies: images with the same contents, between splits and within one.
        unopened: files that are named and cannot be opened.
        groups: for each split its number of groups; empty where there are none.
        divided_groups: the groups that are in more than one split.
        separate: the splits that were not made of one another.
    """

    source: str
    class_names: list[str]
    multi_label: bool
    counts: dict[str, NDArray[np.int64]]
    images: dict[str, int]
    rules: dict[str, str]
    notes: tuple[str, ...]
    copies: tuple[Copies, ...]
    unopened: tuple[Unopened, ...]
    groups: dict[str, int]
    divided_groups: int
    separate: tuple[Split, ...]

    def __repr__(self) -> str:
        """The source and the number of images of each part, in one line."""
        said = ", ".join(f"{number:,} {split}" for split, number in self.images.items())
        return f"<Inspection of {self.source}: {len(self.class_names):,} classes, {said}>"

    @property
    def imbalance(self) -> float | None:
        """Images of the largest class over those of the smallest in training; None without."""
        counts = self.counts.get("train", np.zeros(0))
        present = counts[counts > 0]
        return float(present.max() / present.min()) if len(present) else None

    def without(self, split: str) -> list[str]:
        """The classes that have no image in a split; none where there is no such split."""
        if split not in self.counts:
            return []
        missing = np.flatnonzero(self.counts[split] == 0)
        return [self.class_names[number] for number in missing]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "source": self.source,
            "classes": self.class_names,
            "multi_label": self.multi_label,
            "images": self.images,
            "rules": self.rules,
            "images_per_class": {
                split: dict(zip(self.class_names, map(int, counts), strict=True))
                for split, counts in self.counts.items()
            },
            "imbalance": self.imbalance,
            "classes_without_images": {split: self.without(split) for split in self.counts},
            "copies": [
                {
                    "first": one.first,
                    "second": one.second,
                    "images": one.count,
                    "with_other_labels": one.other_labels,
                    "examples": [list(pair) for pair in one.examples],
                }
                for one in self.copies
            ],
            "cannot_be_opened": {one.split: one.count for one in self.unopened},
            "groups": self.groups,
            "divided_groups": self.divided_groups,
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Plain lines for standard error and the run's README."""
        from densepath.data.inspect_text import to_lines

        return "\n".join(to_lines(self))


def inspect_splits(splits: Splits, known: Mapping[str, Fingerprints] | None = None) -> Inspection:
    """What the parts of a data set hold; `known` are fingerprints of parts that have been read."""
    parts = {split: part for split in SPLITS if (part := getattr(splits, split)) is not None}
    first = next(iter(parts.values()))
    separate: dict[str, Dataset] = {s: p for s, p in parts.items() if s in splits.separate}
    given = known or {}
    marks = {s: given[s] if s in given else fingerprints(p) for s, p in separate.items()}
    return Inspection(
        source=splits.source,
        class_names=first.class_names,
        multi_label=first.multi_label,
        counts={split: count_classes(part) for split, part in parts.items()},
        images={split: len(part) for split, part in parts.items()},
        rules=splits.rules,
        notes=splits.notes,
        copies=tuple(_find_copies(separate, marks)),
        unopened=tuple(_find_unopened(separate, marks)),
        groups={s: len(np.unique(p.groups)) for s, p in parts.items() if p.groups is not None},
        divided_groups=_count_divided(separate),
        separate=splits.separate,
    )


def count_classes(dataset: Dataset) -> NDArray[np.int64]:
    """int64 [classes], the images of each class; one of several classes counts in each."""
    targets = gather_targets(dataset)
    if dataset.multi_label:
        return targets.sum(0).astype(np.int64)
    return np.bincount(targets.astype(np.int64), minlength=len(dataset.class_names))


def _find_unopened(
    parts: dict[str, Dataset], marks: Mapping[str, Fingerprints]
) -> Iterator[Unopened]:
    """The files of each part that have the fingerprints of their names."""
    for split, part in parts.items():
        found = [i for i, mark in enumerate(marks[split]) if is_unopened(part, i, int(mark))]
        if found:
            yield Unopened(split, len(found), part.path(found[0]))


def _find_copies(parts: dict[str, Dataset], marks: Mapping[str, Fingerprints]) -> Iterator[Copies]:
    """The copies between each two parts, then those within each."""
    for a, b in combinations(parts, 2):
        there, first_of = np.unique(marks[a], return_index=True)
        at = np.minimum(np.searchsorted(there, marks[b]), max(len(there) - 1, 0))
        again = np.flatnonzero(there[at] == marks[b]) if len(there) else np.zeros(0, np.int64)
        if len(again):
            yield _copies(parts, a, b, first_of[at[again]], again)
    for a in parts:
        _, first_of, number = np.unique(marks[a], return_index=True, return_inverse=True)
        again = np.flatnonzero(first_of[number] != np.arange(len(number)))
        if len(again):
            yield _copies(parts, a, a, first_of[number[again]], again)


def _copies(
    parts: dict[str, Dataset], a: str, b: str, firsts: NDArray[np.int64], again: NDArray[np.int64]
) -> Copies:
    """The copies at `again` of `b`, of the images at `firsts` of `a`."""
    pairs = list(zip(map(int, firsts), map(int, again), strict=True))
    differ = [bool(np.any(parts[a].target(i) != parts[b].target(j))) for i, j in pairs]
    order = sorted(range(len(pairs)), key=lambda at: not differ[at])[:SHOWN_COPIES]
    examples = ((parts[a].path(i), parts[b].path(j)) for i, j in (pairs[at] for at in order))
    return Copies(a, b, len(pairs), tuple(examples), sum(differ))


def _count_divided(parts: dict[str, Dataset]) -> int:
    """The groups that are in more than one of the parts."""
    groups = [np.unique(part.groups) for part in parts.values() if part.groups is not None]
    if not groups:
        return 0
    _, counts = np.unique(np.concatenate(groups), return_counts=True)
    return int(np.sum(counts > 1))

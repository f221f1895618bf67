"""What a data set holds, counted before anything is trained or measured on it.

Reads every image's contents (64 KiB at most) for the copies, and no pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import SPLITS, Dataset, Target, gather_targets
from densepath.data.fingerprint import Fingerprints, fingerprints, is_unopened
from densepath.data.inspection import Copies, Inspection, Unopened
from densepath.data.splits import Splits

SHOWN_COPIES = 3


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
        return np.nansum(targets, 0).astype(np.int64)
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
    differ = [bool(_differ(parts[a].target(i), parts[b].target(j))) for i, j in pairs]
    order = sorted(range(len(pairs)), key=lambda at: not differ[at])[:SHOWN_COPIES]
    examples = ((parts[a].path(i), parts[b].path(j)) for i, j in (pairs[at] for at in order))
    return Copies(a, b, len(pairs), tuple(examples), sum(differ))


def _differ(one: Target, other: Target) -> bool:
    """Whether two targets say different things; of what one of them does not know, nothing."""
    both = np.isfinite(one) & np.isfinite(other)
    return bool(np.any((np.asarray(one) != np.asarray(other)) & both))


def _count_divided(parts: dict[str, Dataset]) -> int:
    """The groups that are in more than one of the parts."""
    groups = [np.unique(part.groups) for part in parts.values() if part.groups is not None]
    if not groups:
        return 0
    _, counts = np.unique(np.concatenate(groups), return_counts=True)
    return int(np.sum(counts > 1))

"""A part of the training images held out: by class, and whole groups where there are any."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Dataset, Subset, gather_targets
from densepath.errors import DatasetError
from densepath.wording import percent

IndexArray = NDArray[np.int64]


def hold_out(
    dataset: Dataset, fraction: float, seed: int, *, of: str = "images"
) -> tuple[Dataset, Dataset | None, str]:
    """(train, validation, how) of a set; `how` says it in words.

    Each class gives its share. Where the set has groups, a group goes to one side whole. Every
    class of two images or more (in two groups or more) keeps at least one for training.

    Args:
        dataset: what is divided.
        fraction: the share that is held out; with 0 there is no validation part.
        seed: draws it.
        of: what the images are called in `how`.

    Raises:
        DatasetError: fewer than two images or groups.
    """
    if not fraction:
        return dataset, None, "none: validation_fraction is 0"
    is_held = np.zeros(len(dataset), bool)
    is_held[_draw(dataset, fraction, seed)] = True
    groups = "" if dataset.groups is None else "whole groups "
    rule = f"{percent(fraction, None)} of the {of}, {groups}drawn by class with seed {seed}"
    train, held = np.flatnonzero(~is_held), np.flatnonzero(is_held)
    said = dataset.description
    return (
        Subset(dataset, train, f"{said}; {len(train):,} of them, without {rule}"),
        Subset(dataset, held, f"{said}; {len(held):,} of them: {rule}"),
        rule,
    )


def _draw(dataset: Dataset, fraction: float, seed: int) -> IndexArray:
    """The samples that are held out."""
    random = np.random.default_rng([seed, len(dataset)])
    targets = gather_targets(dataset)
    if dataset.groups is None and not dataset.multi_label:
        if len(dataset) < 2:
            raise DatasetError(_too_few(dataset, "image"))
        return _draw_images(targets.astype(np.int64), len(dataset.class_names), fraction, random)
    members, counts = _units(dataset, targets)
    if len(members) < 2:
        raise DatasetError(_too_few(dataset, "image" if dataset.groups is None else "group"))
    return np.concatenate([members[unit] for unit in _draw_units(counts, fraction, random)])


def _too_few(dataset: Dataset, unit: str) -> str:
    """Why nothing can be held out."""
    return (
        f"{dataset.description}: one {unit} cannot be divided into training and validation; "
        "give more, name a source for validation (data.validation), or hold nothing out "
        "(data.validation_fraction=0)."
    )


def _draw_images(
    targets: IndexArray, num_classes: int, fraction: float, random: np.random.Generator
) -> IndexArray:
    """Of each class its share; what is left over by rounding goes to the largest remainders."""
    counts = np.bincount(targets, minlength=num_classes)
    most = np.maximum(counts - 1, 0)
    share = np.minimum(counts * fraction, most)
    held = np.floor(share).astype(np.int64)
    wanted = min(max(round(len(targets) * fraction), 1), int(most.sum()) or 1)
    # A class of one image keeps it, unless every class has only one.
    room = most if most.sum() else counts
    order = np.lexsort((random.permutation(num_classes), -(share - held)))
    while (missing := wanted - int(held.sum())) > 0:
        held[[c for c in order if held[c] < room[c]][:missing]] += 1
    shuffled = random.permutation(len(targets))
    by_class = shuffled[np.argsort(targets[shuffled], kind="stable")]
    starts = np.cumsum(counts) - counts
    return np.concatenate([by_class[s : s + h] for s, h in zip(starts, held, strict=True)])


def _units(
    dataset: Dataset, targets: NDArray[np.int64] | NDArray[np.float32]
) -> tuple[list[IndexArray], NDArray[np.float64]]:
    """What is never divided: the samples of each unit, and its images a class.

    The counts [units, classes + 2] end in a column of images without a class and one of all.
    """
    if dataset.multi_label:
        labels = np.nan_to_num(np.asarray(targets, np.float64))
    else:
        labels = np.zeros((len(dataset), len(dataset.class_names)))
        labels[np.arange(len(dataset)), targets.astype(np.int64)] = 1
    counts = np.column_stack([labels, labels.sum(1) == 0, np.ones(len(dataset))])
    if dataset.groups is None:
        return [np.array([index]) for index in range(len(dataset))], counts
    _, numbers = np.unique(dataset.groups, return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return members, np.stack([counts[m].sum(0) for m in members])


def _draw_units(
    counts: NDArray[np.float64], fraction: float, random: np.random.Generator
) -> list[int]:
    """The units that bring the held-out part nearest to its share of every class.

    In random order a unit is taken when it lessens the squared distance to the shares, as a part
    of each class's size, and no class is left without training images.
    """
    totals = counts.sum(0)
    wanted, weights = totals * fraction, 1 / np.maximum(totals, 1) ** 2
    held = np.zeros_like(totals)
    taken: list[int] = []
    order = random.permutation(len(counts))
    for unit in order:
        after = held + counts[unit]
        empties = np.any((after[:-2] == totals[:-2]) & (counts[unit][:-2] > 0))
        gain = ((held - wanted) ** 2 - (after - wanted) ** 2) @ weights
        if gain > 0 and not empties:
            held = after
            taken.append(int(unit))
    if not taken:
        # No unit is small enough: the smallest.
        taken = [int(order[np.argmin(counts[order, -1])])]
    return taken

"""What `inspect_splits` finds in a data set: as values, and in lines for a person."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Split
from densepath.images.depth import Depth, said_of, suggest
from densepath.images.intensity import Intensity
from densepath.wording import are, columns, counted, first_of, have, literal, printable

SHOWN_CLASSES = 10  # the largest, and as many of the smallest
NAMED = 5
NAME_WIDTH = 32
IMBALANCED = 3.0
IMAGES_OF = {"train": "training images", "validation": "validation images", "test": "test images"}


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
        depths: the kinds of files with more than 8 bits among those that were looked at.
        looked_at: how many these are.
        intensity: the setting that they are read by, where there is one.
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
    depths: tuple[Depth, ...] = ()
    looked_at: int = 0
    intensity: Intensity | None = None

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
            "more_than_8_bits": [dataclasses.asdict(depth) for depth in self.depths],
            "suggested_intensity": suggest(self.depths) if self.depths else None,
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Plain lines for standard error and the run's README."""
        return "\n".join(_to_lines(self))


def _to_lines(found: Inspection) -> Iterator[str]:
    """The parts, a table of the classes, and what a person should know."""
    classes = counted(len(found.class_names), "class")
    kind = ", several an image" if found.multi_label else ""
    yield f"data: {printable(found.source)} ({classes}{kind})"
    for split, rule in found.rules.items():
        own = split in found.separate
        size = f"{found.images[split]:,}" if own and split in found.images else "-"
        said = rule if own or split not in found.images else f"none; in their place {rule}"
        grouped = own and split in found.groups
        groups = f"; {counted(found.groups[split], 'group')}" if grouped else ""
        yield f"  {split:<10} {size:>9}  {printable(said)}{groups}"
    yield ""
    yield from _class_table(found)
    yield from (f"note: {printable(said)}" for said in _remarks(found))


def _remarks(found: Inspection) -> Iterator[str]:
    """What a person should know before training: sentences."""
    for missing in found.unopened:
        all_of = IMAGES_OF[missing.split]
        yield (
            f"{missing.count:,} of {found.images[missing.split]:,} {all_of} cannot be opened: "
            f"{'' if missing.count == 1 else 'for example '}{missing.example}."
        )
    for copies in found.copies:
        yield _said_of(copies, found.source)
    if found.depths:
        yield said_of(found.depths, found.looked_at, found.intensity)
    if found.divided_groups:
        yield f"{have(found.divided_groups, 'group')} images in more than one split."
    ratio = found.imbalance
    if ratio is not None and ratio >= IMBALANCED:
        yield f"imbalance: the largest class has {ratio:.1f} times the images of the smallest."
    nowhere = set.intersection(*(set(found.without(split)) for split in found.counts))
    yield from _without("images", [name for name in found.class_names if name in nowhere])
    for split, images in IMAGES_OF.items():
        if split in found.separate:
            yield from _without(images, [n for n in found.without(split) if n not in nowhere])
    yield from found.notes


def _without(images: str, classes: list[str]) -> Iterator[str]:
    """The sentence on classes that have no such images; none where all have."""
    if classes:
        names = [literal(name, NAME_WIDTH) for name in classes]
        yield f"{have(len(classes), 'class')} no {images}: {first_of(names, NAMED)}."


def _said_of(copies: Copies, source: str) -> str:
    """One sentence on images that are there twice; names begin below the source."""
    first, second = (name.removeprefix(f"{source}{os.sep}") for name in copies.examples[0])
    one = copies.count == 1
    said = are(copies.count, IMAGES_OF[copies.second].removesuffix("s"))
    if copies.first == copies.second:
        said += f" {'a copy' if one else 'copies'} of another one"
    else:
        said += f" among the {IMAGES_OF[copies.first]} too"
    if copies.other_labels:
        said += ", under another label" if one else f", {copies.other_labels:,} under another label"
    return f"{said}: {'' if one else 'for example '}{second} = {first}."


def _class_table(found: Inspection) -> Iterator[str]:
    """Images of each class in each split: all classes, or the largest and the smallest."""
    splits = [split for split in found.counts if split in found.separate]
    sizes = np.sum([found.counts[split] for split in splits], axis=0)
    order = [int(i) for i in np.argsort(-sizes, kind="stable")]
    cut = len(order) > 2 * SHOWN_CLASSES
    shown = order[:SHOWN_CLASSES] + order[-SHOWN_CLASSES:] if cut else sorted(order)
    names = {i: literal(found.class_names[i], NAME_WIDTH) for i in shown}
    width = max(len("class"), *map(columns, names.values()))
    yield "  ".join([f"  {'class':<{width}}", *(f"{split:>10}" for split in splits)])
    for place, i in enumerate(shown):
        if cut and place == SHOWN_CLASSES:
            yield f"  ... {len(order) - 2 * SHOWN_CLASSES:,} classes between these"
        cells = (f"{found.counts[split][i]:>10,}" for split in splits)
        padding = " " * (width - columns(names[i]))
        yield "  ".join([f"  {names[i]}{padding}", *cells])

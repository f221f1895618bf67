"""An Inspection in plain lines, for standard error and the README of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from densepath.drawing.picture import columns, literal
from densepath.predictions import printable
from densepath.wording import counted

if TYPE_CHECKING:
    from densepath.data.inspect import Copies, Inspection

SHOWN_CLASSES = 10  # the largest, and as many of the smallest
NAMED = 5
NAME_WIDTH = 32
IMBALANCED = 3.0


def to_lines(found: Inspection) -> Iterator[str]:
    """The lines."""
    classes = counted(len(found.class_names), "class", "classes")
    kind = ", several an image" if found.multi_label else ""
    yield f"data: {printable(found.source)} ({classes}{kind})"
    for split, rule in found.rules.items():
        size = f"{found.images[split]:>9,}" if split in found.images else f"{'-':>9}"
        groups = f" in {counted(found.groups[split], 'group')}" if split in found.groups else ""
        yield f"  {split:<10} {size}  {printable(rule)}{groups}"
    yield ""
    yield from _class_table(found)
    yield from (f"note: {printable(said)}" for said in remarks(found))


def remarks(found: Inspection) -> Iterator[str]:
    """What a person should know before training: sentences."""
    for copies in found.copies:
        yield _said_of(copies)
    if found.divided_groups:
        verb = "has" if found.divided_groups == 1 else "have"
        yield f"{counted(found.divided_groups, 'group')} {verb} images in more than one split."
    ratio = found.imbalance
    if ratio is not None and ratio >= IMBALANCED:
        yield f"imbalance: the largest class has {ratio:.1f} times the images of the smallest."
    for split in ("train", "validation", "test"):
        if missing := found.without(split):
            verb = "has" if len(missing) == 1 else "have"
            yield (
                f"{counted(len(missing), 'class', 'classes')} {verb} no {split} images: "
                f"{some(missing)}."
            )
    yield from found.notes


def some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - NAMED
    shown = (literal(name, NAME_WIDTH) for name in names[:NAMED])
    return ", ".join(shown) + (f" and {rest:,} more" if rest > 0 else "")


def _said_of(copies: Copies) -> str:
    """One sentence on images that are there twice."""
    first, second = copies.examples[0]
    labels = f", {copies.other_labels:,} of them under another label" if copies.other_labels else ""
    if copies.first == copies.second:
        verb = "repeats" if copies.count == 1 else "repeat"
        said = f"{counted(copies.count, 'image')} of {copies.first} {verb} another of it"
    else:
        verb = "is" if copies.count == 1 else "are"
        said = f"{counted(copies.count, 'image')} of {copies.second} {verb} in {copies.first} too"
    return f"{said}{labels}, such as {second} (= {first})."


def _class_table(found: Inspection) -> Iterator[str]:
    """Images of each class in each split: all classes, or the largest and the smallest."""
    splits = list(found.counts)
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

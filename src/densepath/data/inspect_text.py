"""An Inspection in plain lines, for standard error and the README of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from densepath.wording import are, columns, counted, first_of, have, literal, printable

if TYPE_CHECKING:
    from densepath.data.inspect import Copies, Inspection

SHOWN_CLASSES = 10  # the largest, and as many of the smallest
NAMED = 5
NAME_WIDTH = 32
IMBALANCED = 3.0
IMAGES_OF = {"train": "training images", "validation": "validation images", "test": "test images"}


def to_lines(found: Inspection) -> Iterator[str]:
    """The lines."""
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
    yield from (f"note: {printable(said)}" for said in remarks(found))


def remarks(found: Inspection) -> Iterator[str]:
    """What a person should know before training: sentences."""
    for missing in found.unopened:
        all_of = IMAGES_OF[missing.split]
        yield (
            f"{missing.count:,} of {found.images[missing.split]:,} {all_of} cannot be opened: "
            f"{'' if missing.count == 1 else 'for example '}{missing.example}."
        )
    for copies in found.copies:
        yield _said_of(copies, found.source)
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

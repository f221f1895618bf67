"""What differs between the images of a run and those that are there now, in words.

On the line: `record.py` asks on a resume. The whole set is compared before its parts: one image
more draws other validation images, and it is the one that a person wants to hear of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from densepath.data.dataset import Split
from densepath.data.recorded_part import RecordedPart
from densepath.wording import are, first_of, have

NAMED_AT_MOST = 3


@dataclass(frozen=True)
class Known:
    """One image.

    Attributes:
        name: from where the data lies.
        target: its class number, or float32 [classes].
        fingerprint: of its contents.
        split: the part that it is in.
    """

    name: str
    target: Any
    fingerprint: int
    split: Split


def differing_classes(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """What differs between the class names of a run and those of the data."""
    if list(before) == list(now):
        return []
    gone = [name for name in before if name not in set(now)]
    new = [name for name in now if name not in set(before)]
    if len(gone) == len(new) == 0:
        return [
            f"the classes stand in another order: {first_of(before)} before, {first_of(now)} now"
        ]
    if len(gone) == len(new):
        pairs = [f"class {old} is now {name}" for old, name in zip(gone, new, strict=True)]
        return _first(pairs, "classes")
    said = []
    if gone:
        said.append(f"{are(len(gone), 'class')} gone: {first_of(gone)}")
    if new:
        said.append(f"{are(len(new), 'class')} new: {first_of(new)}")
    return said


def differing_images(
    before: Mapping[Split, RecordedPart], now: Mapping[Split, RecordedPart], labels: Sequence[str]
) -> list[str]:
    """What differs between the images then and now; of no parts that only one of them has."""
    splits = [split for split in before if split in now]
    old = [image for split in splits for image in _images(before[split], split)]
    new = [image for split in splits for image in _images(now[split], split)]
    if said := list(_differing_sets(old, new, labels)):
        return said
    return [one for split in splits for one in _differing_parts(before, now, split, splits)]


def _images(part: RecordedPart, split: Split) -> Iterator[Known]:
    """The images of a part."""
    for name, target, mark in zip(part.names, part.targets, part.fingerprints, strict=True):
        yield Known(name, target, int(mark), split)


def _differing_sets(
    before: Sequence[Known], now: Sequence[Known], labels: Sequence[str]
) -> Iterator[str]:
    """What differs between two sets of images, wherever in them each stands."""
    gone, new = _without(before, now), _without(now, before)
    moved, gone, new = _pair_contents(gone, new)
    yield from _first([_said_of_moved(a, b, labels) for a, b in moved], "names")
    if gone:
        yield f"{are(len(gone), _kind(gone))} gone: {first_of([image.name for image in gone])}"
    if new:
        yield f"{are(len(new), _kind(new))} new: {first_of([image.name for image in new])}"
    relabelled, rewritten = [], []
    places = _by_name(now)
    for image in before:
        if not places.get(image.name):
            continue
        here = places[image.name].pop(0)
        if not _same(image.target, here.target):
            then, is_now = _label(image.target, labels), _label(here.target, labels)
            relabelled.append(f"{image.name} was {then}, is {is_now}")
        elif image.fingerprint != here.fingerprint:
            rewritten.append((image, here))
    yield from _first(relabelled, "labels")
    if rewritten:
        kind = _kind([image for image, _ in rewritten])
        yield f"{have(len(rewritten), kind)} other contents: {_some_contents(before, rewritten)}"


def _differing_parts(
    before: Mapping[Split, RecordedPart],
    now: Mapping[Split, RecordedPart],
    split: Split,
    splits: Sequence[Split],
) -> Iterator[str]:
    """What differs in one part, where all of them together are the same images."""
    kind = _kind_of(split)
    for other in splits:
        into = list((Counter(before[split].names) & Counter(now[other].names)).elements())
        left = Counter(into) - Counter(now[split].names) if other != split else Counter()
        if left:
            names = list(left.elements())
            said = f"{are(len(names), f'{kind} image')} among the"
            yield (
                f"{said} {_kind_of(other)} images now: {first_of(names)} (another order of the "
                "images, other groups or another column of splits divide them otherwise)"
            )
    same = Counter(before[split].names) == Counter(now[split].names)
    if same and before[split].names != now[split].names:
        yield f"the {kind} images stand in another order"


def _without(images: Sequence[Known], others: Sequence[Known]) -> list[Known]:
    """The images whose names the others do not have; a list may name one several times."""
    left = Counter(image.name for image in images) - Counter(image.name for image in others)
    found = []
    for image in reversed(images):
        if left[image.name] > 0:
            left[image.name] -= 1
            found.append(image)
    return found[::-1]


def _pair_contents(
    gone: Sequence[Known], new: Sequence[Known]
) -> tuple[list[tuple[Known, Known]], list[Known], list[Known]]:
    """(images under another name now, those that are gone, those that are new)."""
    by_mark: dict[int, list[Known]] = {}
    for image in new:
        by_mark.setdefault(image.fingerprint, []).append(image)
    moved, left = [], []
    for image in gone:
        if there := by_mark.get(image.fingerprint):
            moved.append((image, there.pop(0)))
        else:
            left.append(image)
    taken = {id(image) for _, image in moved}
    return moved, left, [image for image in new if id(image) not in taken]


def _said_of_moved(before: Known, now: Known, labels: Sequence[str]) -> str:
    """`cat/1.jpg is now cat/2.jpg`, with the classes where they differ."""
    if _same(before.target, now.target):
        return f"{before.name} is now {now.name}"
    then, here = _label(before.target, labels), _label(now.target, labels)
    return f"{before.name} was {then}, is {here} (as {now.name})"


def _some_contents(before: Sequence[Known], rewritten: Sequence[tuple[Known, Known]]) -> str:
    """The first images with other contents; and whose these were, as when folders are swapped."""
    by_mark = {image.fingerprint: image.name for image in before}
    shown = []
    for image, here in rewritten[:NAMED_AT_MOST]:
        other = by_mark.get(here.fingerprint)
        shown.append(f"{image.name} (now that of {other})" if other else image.name)
    return ", ".join(shown) + (", …" if len(rewritten) > NAMED_AT_MOST else "")


def _by_name(images: Iterable[Known]) -> dict[str, list[Known]]:
    """The images of each name."""
    found: dict[str, list[Known]] = {}
    for image in images:
        found.setdefault(image.name, []).append(image)
    return found


def _kind(images: Sequence[Known]) -> str:
    """`training image` where all are that, else `image`."""
    splits = {image.split for image in images}
    return f"{_kind_of(splits.pop())} image" if len(splits) == 1 else "image"


def _kind_of(split: Split) -> str:
    """What the images of a split are called."""
    return "training" if split == "train" else split


def _label(target: Any, labels: Sequence[str]) -> str:
    """A target in words."""
    if np.ndim(target) == 0:
        return labels[int(target)]
    names = "|".join(labels[int(i)] for i in np.flatnonzero(np.asarray(target) == 1))
    masked = "|".join(labels[int(i)] for i in np.flatnonzero(np.isnan(target)))
    return (names or "of no class") + (f" ({masked} not known)" if masked else "")


def _same(target: Any, other: Any) -> bool:
    """Whether two targets are the same, what is not known in them too."""
    then, now = (np.asarray(one, np.float32) for one in (target, other))
    return np.array_equal(then, now, equal_nan=True)


def _first(said: Sequence[str], kind: str) -> list[str]:
    """The first of these, and how many more there are."""
    rest = len(said) - NAMED_AT_MOST
    return [*said[:NAMED_AT_MOST], *([f"{rest:,} more {kind} differ"] if rest > 0 else [])]

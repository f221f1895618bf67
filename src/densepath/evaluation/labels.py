"""The classes of a data set found among a checkpoint's, by name: never shifted, never guessed."""

from __future__ import annotations

from collections.abc import Sequence

from densepath.choices import MissingClasses
from densepath.errors import LabelMismatchError
from densepath.text import normal_form
from densepath.weights.labels import imagenet_labels, imagenet_wnids
from densepath.wording import first_of

NAMED_AT_MOST = 5


def match_labels(
    found: Sequence[str],
    labels: Sequence[str],
    *,
    missing: MissingClasses = "refuse",
    named: bool = True,
) -> list[int]:
    """For each class of the data set, the position of the same class in the checkpoint.

    The names may come in any order. ImageNet's folder names (`n01440764`) stand for its classes
    when the checkpoint has ImageNet's labels. Where the data set has no names, as a list file
    without `label_list.txt`, its numbers stand for positions.

    Args:
        found: the data set's class names.
        labels: the checkpoint's, in the order of its logits.
        missing: whether the data set may lack classes of the checkpoint.
        named: whether the data set's class names are names.

    Raises:
        LabelMismatchError: the data set has a class that the checkpoint has not, or lacks some
            and that is refused. The message names them.
    """
    # A checkpoint may hold names as macOS writes them; those of a data set are in the form NFC.
    found, labels = [[normal_form(name) for name in names] for names in (found, labels)]
    names = _names_used(found, labels, named=named)
    positions = {name: position for position, name in enumerate(names)}
    extra = [name for name in found if name not in positions]
    absent = [name for name in names if name not in set(found)]
    if extra or (absent and missing == "refuse"):
        raise LabelMismatchError(_difference(found, labels, absent, extra))
    return [positions[name] for name in found]


def _names_used(found: Sequence[str], labels: Sequence[str], *, named: bool) -> Sequence[str]:
    """The checkpoint's classes under the kind of names that the data set uses."""
    if set(found) <= set(labels):
        return labels
    if list(labels) == imagenet_labels() and set(found) & set(imagenet_wnids()):
        return imagenet_wnids()
    return labels if named else [str(position) for position in range(len(labels))]


def _difference(
    found: Sequence[str], labels: Sequence[str], absent: list[str], extra: list[str]
) -> str:
    """What differs, and what to do about it."""
    parts = [
        f"the data set has {len(found)} classes and the checkpoint {len(labels)}, and they "
        "are not the same."
    ]
    if absent:
        parts.append(f"The data set lacks {first_of(list(map(repr, absent)), NAMED_AT_MOST)}.")
    if extra:
        parts.append(
            f"The checkpoint does not know {first_of(list(map(repr, extra)), NAMED_AT_MOST)}."
        )
    parts.append(
        "Rename the folders; or"
        if extra
        else "Add the missing folders (empty ones do); --missing-classes allow evaluates the "
        "classes that are there; or"
    )
    parts.append("choose the data set that the checkpoint was trained for.")
    return " ".join(parts)

"""Which split a folder's name, or a table's cell, speaks of: `Training`, `seg_test`, `val2017`."""

from __future__ import annotations

import re
from typing import NamedTuple

from densepath.data.dataset import Split

# What people and public data sets write, in lower case.
SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), "validation"
    ),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
# What stands beside such a word and says nothing: `train-set`, `images_train`, `TestData`.
PLAIN_WORDS = frozenset(
    [
        "set",
        "sets",
        "data",
        "dataset",
        "datasets",
        "split",
        "splits",
        "folder",
        "part",
        "image",
        "images",
        "img",
        "imgs",
        "photo",
        "photos",
        "picture",
        "pictures",
        "pics",
        "the",
        "of",
        "for",
        "new",
        "final",
    ]
)
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")


class Reading(NamedTuple):
    """What a name says: a split, and the words that belong to neither."""

    split: Split
    affix: tuple[str, ...]


def read_split_name(name: str) -> Reading | None:
    """The split that a name speaks of; None when it speaks of none, or of several."""
    words = [part for word in WORD.findall(name) for part in _parts(word.lower())]
    splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    if len(splits) != 1:
        return None
    rest = (word for word in words if word not in SPLIT_WORDS and word not in PLAIN_WORDS)
    return Reading(splits.pop(), tuple(rest))


def is_plain(name: str) -> bool:
    """Whether a folder's name says nothing: `dataset`, `images`."""
    words = WORD.findall(name.lower())
    return bool(words) and all(word in PLAIN_WORDS for word in words)


def _parts(word: str) -> list[str]:
    """`trainset` is `train` and `set`."""
    for split in SPLIT_WORDS:
        if word.startswith(split) and word[len(split) :] in PLAIN_WORDS:
            return [split, word[len(split) :]]
        if word.endswith(split) and word[: -len(split)] in PLAIN_WORDS:
            return [word[: -len(split)], split]
    return [word]

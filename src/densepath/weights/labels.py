"""The class names of ImageNet-1k, in the order of every published network's logits."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

# One `WNID name` a line. Source: timm 1.0.31 (Apache-2.0) `data/_info/imagenet_synsets.txt` and
# `imagenet_synset_to_lemma.txt`, whose names are WordNet 3.0's. WordNet calls two of the classes
# "crane"; here they are "crane (bird)" and "crane (machine)", so that every name is one class.
CLASSES_FILE = Path(__file__).with_name("imagenet_classes.txt")


@lru_cache(maxsize=1)
def _rows() -> tuple[tuple[str, str], ...]:
    """The WordNet id and the name of each class, in order."""
    lines = CLASSES_FILE.read_text(encoding="utf-8").splitlines()
    return tuple((wnid, name) for wnid, _, name in (line.partition(" ") for line in lines))


def imagenet_labels() -> list[str]:
    """The 1,000 names, as "tench, Tinca tinca"."""
    return [name for _, name in _rows()]


def imagenet_wnids() -> list[str]:
    """The 1,000 WordNet ids, as "n01440764": the names of the data set's own class folders."""
    return [wnid for wnid, _ in _rows()]


def known_labels(num_classes: int) -> list[str]:
    """Class names for weights that come without: ImageNet-1k's for 1,000, else numbers."""
    if num_classes == len(_rows()):
        return imagenet_labels()
    return [str(number) for number in range(num_classes)]

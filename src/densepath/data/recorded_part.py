"""The images of one split as a record keeps them: the name, label and fingerprint of each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Dataset
from densepath.data.fingerprint import Fingerprints


@dataclass(frozen=True)
class RecordedPart:
    """The images of one split, in their order.

    Attributes:
        names: of each, from where the data lies: the same wherever that is.
        targets: int64 [N], or float32 [N, classes] of a multi-label set.
        fingerprints: uint64 [N], equal for equal contents.
    """

    names: list[str]
    targets: NDArray[Any]
    fingerprints: Fingerprints

    @classmethod
    def of(
        cls, dataset: Dataset, bases: Sequence[Path], fingerprints: Fingerprints
    ) -> RecordedPart:
        """The part that `dataset` is; names begin below the longest of `bases` they lie in."""
        count = len(dataset)
        shape = (count, len(dataset.class_names)) if dataset.multi_label else (count,)
        targets = np.array([dataset.target(index) for index in range(count)]).reshape(shape)
        kind = np.float32 if dataset.multi_label else np.int64
        prefixes = _prefixes(bases)
        names = [_below(prefixes, dataset.path(index)) for index in range(count)]
        return cls(names, targets.astype(kind), fingerprints)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.names)


def _prefixes(bases: Iterable[Path]) -> list[str]:
    """How names below these folders begin, the longest first."""
    said = {f"{os.fspath(base)}{os.sep}" for base in bases if os.fspath(base) != "."}
    said |= {f"{Path(base).resolve()}{os.sep}" for base in bases}
    return sorted(said, key=len, reverse=True)


def _below(prefixes: Sequence[str], name: str) -> str:
    """`name` without the first of these that it begins with."""
    for prefix in prefixes:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name

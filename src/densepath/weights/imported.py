"""What a reader of an origin is asked, and what it answers; the types between `origins.py` and it.

Nothing here imports torch or NumPy: the command line's help reads `origins.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from densepath.images.preprocess import Preprocess
    from densepath.models.spec import ModelSpec
    from densepath.weights.published import Published


@dataclass(frozen=True)
class ImportRequest:
    """What the user says of a file.

    Attributes:
        model: the catalogue's model that it is of; None where the reader is to find out.
        source: the published weights that it is a copy or a relative of.
        weights: the file that holds the tensors, where the given one is the network alone and
            the other is not called like it.
    """

    model: ModelSpec | None = None
    source: Published | None = None
    weights: Path | None = None


@dataclass(frozen=True)
class Imported:
    """A network as a reader found it in a file.

    Attributes:
        origin: whose names or habits they are, a key of `weights/published.py:HABITS`; also the
            provenance's `names`.
        spec: the architecture, with `bn_eps` and `stem_pool` as in the file; where a file does not
            say them, as the origin has them.
        tensors: float32 under our names; `import_weights` checks them against `spec`.
        num_classes: the logits.
        in_channels: the channels of the images.
        labels: the class names; None where the file has none.
        preprocess: the way from an image to the input; None where the file does not say, which
            leaves it to the origin's habit.
        preprocess_from: what says the preprocessing, in words, as "what its inference.yml says".
        multi_label: every class is a yes or no of its own.
        thresholds: of a multi-label network, from which probability on a class is there.
        notes: what was left aside, guessed or fallen back to, in sentences.
        title: what the file is, for people, where the row's title says too little.
        file: the file of the tensors; None where it is the given one.
        backbone: it has no classifier; the one in `tensors` is of one class and empty.
    """

    origin: str
    spec: ModelSpec
    tensors: dict[str, Tensor]
    num_classes: int
    in_channels: int
    labels: list[str] | None = None
    preprocess: Preprocess | None = None
    preprocess_from: str = ""
    multi_label: bool = False
    thresholds: Sequence[float] | None = None
    notes: Sequence[str] = ()
    title: str = ""
    file: Path | None = None
    backbone: bool = False

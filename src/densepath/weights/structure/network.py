"""The DenseNet or DPN that a graph computes, of any numbers, under our names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from densepath.models.spec import ModelSpec
from densepath.weights.structure.graph import Graph


@dataclass(frozen=True)
class Normalisation:
    """What a graph does with its input before the first layer: x · scale + shift; float64 [C]."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class StructuredNetwork:
    """A network of ours, found in a graph.

    Attributes:
        spec: a catalogue's row with the switches of the file, or numbers of its own.
        tensors: float32 arrays under our names, exactly those of the plan.
        num_classes, in_channels: as the classifier and the first layer have them.
        multi_label: the graph ends in a sigmoid.
        size: height and width of the images, where the file fixes them.
        normalisation: of the input within the graph; None where there is none.
        notes: what was guessed, folded or left aside, in sentences.
    """

    spec: ModelSpec
    tensors: dict[str, np.ndarray]
    num_classes: int
    in_channels: int
    multi_label: bool
    size: tuple[int, int] | None
    normalisation: Normalisation | None
    notes: tuple[str, ...]


def network_of(graph: Graph, source: str) -> StructuredNetwork:
    """The network that the graph computes; `source` names the file in errors.

    Raises:
        KeyMismatchError: it is another kind of network, or one that our numbers cannot say; the
            message names the first node that does not fit, and what was expected there.
    """
    raise NotImplementedError

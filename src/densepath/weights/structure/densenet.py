"""The way along a DenseNet: every layer reads all of the map, and appends to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from densepath.models.spec import Stem
from densepath.weights.structure.attributes import misfit
from densepath.weights.structure.values import Ids, Source, same_channels
from densepath.weights.structure.walk import Found, Walk, only

ONE_LAYER = "in a DenseNet one layer reads it, whose outputs a Concat appends"


@dataclass(frozen=True)
class DenseNetNumbers:
    """What was counted on the way, beside the layers themselves."""

    blocks: tuple[int, ...]
    bottleneck: bool
    stem: Stem


def walk_densenet(walk: Walk) -> DenseNetNumbers:
    """Take all layers, from the first convolution to the classifier.

    Raises:
        KeyMismatchError: a node that no DenseNet has at its place.
    """
    stem = walk.stem()
    state, behind, ending = walk.behind_stem(stem)
    if ending == "relu":
        raise misfit(
            stem.node,
            "has a BatchNorm and ReLU behind it and no max-pool; our DenseNets for small images "
            "have neither behind their first convolution",
        )
    images = np.sort(walk.trace.images.channels)
    walk.found.append(Found(stem.node, walk.take(stem.channels, images), None, behind))
    blocks, depths = [0], set[bool]()
    while True:
        readers = walk.readers(state)
        if walk.head.mean in readers and len(readers) == 1:
            break
        layer = only(readers, state, walk, ONE_LAYER)
        if layer.kind == "average":
            state = _pooled_transition(walk, layer, state)
            blocks.append(0)
        elif layer.kind != "convolution":
            raise misfit(layer.node, f"reads the map of a block; {ONE_LAYER}")
        elif (average := _average_of(walk, layer)) is not None:
            _transition(walk, layer, state)
            state = average.channels[np.argsort(average.inputs[0].channels)]
            blocks.append(0)
        else:
            state = _dense_layer(walk, layer, state, depths)
            blocks[-1] += 1
    walk.finish(state)
    if len(depths) > 1:
        raise misfit(stem.node, "begins a network of dense layers with and without a bottleneck")
    stem_kind: Stem = "small" if ending == "raw" else "imagenet"
    return DenseNetNumbers(tuple(blocks), depths == {True}, stem_kind)


def _average_of(walk: Walk, layer: Source) -> Source | None:
    """The 2 × 2 average of a layer's raw outputs, which makes it a transition."""
    readers = walk.readers(layer.channels)
    if len(readers) == 1 and readers[0].kind == "average" and readers[0].inputs[0].is_plain():
        walk.averages.append(readers[0])
        return readers[0]
    return None


def _transition(walk: Walk, layer: Source, state: Ids) -> None:
    """Take a transition's convolution."""
    before = walk.read_through(layer, state)
    walk.found.append(Found(layer.node, walk.take(layer.channels, state), before))


def _pooled_transition(walk: Walk, average: Source, state: Ids) -> Ids:
    """Take a transition that averages before its convolution, which is the same; its outputs."""
    before = walk.read_through(average, state)
    readers = walk.readers(average.channels)
    layer = only(readers, average.channels, walk, "a 1 × 1 convolution should")
    if layer.kind != "convolution" or not layer.inputs[0].is_plain():
        raise misfit(layer.node, "stands where a transition's 1 × 1 convolution is expected")
    averaged = average.channels[_places_of(average, state)]
    walk.averages.append(average)
    walk.found.append(Found(layer.node, walk.take(layer.channels, averaged), before))
    return layer.channels


def _places_of(source: Source, state: Ids) -> Ids:
    """The places of the state's channels among those that a source reads."""
    own = source.inputs[0].channels
    order = np.argsort(own)
    return order[np.searchsorted(own[order], state)]


def _dense_layer(walk: Walk, layer: Source, state: Ids, depths: set[bool]) -> Ids:
    """Take a dense layer, with its bottleneck if it has one; the state with its outputs."""
    before = walk.read_through(layer, state)
    readers = walk.readers(layer.channels)
    bottleneck = (
        len(readers) == 1
        and readers[0].kind == "convolution"
        and layer.node.tensors["weight"].shape[2:] == (1, 1)
    )
    depths.add(bottleneck)
    if bottleneck:
        last = readers[0]
        behind = walk.read_through(last, layer.channels)
        walk.found.append(Found(layer.node, walk.take(layer.channels, state), before, behind))
        walk.found.append(Found(last.node, walk.take(last.channels, layer.channels)))
    else:
        last = layer
        walk.found.append(Found(layer.node, walk.take(layer.channels, state), before))
    grown = np.concatenate([state, last.channels])
    if not walk.readers(grown):
        reader = walk.some_reader(last.channels)
        node = last.node if reader is None else reader.node
        raise misfit(
            node,
            f"reads the outputs of {last.node.to_text()} without the {len(state)} channels that "
            "this layer read; a DenseNet concatenates them",
        )
    assert not same_channels(grown, state)
    return grown

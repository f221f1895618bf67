"""Caffe's `.caffemodel` files → `Imported`: the row's reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from densepath.errors import WeightsError
from densepath.images.preprocess import Preprocess
from densepath.weights.adapt import adapt_preprocess, first_layer
from densepath.weights.caffe.graph import DATA, graph_of
from densepath.weights.caffe.model import CaffeModel, Message, read_model
from densepath.weights.imported import Imported, ImportRequest
from densepath.weights.published import habit_of, habits
from densepath.weights.structure.network import StructuredNetwork, network_of
from densepath.weights.structure.preprocess import BLUE_FIRST, with_normalisation

COLOURS = 3


def read(path: Path, request: ImportRequest) -> Imported:
    """The network of a `.caffemodel`, found by the structure of its layers.

    Raises:
        KeyMismatchError: it is no DenseNet or DPN.
        WeightsError: it is damaged.
    """
    try:
        model = read_model(path.read_bytes())
        graph = graph_of(model)
    except (WeightsError, ValueError, OverflowError) as error:
        raise WeightsError(
            f"{path} cannot be read as a Caffe model: {error}. It is damaged, incomplete or of "
            "another kind: compare its size with the publisher's."
        ) from error
    network = network_of(graph, str(path))
    tensors = {name: torch.from_numpy(array.copy()) for name, array in network.tensors.items()}
    notes = [f"{note}." for note in network.notes]
    way, said_by = _preprocess(model, network, str(path))
    if network.in_channels == COLOURS:
        stem = first_layer(network.spec)
        tensors[stem] = tensors[stem].flip(1).contiguous()
        notes.append(f"{BLUE_FIRST}.")
    return Imported(
        origin="caffe",
        spec=network.spec,
        tensors=tensors,
        num_classes=network.num_classes,
        in_channels=network.in_channels,
        preprocess=way,
        preprocess_from=said_by,
        multi_label=network.multi_label,
        notes=notes,
    )


def _preprocess(
    model: CaffeModel, network: StructuredNetwork, source: str
) -> tuple[Preprocess, str]:
    """The way that the file's data layer or first layers tell, else the habit; and which.

    Mean and deviation are red first.
    """
    way = adapt_preprocess(habits("caffe", network.spec)[1], network.in_channels)
    if network.size is not None:
        way = way.at_size(network.size)
    said_by = f"guessed: {habit_of('caffe', network.spec)}"
    if network.normalisation is not None:
        way, said = with_normalisation(way, network, source, pixels=True)
    elif (told := _transform(model)) and (
        numbers := _mean_and_scale(told, network.in_channels)
    ) is not None:
        mean, scale = numbers
        deviation = (1 / (255 * scale),) * network.in_channels
        way = replace(way, mean=tuple(one / 255 for one in mean), std=deviation)
        said = "its data layer says mean and scale"
    else:
        return way, said_by
    return replace(
        way, mean=way.mean[::-1], std=way.std[::-1]
    ), f"{said}; the resizing is {said_by}"


def _transform(model: CaffeModel) -> Message | None:
    """What the data layer does with its images, where there is one that says so."""
    for layer in model.layers:
        if layer.kind in DATA and "transform" in layer.parameters:
            return layer.parameter("transform")
    return None


def _mean_and_scale(told: Message, channels: int) -> tuple[list[float], float] | None:
    """The mean a channel and the factor; None where the mean is in a file of its own."""
    mean, scale = told.floats(5), told.float(1, 1.0)
    if len(mean) not in (1, channels) or not scale > 0:
        return None
    return (mean * channels if len(mean) == 1 else mean), scale

"""ONNX files → `Imported`: the row's reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from densepath.images.preprocess import Preprocess
from densepath.weights.adapt import adapt_preprocess, first_layer
from densepath.weights.imported import Imported, ImportRequest
from densepath.weights.onnx_files.graph import PIXELS_NOTE, load_model, read_graph
from densepath.weights.published import habit_of, habits
from densepath.weights.structure.network import StructuredNetwork, network_of
from densepath.weights.structure.preprocess import BLUE_FIRST, with_normalisation

# Whose weights a file usually has, by the program that wrote it: a key of `published.HABITS`.
PRODUCERS = {
    "paddle": "paddle",
    "mindspore": "mindcv",
    "caffe": "caffe",
    "keras": "pytorch",
    "pytorch": "pytorch",
}


def read(path: Path, request: ImportRequest) -> Imported:
    """The network of an ONNX file, found by its structure.

    Raises:
        MissingPackageError: the package `onnx` is not installed.
        UnsafeFileError: it asks for a file outside its folder.
        KeyMismatchError: it is no DenseNet or DPN.
        WeightsError: it is damaged, or quantised.
    """
    model = load_model(path)
    graph = read_graph(model, path)
    network = network_of(graph, str(path))
    written_by = " ".join(filter(None, (model.producer_name, model.producer_version)))
    # Paddle2ONNX names no producer, but its graph "PaddlePaddle Graph in PIR mode".
    written_by = written_by or model.graph.name
    origin = next((own for word, own in PRODUCERS.items() if word in written_by.lower()), "pytorch")
    tensors = {name: torch.from_numpy(array.copy()) for name, array in network.tensors.items()}
    notes = [f"{note}." for note in network.notes]
    if origin == "caffe" and network.in_channels == 3:
        stem = first_layer(network.spec)
        tensors[stem] = tensors[stem].flip(1).contiguous()
        notes.append(f"{BLUE_FIRST}.")
    way, said_by = _preprocess(network, origin, str(path), pixels=PIXELS_NOTE in graph.notes)
    return Imported(
        origin=origin,
        spec=network.spec,
        tensors=tensors,
        num_classes=network.num_classes,
        in_channels=network.in_channels,
        preprocess=way,
        preprocess_from=said_by,
        multi_label=network.multi_label,
        notes=notes,
        title=f"an ONNX file ({written_by or 'of an unknown program'})",
    )


def _preprocess(
    network: StructuredNetwork, origin: str, source: str, *, pixels: bool
) -> tuple[Preprocess, str]:
    """The way that the file tells or its origin has, at the size that it fixes; and which."""
    way = adapt_preprocess(habits(origin, network.spec)[1], network.in_channels)
    if network.size is not None:
        way = way.at_size(network.size)
    said_by = f"guessed: {habit_of(origin, network.spec)}"
    if network.normalisation is None and not pixels:
        return way, said_by
    way, said = with_normalisation(way, network, source, pixels=pixels)
    if origin == "caffe" and network.in_channels == 3:
        way = replace(way, mean=way.mean[::-1], std=way.std[::-1])
    return way, f"{said}; the resizing is {said_by}"

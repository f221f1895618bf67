"""PaddleClas's inference models → `Imported`: the row's reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from densepath.errors import KeyMismatchError, WeightsError
from densepath.images.preprocess import Preprocess
from densepath.weights.adapt import first_layer
from densepath.weights.imported import Imported, ImportRequest
from densepath.weights.paddle_inference import pdmodel, pir
from densepath.weights.paddle_inference.config import InferenceConfig, read_config
from densepath.weights.paddle_inference.files import ModelFiles, find_parts, start_of
from densepath.weights.paddle_inference.graph import graph_of
from densepath.weights.paddle_inference.pdiparams import as_float32, read_tensors
from densepath.weights.paddle_inference.program import PaddleProgram
from densepath.weights.published import habits
from densepath.weights.structure.network import StructuredNetwork, network_of
from densepath.weights.structure.preprocess import behind, with_normalisation

# The largest program of the ten models has 1 MB.
MOST_PROGRAM_BYTES = 64 << 20


def read(path: Path, request: ImportRequest) -> Imported:
    """The network of an inference model, given by one of its files or its folder.

    Raises:
        KeyMismatchError: it is no DenseNet or DPN.
        WeightsError: a file is missing, damaged, or of another model.
    """
    parts = find_parts(path, request.weights)
    network = read_network(parts)
    config = InferenceConfig() if parts.config is None else read_config(parts.config, network.size)
    labels = _labels(config, network.num_classes)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in network.tensors.items()}
    said = _said_by(config, network, parts)
    config.preprocess = _preprocess(config, network, parts)
    if config.bgr:
        tensors, config.preprocess = _rgb_first(tensors, network, config)
    return Imported(
        origin="paddle",
        spec=network.spec,
        tensors=tensors,
        num_classes=network.num_classes,
        in_channels=network.in_channels,
        labels=labels,
        preprocess=config.preprocess,
        preprocess_from=said,
        multi_label=network.multi_label or config.multi_label,
        thresholds=_thresholds(config, network.num_classes),
        notes=[*(f"{note}." for note in network.notes), *(f"{note}." for note in config.notes)],
        title=_title(parts),
        file=parts.tensors,
    )


def read_network(parts: ModelFiles) -> StructuredNetwork:
    """The network of a program and its tensors.

    Raises:
        KeyMismatchError: it is no DenseNet or DPN.
        WeightsError: a file is damaged, or they are of two models.
    """
    program = _read_program(parts.program)
    try:
        tensors = read_tensors(parts.tensors.read_bytes(), program.parameters)
    except (WeightsError, ValueError, OverflowError) as error:
        raise WeightsError(f"{parts.tensors} does not fit {parts.program}: {error}.") from error
    try:
        graph = graph_of(program, as_float32(tensors.items()))
    except WeightsError as error:
        raise WeightsError(f"{parts.program} is no network that can be read: {error}.") from error
    return network_of(graph, str(parts.program))


def _read_program(path: Path) -> PaddleProgram:
    """The program of a file of either form.

    Raises:
        WeightsError: it is damaged, or no program.
    """
    start = start_of(path)
    if path.stat().st_size > MOST_PROGRAM_BYTES:
        raise WeightsError(f"{path} has more than {MOST_PROGRAM_BYTES:,} bytes; a program has few.")
    if not (pir.is_pir(start) or pdmodel.is_pdmodel(start)):
        raise WeightsError(f"{path} is no program of Paddle: neither a .pdmodel nor a .json of it.")
    reader = pir if pir.is_pir(start) else pdmodel
    try:
        return reader.read_program(path.read_bytes())
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be read as a Paddle program: {error}.") from error


def _title(parts: ModelFiles) -> str:
    """What the model is, for people."""
    form = "Paddle 3" if pir.is_pir(start_of(parts.program)) else "Paddle 2"
    return f"a PaddleClas inference model of {form} ({parts.program.name}, {parts.tensors.name})"


def _labels(config: InferenceConfig, num_classes: int) -> list[str] | None:
    """The class names in order; None, said, where the list is one of another network."""
    if config.labels is None:
        return None
    if sorted(config.labels) != list(range(num_classes)):
        config.notes.append(
            f"its list of {len(config.labels)} labels is not one of {num_classes} classes, and is "
            "left out"
        )
        return None
    return [config.labels[number] for number in range(num_classes)]


def _thresholds(config: InferenceConfig, num_classes: int) -> Sequence[float] | None:
    """One threshold a class.

    Raises:
        KeyMismatchError: there are as many as another network has classes.
    """
    given = config.threshold
    if given is None:
        return None
    if isinstance(given, float):
        return [given] * num_classes
    if len(given) != num_classes:
        raise KeyMismatchError(f"inference.yml has {len(given)} thresholds for {num_classes}")
    return given


def _preprocess(
    config: InferenceConfig, network: StructuredNetwork, parts: ModelFiles
) -> Preprocess | None:
    """The preprocessing that is said, or the habit at the size that the network fixes.

    What the program does to its input comes behind what `inference.yml` does, or stands for the
    habit's mean and deviation.

    Raises:
        KeyMismatchError: it turns values around, which no mean and deviation do.
    """
    way = config.preprocess
    if way is None and (network.size is not None or network.normalisation is not None):
        way = habits("paddle", network.spec)[1]
        way = way if network.size is None else way.at_size(network.size)
    if way is None or network.normalisation is None:
        return way
    if config.preprocess is None:
        return with_normalisation(way, network, str(parts.program), pixels=False)[0]
    return behind(way, network.normalisation, str(parts.program))


def _said_by(config: InferenceConfig, network: StructuredNetwork, parts: ModelFiles) -> str:
    """Where the preprocessing is from, in words."""
    own = "" if network.normalisation is None else ", and what its program does to its input"
    if config.preprocess is not None and parts.config is not None:
        return f"what its {parts.config.name} says{own}"
    return f"guessed: what PaddleClas's weights usually take, at the size in the file{own}"


def _rgb_first(
    tensors: dict[str, Tensor], network: StructuredNetwork, config: InferenceConfig
) -> tuple[dict[str, Tensor], Preprocess | None]:
    """The same network for images of red first, and its preprocessing."""
    name = first_layer(network.spec)
    turned = {**tensors, name: tensors[name].flip(1).contiguous()}
    config.notes.append(
        "its images have blue first; the first layer's channels are turned to red first"
    )
    way = config.preprocess
    if way is None:
        return turned, None
    return turned, replace(way, mean=way.mean[::-1], std=way.std[::-1])

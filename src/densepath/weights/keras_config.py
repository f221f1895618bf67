"""Keras: what the configuration in a `.keras` or `.h5` file says; it is read as JSON, never built.

A whole model has it: ε, the input's size, how the last layer ends, which layers stand before and
behind the DenseNet. Layers are looked at by their kinds' names; of a Lambda layer nothing is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from densepath.errors import KeyMismatchError, UsageError, WeightsError
from densepath.images.preprocess import Preprocess
from densepath.wording import first_of

CONTAINERS = ("Functional", "Model", "Sequential")
# What a DenseNet of keras.applications is made of, and a head that adds nothing but a classifier.
_PARTS = {
    *("InputLayer", "ZeroPadding2D", "Conv2D", "BatchNormalization", "Activation", "ReLU"),
    *("MaxPooling2D", "Concatenate", "AveragePooling2D", "GlobalAveragePooling2D", "Dense"),
    *("Flatten", "Softmax"),
}
# Layers that do something while training only.
_INACTIVE = re.compile(
    r"(?:Spatial|Alpha|Gaussian)?Dropout(?:2D)?|GaussianNoise|Random\w+|ActivityRegularization"
)
_AFFINE = ("Rescaling", "Normalization")
_SAID_ACTIVATIONS = {"sigmoid": True, "softmax": False}
_ACTIVATIONS = ("relu", "linear", *_SAID_ACTIVATIONS)
_MOST_DEPTH = 8


@dataclass(frozen=True)
class KerasLayer:
    """A layer of a configuration.

    Attributes:
        kind: its class, as `Conv2D`.
        name: its own.
        options: its configuration.
        place: where a `.weights.h5` has its arrays, as `layers/conv2d_3`.
    """

    kind: str
    name: str
    options: dict[str, Any]
    place: str


def read_config(text: str, source: str) -> list[KerasLayer]:
    """The layers of a configuration, those inside of others in their place.

    Raises:
        WeightsError: it is no configuration of Keras's.
    """
    try:
        return list(_layers(json.loads(text), "", 0))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{source}: its configuration cannot be read ({type(error).__name__}: {error})."
        ) from error


def _layers(model: dict[str, Any], place: str, depth: int) -> Iterator[KerasLayer]:
    """The layers of a model in the order of `model.layers`, numbered as Keras's saving does."""
    config = model["config"]
    # A Sequential of Keras before 2.2.3 is the list of its layers.
    inner = config if isinstance(config, list) else config.get("layers", [])
    if depth > _MOST_DEPTH:
        raise ValueError("models in models")
    used: dict[str, int] = {}
    for layer in inner:
        kind, options = str(layer["class_name"]), layer["config"]
        key = _snake_case(kind)
        used[key] = used.get(key, -1) + 1
        own = f"{place}layers/{key}" + (f"_{used[key]}" if used[key] else "")
        if kind in CONTAINERS:
            yield from _layers(layer, f"{own}/", depth + 1)
        else:
            yield KerasLayer(kind, str(options.get("name", "")), dict(options), own)


def _snake_case(kind: str) -> str:
    """`BatchNormalization` as `batch_normalization`, `Conv2D` as `conv2d`."""
    split = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", split).lower()


def names_of(layers: list[KerasLayer]) -> dict[str, str]:
    """The layers' names by the paths of their arrays."""
    return {f"{layer.place}/vars": layer.name for layer in layers}


def epsilon(layers: list[KerasLayer], source: str) -> float | None:
    """ε of every BatchNorm of the network, its head's aside; None where there is none.

    Raises:
        KeyMismatchError: they differ.
        WeightsError: it is no number.
    """
    try:
        found = {
            float(layer.options.get("epsilon", 1e-3))
            for layer in layers[: _last_of_network(layers)]
            if layer.kind == "BatchNormalization"
        }
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{source}: the ε of a BatchNorm is no number.") from error
    if len(found) > 1:
        raise KeyMismatchError(
            f"{source}: the BatchNorms have different ε ({first_of(sorted(found))}); a DenseNet of "
            "ours has one for all."
        )
    return next(iter(found), None)


def multi_label(layers: list[KerasLayer]) -> bool | None:
    """Whether the last layer ends in sigmoid (True) or softmax (False); None where in neither."""
    for layer in reversed(layers):
        if layer.kind in ("Softmax", "Dense", "Activation"):
            said = layer.options.get("activation", "softmax" if layer.kind == "Softmax" else None)
            name = said.get("config", said) if isinstance(said, dict) else said
            if str(name) in _SAID_ACTIVATIONS:
                return _SAID_ACTIVATIONS[str(name)]
            if layer.kind == "Dense":
                return None
    return None


def check_parts(layers: list[KerasLayer], source: str) -> tuple[list[str], list[str]]:
    """The layers in front of a DenseNet, and those behind it, that are no part of one.

    Raises:
        KeyMismatchError: one between its first and last that makes it another network.
    """
    first = next((i for i, layer in enumerate(layers) if layer.kind == "Conv2D"), 0)
    last = _last_of_network(layers)
    if odd := _odd(layers[first:last]):
        raise KeyMismatchError(
            f"{source}: {first_of(odd)} is no part of a DenseNet: its answers would be others."
        )
    before = [layer for layer in layers[:first] if layer.kind not in _AFFINE]
    return _odd(before), _odd(layers[last:])


def _last_of_network(layers: list[KerasLayer]) -> int:
    """Behind which of the layers the head begins: the BatchNorm `bn`, else the last convolution."""
    ends = [i for i, layer in enumerate(layers) if layer.name == "bn"]
    ends = ends or [i for i, layer in enumerate(layers) if layer.kind == "Conv2D"]
    return ends[-1] + 1 if ends else len(layers)


def _odd(layers: list[KerasLayer]) -> list[str]:
    """Those that are neither a DenseNet's nor a plain head's, with their kinds."""
    return [f"{layer.name} ({layer.kind})" for layer in layers if not _is_part(layer)]


def _is_part(layer: KerasLayer) -> bool:
    """Whether a layer is one of a DenseNet's kinds, or does nothing outside of training."""
    if layer.kind == "Activation" and layer.options.get("activation") not in _ACTIVATIONS:
        return False
    return layer.kind in _PARTS or _INACTIVE.fullmatch(layer.kind) is not None


def input_size(layers: list[KerasLayer]) -> tuple[int, int] | None:
    """Height and width of the images; None where it takes any."""
    for layer in layers:
        shape = layer.options.get("batch_shape") or layer.options.get("batch_input_shape")
        if isinstance(shape, list) and len(shape) == 4:
            sides = tuple(shape[1:3])
            if all(type(side) is int and 0 < side < 10_000 for side in sides):
                return sides[0], sides[1]
            return None
    return None


def own_preprocess(
    layers: list[KerasLayer],
    weights: dict[str, dict[str, np.ndarray]],
    size: tuple[int, int],
    channels: int,
    source: str,
) -> Preprocess | None:
    """The preprocessing of the layers Rescaling and Normalization; None where it has neither.

    Args:
        layers: of the configuration.
        weights: the arrays of other layers than the network's, by the layers' names.
        size, channels: of the images.
        source: the file, for messages.

    Raises:
        WeightsError: their numbers are none that a preprocessing can have.
    """
    chain = [layer for layer in layers if layer.kind in _AFFINE]
    if not chain:
        return None
    scale, offset = np.ones(channels), np.zeros(channels)
    try:
        for layer in chain:
            a, b = _affine(layer, weights)
            scale, offset = scale * a, offset * a + b
        std = 1 / (255 * scale)
        mean = -offset * std
        return Preprocess(
            size,
            interpolation="cv2_bilinear",
            mean=tuple(map(float, mean)),
            std=tuple(map(float, std)),
        )
    except (TypeError, ValueError, LookupError, ZeroDivisionError, UsageError) as error:
        raise WeightsError(
            f"{source}: the numbers of {first_of([layer.name for layer in chain])} make no "
            f"preprocessing: {error}"
        ) from error


def _affine(
    layer: KerasLayer, weights: dict[str, dict[str, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """The a and b of a layer that makes a · x + b of x, a value each or one a channel."""
    if layer.kind == "Rescaling":
        return np.ravel(np.float64(layer.options["scale"])), np.ravel(
            np.float64(layer.options.get("offset", 0))
        )
    held = weights.get(layer.name, {})
    mean, variance = (
        np.ravel(np.float64(held[name] if layer.options.get(name) is None else layer.options[name]))
        for name in ("mean", "variance")
    )
    std = np.sqrt(variance)
    return 1 / std, -mean / std

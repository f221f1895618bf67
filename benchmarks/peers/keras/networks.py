"""The networks of `keras.applications`, of Keras 3 and of tf-keras 2, filled by formula."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import formula_logits  # noqa: F401  (densepath's sources on the path)

from densepath.models.catalogue import find_spec
from densepath.models.spec import DenseNetArch, ModelSpec
from densepath.weights.formula import formula_tensor
from densepath.weights.keras_names import key_map
from densepath.weights.match import expected_shapes

MODELS = ("densenet121", "densenet169", "densenet201")
PACKAGES = {"keras3": "keras", "keras2": "tf_keras"}
# A network of the same structure that is small enough to be committed.
SMALL = ModelSpec("small", DenseNetArch(2, (2, 1), 4), 64, "a test's")
EPSILON = 1.001e-5  # as in keras.applications
# The order of a layer's variables: all that is trained, then the statistics.
ORDER = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


def package(version: str) -> Any:
    """Keras 3, or tf-keras 2."""
    return importlib.import_module(PACKAGES[version])


def build(version: str, model: str, activation: str | None) -> Any:
    """The network of keras.applications with 1,000 classes and the formula's values."""
    name = model.replace("densenet", "DenseNet")
    make = getattr(package(version).applications, name)
    network = make(weights=None, classifier_activation=activation)
    return fill(network, find_spec(model), 1000)


def build_small(
    version: str, activation: str | None, *, tuned: bool = False, top: bool = True
) -> Any:
    """A small network of Keras's own blocks with the formula's values, of 3 classes.

    Args:
        version: `keras3` or `keras2`.
        activation: of the last layer.
        tuned: it is a backbone inside a Sequential, behind Rescaling, before Dropout and Dense.
        top: it has a classifier.
    """
    keras, arch = package(version), SMALL.arch
    blocks = importlib.import_module(f"{PACKAGES[version]}.src.applications.densenet")
    layers, stem = keras.layers, "conv1/" if version == "keras2" else "conv1_"
    side = SMALL.input_size
    images = keras.Input((side, side, 3))
    x = layers.ZeroPadding2D(3)(images)
    x = layers.Conv2D(arch.stem_width, 7, strides=2, use_bias=False, name=f"{stem}conv")(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{stem}bn")(x)
    x = layers.Activation("relu", name=f"{stem}relu")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(layers.ZeroPadding2D(1)(x))
    for stage, count in enumerate(arch.blocks, start=2):
        for number in range(1, count + 1):
            x = blocks.conv_block(x, arch.growth_rate, name=f"conv{stage}_block{number}")
        if stage <= len(arch.blocks):
            x = blocks.transition_block(x, arch.compression, name=f"pool{stage}")
    x = layers.BatchNormalization(epsilon=EPSILON, name="bn")(x)
    x = layers.Activation("relu", name="relu")(x)
    if top and not tuned:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dense(3, activation=activation, name="predictions")(x)
    network = keras.Model(images, x, name="densenet")
    if not tuned:
        return fill(network, SMALL, 3 if top else None)
    fill(network, SMALL, None)
    head = layers.Dense(3, activation=activation)
    pooled = [layers.GlobalAveragePooling2D(), layers.Dropout(0.2)]
    scaled = layers.Rescaling(1 / 127.5, offset=-1)
    whole = keras.Sequential([keras.Input((side, side, 3)), scaled, network, *pooled, head])
    values = formula_values(SMALL, 3)
    head.set_weights([values["classifier.weight"].T, values["classifier.bias"]])
    return whole


def formula_values(spec: ModelSpec, classes: int) -> dict[str, np.ndarray]:
    """The formula's value of each of our tensors."""
    shapes = expected_shapes(spec, classes, 3)
    return {name: formula_tensor(name, shape) for name, shape in shapes.items()}


def fill(network: Any, spec: ModelSpec, classes: int | None) -> Any:
    """The network with the formula's values: every variable has one, every value a variable."""
    values = formula_values(spec, classes or 1)
    by_layer: dict[str, dict[str, np.ndarray]] = {}
    for ours, (theirs,) in key_map(spec, "predictions" if classes else None).items():
        layer, leaf = theirs.rsplit("/", 1)
        axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[values[ours].ndim]
        by_layer.setdefault(layer, {})[leaf] = values[ours].transpose(axes)
    for layer in network.layers:
        own = by_layer.pop(layer.name.replace("/", "_"), {})
        if len(own) != len(layer.weights):
            raise SystemExit(f"{layer.name} has {len(layer.weights)} variables, not {len(own)}")
        layer.set_weights([own[leaf] for leaf in ORDER if leaf in own])
    if by_layer:
        raise SystemExit(f"no layers {list(by_layer)[:5]}")
    return network


def run(network: Any, images: np.ndarray) -> np.ndarray:
    """Images [N, C, H, W] → what the network answers."""
    return np.asarray(network(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), training=False))

"""A float network → the INT8 file of our own kernels (`kernels/int8.hpp`).

On the line: calibration images and a Checkpoint go in, `model-int8.safetensors` comes out, which
`engines/native.py` opens without torch. Every number that the kernels use is made here, once.

What makes it accurate: the map of features stays float32, so that errors do not pile up from layer
to layer; every channel of an activation has a scale of its own, which goes into the weights before
they are rounded; a weight's rounding counts by the mean square of what it multiplies; and the mean
of what rounding changes goes into the bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.files import write_atomically
from densepath.images.preprocess import Preprocess
from densepath.models.fold import scale_and_shift
from densepath.models.plan import Layer, plan
from densepath.names import to_json
from densepath.quantize.calibration import Calibration
from densepath.quantize.layers import choose_layers
from densepath.quantize.observer import HIGHEST_LEVEL, Observer, RangeMethod, check_method
from densepath.quantize.statistics import observe_inputs, quant_layers
from densepath.quantize.task import Task, Written
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.checkpoint_file import INT8_FORMAT, METADATA_KEY

__all__ = ["METHODS", "measure_ranges", "write_native"]

METHODS: tuple[RangeMethod, ...] = ("minmax", "percentile", "mse")
FILE_NAME = "model-int8.safetensors"  # in a bundle
MOST_WEIGHT = 127
# The least range of a channel, of the widest of its layer: it may be silent on the images only.
LEAST_RANGE = 0.01
# What is tried of the largest weight of an output as the one that 127 stands for.
TRIED = np.linspace(0.6, 1.0, 17)

Array = NDArray[np.float64]
Tensors = dict[str, NDArray[Any]]


def write(task: Task, methods: Sequence[str]) -> Iterator[Written]:
    """Write the form by each of the methods, into folders of the task's."""
    kept = set(task.kept_names())
    for method, tensors in _quantise_by(task.checkpoint, task.calibration, methods, kept).items():
        folder = task.folder(f"native-{method}")
        _save(folder / FILE_NAME, tensors, task.checkpoint, task.calibration, method, kept)
        yield method, folder, {"model": FILE_NAME}


def measure_ranges(
    checkpoint: Checkpoint, calibration: Calibration, *, method: str = "mse"
) -> dict[str, NDArray[np.float32]]:
    """The limits [C] of the input's channels, the least 0, for each convolution but the stem.

    Args:
        checkpoint: the network.
        calibration: the images to measure on.
        method: of `METHODS`: the largest value, a percentile, or the least mean square error.

    Raises:
        UnknownNameError: no such method.
    """
    chosen = check_method(method, METHODS)
    found = observe_inputs(checkpoint, calibration)
    return {name: one.limits(chosen)[1].astype(np.float32) for name, one in found.items()}


def write_native(
    checkpoint: Checkpoint,
    path: str | Path,
    *,
    calibration: Calibration,
    method: str = "mse",
    keep_float: Iterable[str] = (),
) -> None:
    """Write the network in INT8 to `path`; the layers `keep_float` stay as they are.

    Raises:
        UnknownNameError: no such method, or no such layer.
        OutputError: the file cannot be written.
    """
    chosen = check_method(method, METHODS)
    kept = {layer.name for layer in choose_layers(checkpoint.spec, set(keep_float))}
    made = _quantise_by(checkpoint, calibration, [chosen], kept)
    _save(Path(path), made[chosen], checkpoint, calibration, chosen, kept)


def _save(
    path: Path,
    tensors: Tensors,
    checkpoint: Checkpoint,
    calibration: Calibration,
    method: RangeMethod,
    kept: set[str],
) -> None:
    """Write the file."""
    from safetensors.numpy import save_file

    names = [layer.name for layer in plan(checkpoint.spec)]
    description = checkpoint._describe() | {
        "format": INT8_FORMAT,
        "quantization": {
            "method": method,
            "calibration": calibration.description,
            "calibration_sha256": calibration.digest(),
            "int8": [name for name in names if name not in kept],
            "float32": sorted(kept),
        },
    }
    text = to_json(description, sort_keys=True)
    with write_atomically(path) as temporary:
        save_file(tensors, str(temporary), metadata={METADATA_KEY: text})


def _quantise_by(
    checkpoint: Checkpoint, calibration: Calibration, methods: Sequence[str], kept: set[str]
) -> dict[RangeMethod, Tensors]:
    """The tensors of the file by each method; the activations are measured once for all."""
    chosen = [check_method(method, METHODS) for method in methods]
    found = observe_inputs(checkpoint, calibration)
    return {method: _quantise(checkpoint, found, method, kept) for method in chosen}


def _quantise(
    checkpoint: Checkpoint, found: dict[str, Observer], method: RangeMethod, kept: set[str]
) -> Tensors:
    """The tensors of the file: of INT8 layers their numbers, of others what they were."""
    network = _Floats(checkpoint)
    made: Tensors = {}
    used: set[str] = set()
    stem = plan(checkpoint.spec)[0]
    if stem.name not in kept:
        made |= _quantise_stem(network, stem, checkpoint.preprocess)
        used |= {stem.name, stem.behind}
    for layer in quant_layers(checkpoint.spec):
        if layer.name not in kept:
            made |= _quantise_layer(network, layer, found[layer.name], method)
            used |= {layer.name, layer.before, layer.behind}
    if "classifier" not in kept:
        made |= _quantise_classifier(network)
        used.add("classifier")
    for name, tensor in network.tensors.items():
        if name.rpartition(".")[0] not in used:
            made[name] = tensor
    return made


class _Floats:
    """A checkpoint's tensors as NumPy's, and its BatchNorms as factors and summands."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tensors = {name: one.float().numpy() for name, one in checkpoint.tensors.items()}
        self._eps = checkpoint.spec.arch.bn_eps

    def norm(self, name: str) -> tuple[Array, Array]:
        """A BatchNorm's scale and shift."""
        weight, bias, mean, variance = (
            self.tensors[f"{name}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return scale_and_shift(weight, bias, mean, variance, self._eps)

    def folded(self, layer: Layer) -> tuple[Array, Array]:
        """Weights [O, I, kh, kw] and bias [O], with the BatchNorm behind."""
        weight = self.tensors[f"{layer.name}.weight"].astype(np.float64)
        if not layer.behind:
            return weight, np.zeros(len(weight))
        scale, shift = self.norm(layer.behind)
        return weight * scale[:, None, None, None], shift


@dataclass(frozen=True)
class _Rounded:
    """weight [O, I, kh, kw] of 8 bits, what one of its levels is worth [O], and the bias [O]."""

    weight: NDArray[np.int8]
    scale: Array
    bias: Array

    def tensors(self, name: str, input_scale: Array, input_shift: Array) -> Tensors:
        """The numbers by their names in the file."""
        return {
            f"{name}.weight": self.weight,
            f"{name}.scale": self.scale.astype(np.float32),
            f"{name}.bias": self.bias.astype(np.float32),
            f"{name}.input_scale": input_scale.astype(np.float32),
            f"{name}.input_shift": input_shift.astype(np.float32),
        }


def _quantise_layer(
    network: _Floats, layer: Layer, found: Observer, method: RangeMethod
) -> Tensors:
    """A convolution that reads levels ≥ 0."""
    _, limits = found.limits(method)
    widest = limits.max()
    step = np.maximum(limits, LEAST_RANGE * widest if widest > 0 else 1.0) / HIGHEST_LEVEL
    weight, bias = network.folded(layer)
    channels = _inputs_of_outputs(weight, len(step))
    mean, square = found.mean / step, found.mean_square / step**2
    rounded = _round(
        weight * step[channels][:, :, None, None], bias, mean[channels], square[channels]
    )
    scale, shift = (
        network.norm(layer.before) if layer.before else (np.ones(len(step)), np.zeros(len(step)))
    )
    return rounded.tensors(layer.name, scale / step, shift / step)


def _inputs_of_outputs(weight: Array, channels: int) -> NDArray[np.int64]:
    """[O, I]: the channel that each weight multiplies, of a convolution in groups or whole."""
    outputs, inputs = weight.shape[:2]
    groups = channels // inputs
    first = np.arange(outputs) // (outputs // groups) * inputs
    return first[:, None] + np.arange(inputs)


def _round(weight: Array, bias: Array, mean: Array, square: Array) -> _Rounded:
    """Weights [O, I, kh, kw] for inputs of this `mean` and mean `square` [O, I] in 8 bits."""
    importance = square[:, :, None, None] + 1e-9
    most = np.abs(weight).max((1, 2, 3))
    most = np.where(most > 0, most, 1.0)
    best, least = most, np.full(len(weight), np.inf)
    for part in TRIED:
        error = _levels(weight, part * most) * (part * most / MOST_WEIGHT)[:, None, None, None]
        error = (np.square(error - weight) * importance).sum((1, 2, 3))
        best = np.where(error < least, part * most, best)
        least = np.minimum(error, least)
    scale = best / MOST_WEIGHT
    levels = _levels(weight, best)
    changed = levels * scale[:, None, None, None] - weight
    return _Rounded(
        levels.astype(np.int8), scale, bias - (changed * mean[:, :, None, None]).sum((1, 2, 3))
    )


def _levels(weight: Array, most: Array) -> Array:
    """The nearest levels of −127…127, of which 127 stands for `most` [O]."""
    levels = np.rint(weight * (MOST_WEIGHT / most)[:, None, None, None])
    return np.clip(levels, -MOST_WEIGHT, MOST_WEIGHT)


def _quantise_stem(network: _Floats, layer: Layer, preprocess: Preprocess) -> Tensors:
    """The first convolution. Its levels are the pixels themselves: an image loses nothing.

    0 of a normalised image, which the border holds, is the pixel `zero`, whole but for rounding.
    """
    std, mean = np.array(preprocess.std), np.array(preprocess.mean)
    step, zero = 1 / (HIGHEST_LEVEL * std), HIGHEST_LEVEL * mean
    weight, bias = network.folded(layer)
    spread = np.full(len(mean), 128.0**2)
    channels = _inputs_of_outputs(weight, len(mean))
    rounded = _round(
        weight * step[channels][:, :, None, None], bias, 0 * spread[channels], spread[channels]
    )
    taken = rounded.weight.astype(np.float64).sum((2, 3)) @ zero * rounded.scale
    return _Rounded(rounded.weight, rounded.scale, rounded.bias - taken).tensors(
        layer.name, 1 / step, zero
    )


def _quantise_classifier(network: _Floats) -> Tensors:
    """The last layer; its inputs get 16 bits when they are known."""
    weight = network.tensors["classifier.weight"].astype(np.float64)[:, :, None, None]
    ones = np.ones(weight.shape[:2])
    bias = network.tensors["classifier.bias"].astype(np.float64)
    rounded = _round(weight, bias, 0 * ones, ones)
    return {
        "classifier.weight": rounded.weight[:, :, 0, 0].copy(),
        "classifier.scale": rounded.scale.astype(np.float32),
        "classifier.bias": bias.astype(np.float32),
    }

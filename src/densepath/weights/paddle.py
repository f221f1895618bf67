"""PaddleClas: `.pdparams` files and the names of its DenseNet and DPN.

Source of the names: PaddleClas 2.6 `ppcls/arch/backbone/model_zoo/densenet.py` and `dpn.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densepath.errors import WeightsError
from densepath.models.plan import Layer, parts, units
from densepath.models.spec import ModelSpec
from densepath.weights.key_map import KeyMap, ModulePair, join_names
from densepath.weights.unpickle import read_pickle

STEMS = {"densenet": "conv1_func", "dpn": "conv1_x_1_func"}
LAST_NORMS = {"densenet": "batch_norm", "dpn": "conv5_x_x_bn"}
NORM_LEAVES = ("weight", "bias", "_mean", "_variance")
TRANSPOSED = ("classifier.weight",)  # Paddle's Linear stores [inputs, outputs]
STRUCTURE_KEY = "StructuredToParameterName@@"
BIG_ARRAYS_KEY = "UnpackBigParamInfor@@"


def read_pdparams(path: Path) -> Any:
    """What a `.pdparams` file, or another pickle of arrays, holds.

    Raises:
        UnsafeFileError: the file asks for code to be run.
        WeightsError: it is no such file, or is damaged.
    """
    values = read_pickle(path.read_bytes(), str(path))
    if isinstance(values, dict):
        values.pop(STRUCTURE_KEY, None)
        _join_slices(values, path)
        return {name: _float_bits(value) for name, value in values.items()}
    return values


def _join_slices(values: dict[str, Any], path: Path) -> None:
    """Join arrays above 1 GiB, which Paddle cuts into slices."""
    cut = values.pop(BIG_ARRAYS_KEY, None)
    for name, info in dict.items(cut) if isinstance(cut, dict) else ():
        try:
            slices = [values.pop(key) for key in info["slices"]]
            whole = np.concatenate([np.ravel(part) for part in slices])
            values[name] = whole.reshape(tuple(info["OriginShape"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path}: the slices of {name!r} do not fit: {error}") from error


def _float_bits(array: Any) -> Any:
    """bfloat16, which Paddle stores as uint16, as float32; others as they are."""
    if not isinstance(array, np.ndarray) or array.dtype != np.uint16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)


def key_map(spec: ModelSpec) -> KeyMap:
    """PaddleClas's name of each tensor of a network."""
    return join_names(_pairs(spec), NORM_LEAVES)


def _pairs(spec: ModelSpec) -> Iterator[ModulePair]:
    """Our modules with PaddleClas's, which keeps a convolution and its BatchNorm in one layer."""
    num_blocks = 0
    for layers in parts(spec):
        num_blocks += layers[-1].writes == "adds"
        for place, (layer, norm) in enumerate(units(layers), start=1):
            if layer.kind == "classifier":
                yield norm, (LAST_NORMS[spec.family],)
                yield layer.name, ("out",)
                continue
            theirs = _layer_name(spec, layers, layer, place, num_blocks)
            if norm:
                yield norm, (f"{theirs}._batch_norm",)
            yield layer.name, (f"{theirs}._conv",)


def _layer_name(
    spec: ModelSpec, layers: Sequence[Layer], layer: Layer, place: int, block: int
) -> str:
    """The name of the `place`-th layer of its part, in the `block`-th block of a DPN."""
    stage, last = layer.stage + 1, layers[-1]
    if layer.reads == "images":
        return STEMS[spec.family]
    if last.averaged:
        return f"tr_conv{stage}_blk.conv_ac_func"
    if last.writes == "adds":
        return f"dpn{block}.{layer.name.split('.')[-2]}_func"
    number = layer.part.rpartition("denselayer")[2]
    return f"db_conv_{stage}.conv{stage}_{number}.bn_ac_func{place}"

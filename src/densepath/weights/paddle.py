"""PaddleClas: `.pdparams` files and the names of its DenseNet and DPN.

Source of the names: PaddleClas 2.6 `ppcls/arch/backbone/model_zoo/densenet.py` and `dpn.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from densepath.errors import WeightsError
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from densepath.weights.key_map import KeyMap, ModulePair, join_names
from densepath.weights.unpickle import read_pickle

STEMS = ("conv1_func.", "conv1_x_1_func.")
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
    """Arrays above 1 GiB, which Paddle cuts into slices, are whole again."""
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
    arch = spec.arch
    pairs = _densenet(arch) if isinstance(arch, DenseNetArch) else _dpn(arch)
    return join_names(pairs, NORM_LEAVES)


def _densenet(arch: DenseNetArch) -> Iterator[ModulePair]:
    yield from _unit("features", "conv0", "norm0", "conv1_func")
    for i, num_layers in enumerate(arch.blocks, start=1):
        for j in range(1, num_layers + 1):
            for t in (1, 2):
                yield from _unit(
                    f"features.denseblock{i}.denselayer{j}",
                    f"conv{t}",
                    f"norm{t}",
                    f"db_conv_{i + 1}.conv{i + 1}_{j}.bn_ac_func{t}",
                )
        if i < len(arch.blocks):
            theirs = f"tr_conv{i + 1}_blk.conv_ac_func"
            yield from _unit(f"features.transition{i}", "conv", "norm", theirs)
    yield "features.norm5", ("batch_norm",)
    yield "classifier", ("out",)


def _dpn(arch: DPNArch) -> Iterator[ModulePair]:
    yield from _unit("features.conv1_1", "conv", "bn", "conv1_x_1_func")
    n = 0
    for stage, num_blocks in enumerate(arch.blocks, start=2):
        for b in range(1, num_blocks + 1):
            n += 1
            parts = ("c1x1_a", "c3x3_b", "c1x1_c")
            for part in ("c1x1_w", *parts) if b == 1 else parts:
                ours = f"features.conv{stage}_{b}.{part}"
                yield from _unit(ours, "conv", "bn", f"dpn{n}.{part}_func")
    yield "features.conv5_bn_ac.bn", ("conv5_x_x_bn",)
    yield "classifier", ("out",)


def _unit(ours: str, conv: str, norm: str, theirs: str) -> Iterator[ModulePair]:
    """One convolution and its BatchNorm, which Paddle keeps in one layer."""
    yield f"{ours}.{norm}", (f"{theirs}._batch_norm",)
    yield f"{ours}.{conv}", (f"{theirs}._conv",)

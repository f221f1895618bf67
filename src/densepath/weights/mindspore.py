"""MindCV: MindSpore's `.ckpt` files, read from their bytes, and the names of its networks.

Source: the messages of MindSpore 2.10 `mindspore/ccsrc/utils/checkpoint.proto`

    Checkpoint { repeated Value value = 1; }
    Value { string tag = 1; oneof { TensorProto tensor = 2; MapTensorProto maptensor = 3; } }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3; }

and MindCV 0.3 `mindcv/models/densenet.py`, `dpn.py` for the names.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from densepath.errors import WeightsError
from densepath.models.plan import parts, units
from densepath.models.spec import ModelSpec
from densepath.weights.key_map import KeyMap, ModulePair, join_names
from densepath.weights.protobuf_wire import as_bytes, as_integers, as_text, fields

NORM_LEAVES = ("gamma", "beta", "moving_mean", "moving_variance")

# What a MindCV trainer saves beside the network, by whole name and by first part.
TRAINING_KEYS = (
    "global_step",
    "momentum",
    "learning_rate",
    "epoch_num",
    "step_num",
    "scale_sense",
    "current_iterator_step",
    "last_overflow_iterator_step",
)
TRAINING_PREFIXES = ("moments.", "accum.", "stat.", "ema.")

_TYPES = {
    "Float64": "<f8",
    "Float32": "<f4",
    "Float16": "<f2",
    "BFloat16": "<u2",
    "Int64": "<i8",
    "Int32": "<i4",
    "Int16": "<i2",
    "Int8": "i1",
    "UInt64": "<u8",
    "UInt32": "<u4",
    "UInt16": "<u2",
    "UInt8": "u1",
    "Bool": "?",
}
CRC_MARK, CRC_BYTES = b"crc_num", 10
# MindCV's names of modules whose names are not ours.
_THEIRS = tuple(
    (re.compile(pattern), names)
    for pattern, names in (
        (r"(.*)\.denselayer(\d+)\.(\w+)", (r"\1.cell_list.\2.\3",)),
        (r"(features\.transition\d+)\.(\w+)", (r"\1.features.\2",)),
        (r"features\.conv1_1\.conv", ("features.conv1.conv",)),
        (r"features\.conv1_1\.bn", ("features.conv1.norm",)),
        (r"features\.conv5_bn_ac\.bn", ("conv5_x.norm",)),
        (r"(.*)\.c1x1_w\.bn", (r"\1.c1x1_w_bn",)),
        (r"(.*)\.c1x1_w\.conv", (r"\1.c1x1_w_r", r"\1.c1x1_w_d")),
        (r"(.*)\.c1x1_a\.(bn|conv)", (r"\1.layers.\g<2>1",)),
        (r"(.*)\.c3x3_b\.(bn|conv)", (r"\1.layers.\g<2>2",)),
        (r"(.*)\.c1x1_c\.bn", (r"\1.layers.bn3",)),
        (r"(.*)\.c1x1_c\.conv", (r"\1.layers.conv3_r", r"\1.layers.conv3_d")),
    )
)


def read_ckpt(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a MindSpore checkpoint by MindSpore's names; training state is left out.

    Raises:
        WeightsError: it is no such file, is damaged, or its checksum is wrong.
    """
    try:
        return _arrays(_without_checksum(path.read_bytes()))
    except WeightsError as error:
        raise WeightsError(
            f"{path} cannot be read as a MindSpore checkpoint: {error}. It is damaged, "
            "incomplete or of another kind: compare its size with the publisher's."
        ) from error


def _without_checksum(content: bytes) -> memoryview:
    """The messages, after checking the optional CRC-32 (`crc_num` and 10 big-endian bytes)."""
    end = len(content) - len(CRC_MARK) - CRC_BYTES
    body = memoryview(content)
    if end < 0 or content[end : end + len(CRC_MARK)] != CRC_MARK:
        return body
    if int.from_bytes(content[-CRC_BYTES:], "big") != zlib.crc32(body[:end]):
        raise WeightsError("its checksum does not fit its content")
    return body[:end]


def _arrays(body: memoryview) -> dict[str, np.ndarray]:
    """All tensors; those above 512 MiB come as consecutive values of one tag."""
    arrays: dict[str, np.ndarray] = {}
    parts: list[memoryview] = []
    open_tag = ""
    for number, value in fields(body):
        if number != 1:
            continue
        tag, tensor = _value(as_bytes(value))
        dims, kind, content = _tensor(tensor)
        if kind not in _TYPES or _is_training_state(tag):
            continue
        if tag in arrays or (parts and tag != open_tag):
            raise WeightsError(f"{open_tag or tag} is cut off or comes twice")
        parts.append(content)
        needed = math.prod(dims) * np.dtype(_TYPES[kind]).itemsize
        held = sum(len(part) for part in parts)
        if held > needed:
            raise WeightsError(f"{tag} has {held} bytes instead of {needed}")
        open_tag = tag if held < needed else ""
        if held == needed:
            arrays[tag] = _to_array(parts, kind, dims)
            parts = []
    if parts:
        raise WeightsError(f"{open_tag} is cut off")
    return arrays


def _to_array(parts: list[memoryview], kind: str, dims: list[int]) -> np.ndarray:
    """The array of these bytes; bfloat16 as float32."""
    content = parts[0] if len(parts) == 1 else b"".join(parts)
    array = np.frombuffer(content, _TYPES[kind])
    if kind == "BFloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.reshape(dims)


def _value(message: memoryview) -> tuple[str, memoryview]:
    """The tag and the tensor of one `Value`."""
    tag, tensor = "", None
    for number, value in fields(message):
        if number == 1:
            tag = as_text(value)
        elif number == 2:
            tensor = as_bytes(value)
    if not tag or tensor is None:
        raise WeightsError("a value has no name or no tensor")
    return tag, tensor


def _tensor(message: memoryview) -> tuple[list[int], str, memoryview]:
    """The shape, the type and the bytes of one `TensorProto`; a scalar's shape is []."""
    dims: list[int] = []
    kind, content = "", memoryview(b"")
    for number, value in fields(message):
        if number == 1:
            dims += as_integers(value)
        elif number == 2:
            kind = as_text(value)
        elif number == 3:
            content = as_bytes(value)
    # A scalar is written with the dims [0].
    return ([] if dims == [0] else dims), kind, content


def _is_training_state(tag: str) -> bool:
    """Whether a tag is that of training's state, not of a weight."""
    return tag in TRAINING_KEYS or tag.startswith(TRAINING_PREFIXES)


def key_map(spec: ModelSpec) -> KeyMap:
    """MindCV's name of each tensor of a network."""
    return join_names(_pairs(spec), NORM_LEAVES)


def _pairs(spec: ModelSpec) -> Iterator[ModulePair]:
    """Our modules with MindCV's, of which a DPN's convolution to both paths is two."""
    for layers in parts(spec):
        for layer, norm in units(layers):
            for ours in filter(None, (norm, layer.name)):
                for pattern, names in _THEIRS:
                    if found := pattern.fullmatch(ours):
                        yield ours, tuple(_counted_from_0(found.expand(name)) for name in names)
                        break
                else:
                    yield ours, (ours,)


def _counted_from_0(name: str) -> str:
    """A dense layer's number is one less with MindCV."""
    return re.sub(r"(?<=cell_list\.)\d+", lambda found: str(int(found[0]) - 1), name)

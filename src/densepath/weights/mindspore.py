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
from typing import TypeAlias

import numpy as np

from densepath.errors import WeightsError
from densepath.models.plan import parts, units
from densepath.models.spec import ModelSpec
from densepath.weights.key_map import KeyMap, ModulePair, join_names

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
VARINT_BYTES = 10  # 64 bits in groups of 7
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
Field: TypeAlias = tuple[int, int | memoryview]


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
    for number, value in _fields(body):
        if number != 1:
            continue
        tag, tensor = _value(_as_bytes(value))
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
    for number, value in _fields(message):
        if number == 1:
            tag = _text(value)
        elif number == 2:
            tensor = _as_bytes(value)
    if not tag or tensor is None:
        raise WeightsError("a value has no name or no tensor")
    return tag, tensor


def _tensor(message: memoryview) -> tuple[list[int], str, memoryview]:
    """The shape, the type and the bytes of one `TensorProto`; a scalar's shape is []."""
    dims: list[int] = []
    kind, content = "", memoryview(b"")
    for number, value in _fields(message):
        if number == 1:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif number == 2:
            kind = _text(value)
        elif number == 3:
            content = _as_bytes(value)
    # A scalar is written with the dims [0].
    return ([] if dims == [0] else dims), kind, content


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of a protobuf message: (number, integer or bytes); fixed ones are skipped."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire_type == 2:
            length, at = _varint(message, at)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise WeightsError(f"a field has the wire type {wire_type}")
        if length > len(message) - at:
            raise WeightsError(f"a field of {length} bytes runs past the end")
        if wire_type == 2:
            yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The integer that starts at byte `at`, and the byte after it."""
    result = 0
    for i in range(VARINT_BYTES):
        if at + i >= len(message):
            raise WeightsError("a number is cut off")
        byte = message[at + i]
        result |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return result, at + i + 1
    raise WeightsError(f"a number is longer than {VARINT_BYTES} bytes")


def _packed(message: memoryview) -> list[int]:
    """The integers of a packed repeated field."""
    numbers, at = [], 0
    while at < len(message):
        number, at = _varint(message, at)
        numbers.append(number)
    return numbers


def _as_bytes(value: int | memoryview) -> memoryview:
    """The field's bytes, which it must hold."""
    if isinstance(value, int):
        raise WeightsError("a field that should hold bytes holds a number")
    return value


def _text(value: int | memoryview) -> str:
    """The text of a field."""
    try:
        return bytes(_as_bytes(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise WeightsError("a name is not text") from error


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

"""A `.caffemodel` read from its bytes: layers with their parameters and blobs, of both versions.

Source: BVLC Caffe 1.0 `src/caffe/proto/caffe.proto`: NetParameter, LayerParameter,
V1LayerParameter, BlobProto.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from densepath.errors import WeightsError
from densepath.weights.protobuf_wire import (
    Value,
    as_bytes,
    as_integer,
    as_integers,
    as_text,
    fields,
)

MOST_LAYERS = 1 << 16
# V1LayerParameter.LayerType, of those that these networks and their training have.
_V1_TYPES = {
    3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 8: "Flatten", 9: "HDF5Data",
    12: "ImageData", 14: "InnerProduct", 17: "Pooling", 18: "ReLU", 19: "Sigmoid", 20: "Softmax",
    21: "SoftmaxWithLoss", 22: "Split", 24: "WindowData", 25: "Eltwise", 26: "Power",
    27: "SigmoidCrossEntropyLoss", 29: "MemoryData", 32: "DummyData", 33: "Slice", 36: "Silence",
    1: "Accuracy",
}  # fmt: skip


@dataclass(frozen=True)
class _Version:
    """The numbers of a layer's fields in one version of the format."""

    name: int
    kind: int
    bottom: int
    top: int
    blobs: int
    parameters: Mapping[int, str]


_V1 = _Version(
    4, 5, 2, 3, 6,
    {9: "concat", 10: "convolution", 17: "inner_product", 19: "pooling", 21: "power",
     24: "eltwise", 30: "relu", 31: "slice", 36: "transform"},
)  # fmt: skip
_V2 = _Version(
    1, 2, 3, 4, 7,
    {100: "transform", 104: "concat", 106: "convolution", 110: "eltwise", 117: "inner_product",
     121: "pooling", 122: "power", 123: "relu", 126: "slice", 139: "batch_norm", 142: "scale",
     143: "input"},
)  # fmt: skip


@dataclass(frozen=True)
class Message:
    """A message of parameters: its fields by their numbers, read when they are asked for."""

    values: Mapping[int, Sequence[Value]]

    @classmethod
    def of(cls, content: memoryview) -> Message:
        """The message of these bytes."""
        values: dict[int, list[Value]] = defaultdict(list)
        for number, value in fields(content):
            values[number].append(value)
        return cls(values)

    def integers(self, number: int) -> list[int]:
        """The whole numbers of a field."""
        return [one for value in self.values.get(number, ()) for one in as_integers(value)]

    def integer(self, number: int, default: int) -> int:
        """The last whole number of a field."""
        values = self.values.get(number, ())
        return as_integer(values[-1]) if values else default

    def floats(self, number: int) -> list[float]:
        """The float32 numbers of a field."""
        content = b"".join(bytes(as_bytes(value)) for value in self.values.get(number, ()))
        return [float(one) for one in _as_array(content, "<f4")]

    def float(self, number: int, default: float) -> float:
        """The last float32 number of a field."""
        values = self.floats(number)
        return values[-1] if values else default

    def messages(self, number: int) -> list[Message]:
        """The messages in a field."""
        return [Message.of(as_bytes(value)) for value in self.values.get(number, ())]


@dataclass(frozen=True)
class CaffeLayer:
    """One layer.

    Attributes:
        name, kind: as the file has them, `Convolution`.
        bottoms, tops: the names of the values that it reads and writes, which may be the same.
        blobs: its weights.
        parameters: its messages of parameters, by the name before `_param`.
    """

    name: str
    kind: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    blobs: tuple[np.ndarray, ...]
    parameters: Mapping[str, Message]

    def parameter(self, name: str) -> Message:
        """A message of parameters, empty where the layer has none."""
        return self.parameters.get(name, Message({}))


@dataclass(frozen=True)
class CaffeModel:
    """The layers, and the inputs that stand outside of them, with their sides."""

    layers: tuple[CaffeLayer, ...]
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


def read_model(content: bytes) -> CaffeModel:
    """The network of a `.caffemodel`.

    Raises:
        WeightsError: it is damaged, or none.
    """
    layers, inputs, shape = list[CaffeLayer](), list[str](), list[int]()
    for number, value in fields(memoryview(content)):
        if number in (2, 100):
            layers.append(_layer(as_bytes(value), _V1 if number == 2 else _V2))
        elif number == 3:
            inputs.append(as_text(value))
        elif number == 4:
            shape += as_integers(value)
        elif number == 8 and not shape:
            shape = Message.of(as_bytes(value)).integers(1)
        if len(layers) > MOST_LAYERS:
            raise WeightsError(f"it has more than {MOST_LAYERS:,} layers")
    if not layers:
        raise WeightsError("it has no layers")
    return CaffeModel(tuple(layers), tuple(inputs), tuple(shape))


def _layer(content: memoryview, version: _Version) -> CaffeLayer:
    """One layer of either version."""
    name, kind = "", ""
    bottoms, tops, blobs = list[str](), list[str](), list[np.ndarray]()
    parameters: dict[str, Message] = {}
    for number, value in fields(content):
        if number == version.name:
            name = as_text(value)
        elif number == version.kind:
            kind = _V1_TYPES.get(value, str(value)) if isinstance(value, int) else as_text(value)
        elif number == version.bottom:
            bottoms.append(as_text(value))
        elif number == version.top:
            tops.append(as_text(value))
        elif number == version.blobs:
            blobs.append(_blob(as_bytes(value)))
        elif number in version.parameters:
            parameters[version.parameters[number]] = Message.of(as_bytes(value))
    return CaffeLayer(name, kind, tuple(bottoms), tuple(tops), tuple(blobs), parameters)


def _blob(content: memoryview) -> np.ndarray:
    """The values of a blob in its shape, which old files give as four numbers."""
    singles, doubles = bytearray(), bytearray()
    sides, old = list[int](), {1: 0, 2: 0, 3: 0, 4: 0}
    for number, value in fields(content):
        if number == 5:
            singles += as_bytes(value)
        elif number == 8:
            doubles += as_bytes(value)
        elif number == 7:
            sides = Message.of(as_bytes(value)).integers(1)
        elif number in old:
            old[number] = as_integer(value)
    values = _as_array(bytes(singles), "<f4")
    if doubles:
        values = _as_array(bytes(doubles), "<f8").astype(np.float32)
    if not sides and any(old.values()):
        sides = list(old.values())
    if sides and (min(sides) < 0 or math.prod(sides) != len(values)):
        raise WeightsError(f"a blob of the shape {sides} has {len(values):,} values")
    return values.reshape(sides) if sides else values


def _as_array(content: bytes, kind: str) -> np.ndarray:
    """The numbers in these bytes."""
    if len(content) % np.dtype(kind).itemsize:
        raise WeightsError("its numbers are cut off")
    return np.frombuffer(content, kind)

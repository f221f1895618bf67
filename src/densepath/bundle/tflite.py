"""The one reader of `.tflite` files: a network as plain values, or unpacked, to be changed.

On the line: the quantiser finds a network's tensors here, mends what the converter left (`unpack`,
`pack`), and counts the operators of what it wrote; an NPU's simulator, its estimate and its board
read the same files. The flatbuffer's classes are those of `ai-edge-litert`, imported when first
used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.errors import BundleError, MissingPackageError

IDENTIFIER = b"TFL3"
LEAST_BYTES = 64
# The metadata with the places that a compiler gave the tensors in the arena.
PLAN = b"OfflineMemoryAllocation"
# Source: TensorFlow `lite/schema/schema.fbs`, enum TensorType.
DTYPES: dict[int, type[np.generic]] = {
    0: np.float32,
    2: np.int32,
    3: np.uint8,
    4: np.int64,
    6: np.bool_,
    7: np.int16,
    9: np.int8,
}


@dataclass(frozen=True)
class TfliteTensor:
    """A value that flows, or a constant.

    Attributes:
        index: in the file's list.
        name: as the converter called it.
        shape: the sizes.
        dtype: of the elements.
        scales: float32 [1] or one a channel; empty where it is not quantised.
        zero_points: int64, as many.
        axis: the dimension whose channels have scales of their own.
        data: of a constant, else None.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    axis: int
    data: NDArray[Any] | None

    @property
    def scale(self) -> np.float32:
        """The one scale of a tensor that has no scales by channel; 1 of float32."""
        return np.float32(self.scales[0] if self.is_quantised else 1)

    @property
    def zero_point(self) -> int:
        """The one zero point; 0 of float32."""
        return int(self.zero_points[0]) if self.is_quantised else 0

    @property
    def is_quantised(self) -> bool:
        """Whether its elements are integers that stand for other numbers."""
        return self.dtype != np.float32

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Operator:
    """One operator: `inputs` has None where an optional one is absent."""

    index: int
    kind: str
    inputs: tuple[TfliteTensor | None, ...]
    outputs: tuple[TfliteTensor, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TfliteNetwork:
    """The first, only subgraph of a file.

    `offsets` has the place in the arena that the compiler gave each tensor, in bytes: −1 where the
    runtime chooses, nothing where the file does not say.
    """

    path: Path
    tensors: tuple[TfliteTensor, ...]
    operators: tuple[Operator, ...]
    input: TfliteTensor
    output: TfliteTensor
    offsets: tuple[int, ...] = ()


def read_network(path: str | Path) -> TfliteNetwork:
    """The network in a `.tflite` file.

    Raises:
        BundleError: no such file, not a TFLite model, damaged, or with more than one subgraph,
            input or output.
        MissingPackageError: `ai-edge-litert` is not installed.
    """
    path = Path(path)
    return parse_network(_read_bytes(path), path)


def parse_network(content: bytes, path: Path = Path("network.tflite")) -> TfliteNetwork:
    """The network of a file's bytes; `path` is the file's, and its name in messages.

    Raises:
        BundleError, MissingPackageError: as `read_network`.
    """
    model = unpack(content, path)
    with _as_damaged(path):
        if len(model.subgraphs) != 1:
            raise BundleError(f"{path} has {len(model.subgraphs)} subgraphs; one is supported.")
        graph = model.subgraphs[0]
        for what, listed in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            if len(listed) != 1:
                raise BundleError(f"{path} has {len(listed)} {what}; image classifiers have one.")
        tensors = tuple(_tensor(i, one, model.buffers) for i, one in enumerate(graph.tensors))
        kinds = [kind_of(code) for code in model.operatorCodes]
        operators = tuple(
            _operator(i, one, kinds[one.opcodeIndex], tensors)
            for i, one in enumerate(graph.operators)
        )
        ends = tensors[int(graph.inputs[0])], tensors[int(graph.outputs[0])]
        return TfliteNetwork(path, tensors, operators, *ends, _offsets(model))


def unpack(content: bytes, path: Path = Path("network.tflite")) -> Any:
    """The file's objects (`ModelT` of the schema), to be changed and given to `pack`.

    Raises:
        BundleError: it is not a TFLite model, or damaged.
        MissingPackageError: `ai-edge-litert` is not installed.
    """
    if len(content) < LEAST_BYTES or content[4:8] != IDENTIFIER:
        raise BundleError(f"{path} is not a TFLite model: it does not say {IDENTIFIER.decode()}.")
    schema()
    from ai_edge_litert.tools import flatbuffer_utils

    with _as_damaged(path):
        return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def pack(model: Any) -> bytes:
    """The file of these objects."""
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def schema() -> Any:
    """The classes of the flatbuffer.

    Raises:
        MissingPackageError: `ai-edge-litert` is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingPackageError("ai-edge-litert", "edge") from error
    return schema_py_generated


def kind_of(code: Any) -> str:
    """The operator's name, as in `CONV_2D`; files of before 2021 have it in another field."""
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema().BuiltinOperator.CUSTOM:
        return (code.customCode or b"CUSTOM").decode("utf-8", "replace")
    return _kinds().get(number, f"operator {number}")


@lru_cache
def _kinds() -> dict[int, str]:
    """The operators' names by their numbers."""
    return {v: k for k, v in vars(schema().BuiltinOperator).items() if k.isupper()}


def _read_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        BundleError: there is no such file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}.") from error


@contextmanager
def _as_damaged(path: Path) -> Iterator[None]:
    """Within, what comes of reading wrong bytes is a BundleError."""
    try:
        yield
    except (
        struct.error,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise BundleError(f"{path} is a damaged TFLite model ({error}); write it again.") from error


def _offsets(model: Any) -> tuple[int, ...]:
    """The tensors' places in the arena, where a compiler for microcontrollers chose them.

    Source: TensorFlow Lite Micro `docs/memory_management.md`, "Offline planned tensor allocations".
    """
    for one in model.metadata or ():
        if one.name == PLAN:
            words = np.asarray(model.buffers[one.buffer].data, np.uint8).view("<i4")
            _, _, count, *places = words.tolist()  # version, subgraph, tensors
            return tuple(places[:count])
    return ()


def _tensor(index: int, one: Any, buffers: list[Any]) -> TfliteTensor:
    """A tensor; its constant is a view of the buffer."""
    if one.type not in DTYPES:
        raise ValueError(f"tensor {index} is of type {one.type}")
    dtype = np.dtype(DTYPES[one.type])
    shape = tuple(int(size) for size in (one.shape if one.shape is not None else ()))
    quantised = one.quantization
    scales = () if quantised is None or quantised.scale is None else quantised.scale
    zeros = () if not len(scales) or quantised.zeroPoint is None else quantised.zeroPoint
    held = buffers[one.buffer].data
    data = None
    if held is not None and len(held):
        data = np.asarray(held, np.uint8).view(dtype).reshape(shape)
    return TfliteTensor(
        index=index,
        name=(one.name or b"").decode("utf-8", "replace"),
        shape=shape,
        dtype=dtype,
        scales=np.asarray(scales, np.float32),
        zero_points=np.asarray(zeros, np.int64),
        axis=int(quantised.quantizedDimension) if len(scales) else 0,
        data=data,
    )


def _operator(index: int, one: Any, kind: str, tensors: tuple[TfliteTensor, ...]) -> Operator:
    """An operator with its tensors in place of their numbers."""
    options = vars(one.builtinOptions) if one.builtinOptions is not None else {}
    inputs = tuple(tensors[i] if i >= 0 else None for i in map(int, one.inputs))
    outputs = tuple(tensors[int(i)] for i in one.outputs)
    return Operator(index, kind, inputs, outputs, dict(options))

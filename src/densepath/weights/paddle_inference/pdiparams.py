"""`.pdiparams` files: all tensors of a program behind each other, in the order of their names.

Source: Paddle 3.3 `paddle/fluid/framework/lod_tensor.cc` (SerializeToStream) and
`tensor_util.cc` (TensorToStream): for each tensor

    uint32 version = 0; uint64 levels, each a uint64 of bytes and as many bytes;
    uint32 version = 0; int32 size of a TensorDesc; the TensorDesc; the numbers

and `paddle/fluid/inference/api/analysis_predictor.cc` for the order: sorted by name.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from densepath.errors import WeightsError
from densepath.weights.paddle_inference.pdmodel import tensor_desc

# Of `VarType.Type`; bfloat16 is the upper half of a float32.
_BFLOAT16 = 22
_TYPES = {
    0: "?",
    1: "<i2",
    2: "<i4",
    3: "<i8",
    4: "<f2",
    5: "<f4",
    6: "<f8",
    20: "u1",
    21: "i1",
    _BFLOAT16: "<u2",
}


def read_tensors(content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The tensors by name.

    Args:
        content: of the file.
        shapes: of each tensor, in the program's order.

    Raises:
        WeightsError: the file is damaged, or is that of another program.
    """
    arrays = _arrays(memoryview(content), len(shapes))
    orders = [sorted(shapes), list(shapes)]  # the second is that of no Paddle known to us
    for names in orders:
        if _misfit(names, arrays, shapes) is None:
            return dict(zip(names, arrays, strict=True))
    raise WeightsError(str(_misfit(orders[0], arrays, shapes)))


def _misfit(
    names: Sequence[str], arrays: Sequence[np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> str | None:
    """What does not fit of the tensors in this order; None where all do."""
    if len(names) != len(arrays):
        return f"it holds {len(arrays)} tensors, and its program asks for {len(names)}"
    for name, array in zip(names, arrays, strict=True):
        if array.shape != shapes[name]:
            return (
                f"its tensor {name} is {list(array.shape)}, and its program asks for "
                f"{list(shapes[name])}: the two files are not of one model"
            )
    return None


def _arrays(content: memoryview, most: int) -> list[np.ndarray]:
    """All tensors, in the file's order; of more than `most` the first one too many, too."""
    arrays, at = list[np.ndarray](), 0
    while at < len(content) and len(arrays) <= most:
        array, at = _array(content, at)
        arrays.append(array)
    return arrays


def _array(content: memoryview, at: int) -> tuple[np.ndarray, int]:
    """The tensor that begins at byte `at`, and the byte after it."""
    (version, levels), at = _numbers(content, at, "<IQ")
    for _ in range(levels):
        (size,), at = _numbers(content, at, "<Q")
        _, at = _part(content, at, size)
    (inner, size), at = _numbers(content, at, "<Ii")
    if version or inner:
        raise WeightsError(f"its tensors are of version {version or inner}; 0 is read")
    description, at = _part(content, at, size)
    data_type, shape = tensor_desc(description)
    if data_type not in _TYPES or any(side < 0 for side in shape):
        raise WeightsError(f"a tensor {list(shape)} has the type number {data_type}")
    dtype = np.dtype(_TYPES[data_type])
    values, at = _part(content, at, math.prod(shape) * dtype.itemsize)
    array = np.frombuffer(values, dtype).reshape(shape)
    if data_type == _BFLOAT16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array, at


def _numbers(content: memoryview, at: int, form: str) -> tuple[tuple[int, ...], int]:
    """The numbers of a form of `struct` at byte `at`, and the byte after them."""
    part, at = _part(content, at, struct.calcsize(form))
    return struct.unpack(form, part), at


def _part(content: memoryview, at: int, size: int) -> tuple[memoryview, int]:
    """So many bytes from byte `at` on, and the byte after them.

    Raises:
        WeightsError: there are less.
    """
    if not 0 <= size <= len(content) - at:
        raise WeightsError("it is cut off, or its program is that of another model")
    return content[at : at + size], at + size


def as_float32(arrays: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays in float32."""
    return {name: array.astype(np.float32, copy=False) for name, array in arrays}

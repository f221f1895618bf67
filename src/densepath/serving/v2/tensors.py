"""Arrays as the Open Inference Protocol V2 writes them: as bytes, or as lists of values.

Source: kserve/open-inference-protocol, `specification/protocol/inference_rest.md`.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from densepath.serving.core.errors import RequestError

BYTES = "BYTES"
TYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
MOST_DIMENSIONS = 8
LENGTH = struct.Struct("<I")
WHITE_SPACE = re.compile(r"[ \t\r\n\f]+")
PLAIN_ALPHABET = str.maketrans("-_", "+/")


def from_raw(data: bytes | memoryview, datatype: str, shape: Sequence[int], name: str) -> Any:
    """The array in a tensor's bytes: little-endian, row by row; BYTES with their lengths.

    Raises:
        RequestError: too few or too many bytes for the shape.
    """
    count = math.prod(shape)
    if datatype == BYTES:
        return _objects(list(_split(data, name)), shape, name)
    kind = np.dtype(TYPES[datatype]).newbyteorder("<")
    if len(data) != count * kind.itemsize:
        raise RequestError(
            f"input {name!r} has {len(data)} bytes of data; {datatype} {list(shape)} is "
            f"{count * kind.itemsize}."
        )
    return np.frombuffer(data, kind).reshape(tuple(shape))


def to_raw(array: NDArray[Any]) -> bytes:
    """The bytes that `from_raw` reads."""
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return b"".join(LENGTH.pack(len(text)) + text for text in array.ravel())


def check_input(name: Any, datatype: Any, shape: Any) -> None:
    """Raise unless the description of an input is possible.

    Raises:
        RequestError: it is not.
    """
    if not isinstance(name, str) or not name:
        raise RequestError(f"an input's name is {name!r}; it must be a text.")
    if datatype != BYTES and datatype not in TYPES:
        choices = ", ".join((*TYPES, BYTES))
        raise RequestError(f"input {name!r} has the datatype {datatype!r}; there are {choices}.")
    right = isinstance(shape, list) and 0 < len(shape) <= MOST_DIMENSIONS
    if not right or not all(type(side) is int and 0 <= side < 2**31 for side in shape):
        raise RequestError(f"input {name!r} has the shape {shape!r}; it must be a list of sizes.")


def to_array(data: Any, datatype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """The array of a list of values, flat or nested.

    Raises:
        RequestError: other values than the datatype has, or too few or too many for the shape.
    """
    try:
        if datatype == BYTES:
            return _objects([_base64(text, name) for text in _flatten(data)], shape, name)
        values = np.asarray(data)
    except (ValueError, RecursionError):
        raise RequestError(
            f"the data of input {name!r} are lists of unequal lengths, or too deep."
        ) from None
    allowed = {"BOOL": "b", "FP16": "iuf", "FP32": "iuf", "FP64": "iuf"}.get(datatype, "iu")
    if values.dtype.kind not in allowed and values.size:
        raise RequestError(f"the data of input {name!r} are not all values of type {datatype}.")
    kind = TYPES[datatype]
    if allowed == "iu" and values.size:
        limits = np.iinfo(kind)
        if values.min() < limits.min or values.max() > limits.max:
            raise RequestError(f"the data of input {name!r} are beyond the range of {datatype}.")
    with np.errstate(over="ignore"):
        return _shaped(values.astype(kind), shape, name)


def _split(data: bytes | memoryview, name: str) -> Iterator[bytes]:
    """The elements of a BYTES tensor."""
    start = 0
    while start < len(data):
        end = start + LENGTH.size
        size = LENGTH.unpack_from(data, start)[0] if end <= len(data) else len(data)
        if end + size > len(data):
            raise RequestError(f"the BYTES of input {name!r} end in the middle of an element.")
        yield bytes(data[end : end + size])
        start = end + size


def _objects(elements: list[bytes], shape: Sequence[int], name: str) -> NDArray[Any]:
    """An array of `bytes` objects."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return _shaped(array, shape, name)


def _shaped(array: NDArray[Any], shape: Sequence[int], name: str) -> NDArray[Any]:
    """The array in its shape."""
    if array.size != math.prod(shape):
        raise RequestError(
            f"input {name!r} has {array.size} values; the shape {list(shape)} has "
            f"{math.prod(shape)}."
        )
    return array.reshape(tuple(shape))


def _flatten(data: Any) -> Iterator[Any]:
    """What is in lists in lists."""
    if isinstance(data, list):
        for each in data:
            yield from _flatten(each)
    else:
        yield data


def _base64(text: Any, name: str) -> bytes:
    """The bytes of an element in JSON, where they are written as base64."""
    try:
        return from_base64(text)
    except ValueError:
        raise RequestError(
            f"the BYTES of input {name!r} must be base64 texts in JSON; without base64 they go "
            "behind the JSON as binary data."
        ) from None


def from_base64(text: Any) -> bytes:
    """The bytes of base64 as any tool writes it.

    With or without line breaks (MIME, RFC 2045) and padding, in either alphabet of RFC 4648, the
    plain one or that for addresses; a `data:` address is taken, too.

    Raises:
        ValueError: not base64.
    """
    if not isinstance(text, str):
        raise ValueError("not a text")
    if text[:5].lower() == "data:":
        text = unquote(text.partition(",")[2])
    with suppress(ValueError):  # the usual kind, in one pass
        return base64.b64decode(text, validate=True)
    joined = WHITE_SPACE.sub("", text).translate(PLAIN_ALPHABET)
    digits = joined.rstrip("=")
    if len(joined) - len(digits) > 2:
        raise ValueError("more than two signs of padding")
    return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)

"""The tensors of the Open Inference Protocol V2: JSON, JSON with binary data, arrays.

Source: kserve/open-inference-protocol, `specification/protocol/inference_rest.md`, and Triton's
extensions `binary_tensor_data` and `classification`.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from densepath.serving.errors import RequestError

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
Parameters: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Input:
    """A tensor that a client sent; of type BYTES, an array of `bytes` objects."""

    name: str
    datatype: str
    array: NDArray[Any]


@dataclass(frozen=True)
class WantedOutput:
    """An output that a client asks for.

    Attributes:
        name: of the metadata.
        is_binary: behind the JSON, not in it.
        best: of Triton's classification extension: as many `SCORE:INDEX:LABEL`; else 0.
    """

    name: str
    is_binary: bool = False
    best: int = 0


@dataclass(frozen=True)
class InferRequest:
    """What a client asks for, whatever way it came.

    Attributes:
        id: handed back.
        inputs: at least one.
        outputs: None for all.
        parameters: of the whole request.
        all_binary: outputs go behind the JSON where nothing else is said.
    """

    id: str
    inputs: list[Input]
    outputs: list[WantedOutput] | None
    parameters: Parameters = field(default_factory=dict)
    all_binary: bool = False


@dataclass(frozen=True)
class Output:
    """A tensor of the answer."""

    name: str
    array: NDArray[Any]
    is_binary: bool = False

    @property
    def datatype(self) -> str:
        """As the protocol calls it."""
        kinds = (name for name, kind in TYPES.items() if self.array.dtype == kind)
        return next(kinds, BYTES)


def read_request(body: bytes, json_length: int | None) -> InferRequest:
    """The request in a body; binary data begins after `json_length` bytes of JSON.

    Raises:
        RequestError: it is not what the protocol says.
    """
    if json_length is not None and not 0 < json_length <= len(body):
        raise RequestError(
            f"Inference-Header-Content-Length is {json_length}; the body has {len(body)} bytes."
        )
    try:
        values = orjson.loads(body if json_length is None else memoryview(body)[:json_length])
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}.") from error
    values = _object(values, "the body")
    blobs = _Blobs(memoryview(body)[json_length:] if json_length is not None else None)
    inputs = [_read_input(each, blobs) for each in _list(values, "inputs")]
    if not inputs:
        raise RequestError("inputs is empty; a request has at least one tensor.")
    blobs.check_end()
    parameters = _parameters(values)
    wanted = values.get("outputs")
    all_binary = parameters.get("binary_data_output") is True
    outputs = None
    if wanted is not None:
        outputs = [_read_wanted(each, all_binary) for each in _list(values, "outputs")]
    return InferRequest(_text(values, "id", ""), inputs, outputs or None, parameters, all_binary)


def write_response(values: dict[str, Any], outputs: Sequence[Output]) -> tuple[bytes, int | None]:
    """The body and, where binary data follows, the length of its JSON."""
    described, blobs = [], []
    for output in outputs:
        row: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.array.shape),
        }
        if output.is_binary:
            blob = to_raw(output.array)
            row["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        elif output.datatype == BYTES:
            row["data"] = [text.decode() for text in output.array.ravel()]
        else:
            row["data"] = output.array.ravel()
        described.append(row)
    text = orjson.dumps({**values, "outputs": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([text, *blobs]), len(text)) if blobs else (text, None)


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
    """Returns when the description of an input is possible.

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


class _Blobs:
    """The binary data behind the JSON, taken from its start on."""

    def __init__(self, data: memoryview | None) -> None:
        self._data = data

    def take(self, size: Any, name: str) -> memoryview:
        """The next bytes.

        Raises:
            RequestError: there are not so many.
        """
        if self._data is None:
            raise RequestError(
                f"input {name!r} has binary data, but the header "
                "Inference-Header-Content-Length is missing."
            )
        if type(size) is not int or not 0 <= size <= len(self._data):
            raise RequestError(
                f"input {name!r} has a binary_data_size of {size!r}; {len(self._data)} bytes are "
                "left in the body."
            )
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def check_end(self) -> None:
        """Returns when nothing is left.

        Raises:
            RequestError: something is.
        """
        if self._data:
            raise RequestError(f"{len(self._data)} bytes of binary data belong to no input.")


def _read_input(values: Any, blobs: _Blobs) -> Input:
    """One of `inputs`."""
    values = _object(values, "an input")
    name, datatype, shape = (values.get(key) for key in ("name", "datatype", "shape"))
    check_input(name, datatype, shape)
    parameters = _parameters(values)
    if ("data" in values) == ("binary_data_size" in parameters):
        raise RequestError(f"input {name!r} must have either data or a binary_data_size.")
    if "data" in values:
        array = to_array(values["data"], datatype, shape, name)
    else:
        array = from_raw(blobs.take(parameters["binary_data_size"], name), datatype, shape, name)
    return Input(name, datatype, array)


def _read_wanted(values: Any, all_binary: bool) -> WantedOutput:
    """One of `outputs`."""
    values = _object(values, "an output")
    parameters = _parameters(values)
    return WantedOutput(
        _text(values, "name"),
        parameters.get("binary_data", all_binary) is True,
        wanted_best(parameters),
    )


def wanted_best(parameters: Parameters) -> int:
    """The classes that an output's `classification` asks for; 0 where it asks for none.

    Raises:
        RequestError: it is no number from 1 on.
    """
    best = parameters.get("classification", 0)
    if type(best) is not int or best < 0 or ("classification" in parameters and best < 1):
        raise RequestError(f"classification is {best!r}; it must be a number from 1 on.")
    return best


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
    """The bytes; a `data:` address is taken too.

    Raises:
        ValueError: not base64.
    """
    if not isinstance(text, str):
        raise ValueError("not a text")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(str(error)) from error


def _object(values: Any, what: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise RequestError(f"{what} must be a JSON object.")
    return values


def _list(values: dict[str, Any], key: str) -> list[Any]:
    found = values.get(key)
    if not isinstance(found, list):
        raise RequestError(f"{key} must be a list.")
    return found


def _text(values: dict[str, Any], key: str, default: str | None = None) -> str:
    found = values.get(key, default)
    if not isinstance(found, str):
        raise RequestError(f"{key} must be a text.")
    return found


def _parameters(values: dict[str, Any]) -> Parameters:
    found = values.get("parameters") or {}
    return _object(found, "parameters")

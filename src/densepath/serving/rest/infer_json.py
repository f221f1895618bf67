"""V2's requests and answers as JSON, with binary data behind it where a client wants that.

Source: kserve/open-inference-protocol, `specification/protocol/inference_rest.md`, and Triton's
extension `binary_tensor_data`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from densepath.serving.core.errors import RequestError
from densepath.serving.core.fields import check_known
from densepath.serving.rest.bodies import read_json
from densepath.serving.v2.calls import (
    ALL_BINARY,
    BINARY,
    BINARY_SIZE,
    OF_OUTPUT,
    OF_REQUEST,
    InferRequest,
    Input,
    Output,
    Parameters,
    WantedOutput,
    wanted_best,
)
from densepath.serving.v2.tensors import BYTES, check_input, from_raw, to_array, to_raw

# KServe's client names the model here, too.
FIELDS = ("id", "model_name", "parameters", "inputs", "outputs")


def read_request(body: bytes, json_length: int | None, model: str) -> InferRequest:
    """The request in a body; binary data begins after `json_length` bytes of JSON.

    Args:
        body: JSON, and what follows it.
        json_length: None where nothing does.
        model: the name in the address, which the body may repeat.

    Raises:
        RequestError: it is not what the protocol says.
    """
    if json_length is not None and not 0 < json_length <= len(body):
        raise RequestError(
            f"Inference-Header-Content-Length is {json_length}; the body has {len(body)} bytes."
        )
    values = read_json(body if json_length is None else memoryview(body)[:json_length])
    check_known(values, FIELDS, "field of the JSON")
    if _text(values, "model_name", model) != model:
        raise RequestError(f"model_name is not {model}, the model in the address.")
    blobs = _Blobs(memoryview(body)[json_length:] if json_length is not None else None)
    inputs = [_read_input(each, blobs) for each in _list(values, "inputs")]
    if not inputs:
        raise RequestError("inputs is empty; a request has at least one tensor.")
    blobs.check_end()
    parameters = _parameters(values, (*OF_REQUEST, ALL_BINARY), "of the request")
    wanted = values.get("outputs")
    all_binary = _flag(parameters, ALL_BINARY, False)
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
        """Raise unless nothing is left.

        Raises:
            RequestError: something is.
        """
        if self._data:
            raise RequestError(f"{len(self._data)} bytes of binary data belong to no input.")


def _read_input(values: Any, blobs: _Blobs) -> Input:
    """One of `inputs`."""
    values = _object(values, "an input")
    check_known(values, ("name", "datatype", "shape", "parameters", "data"), "field of an input")
    name, datatype, shape = (values.get(key) for key in ("name", "datatype", "shape"))
    check_input(name, datatype, shape)
    parameters = _parameters(values, (BINARY_SIZE,), f"of input {name!r}")
    if ("data" in values) == (BINARY_SIZE in parameters):
        raise RequestError(f"input {name!r} must have either data or a binary_data_size.")
    if "data" in values:
        array = to_array(values["data"], datatype, shape, name)
    else:
        array = from_raw(blobs.take(parameters[BINARY_SIZE], name), datatype, shape, name)
    return Input(name, datatype, array)


def _read_wanted(values: Any, all_binary: bool) -> WantedOutput:
    """One of `outputs`."""
    values = _object(values, "an output")
    check_known(values, ("name", "parameters"), "field of an output")
    name = _text(values, "name")
    parameters = _parameters(values, (BINARY, *OF_OUTPUT), f"of output {name!r}")
    return WantedOutput(name, _flag(parameters, BINARY, all_binary), wanted_best(parameters))


def _object(values: Any, what: str) -> dict[str, Any]:
    """The value, which must be an object."""
    if not isinstance(values, dict):
        raise RequestError(f"{what} must be a JSON object.")
    return values


def _list(values: dict[str, Any], key: str) -> list[Any]:
    """The value, which must be a list."""
    found = values.get(key)
    if not isinstance(found, list):
        raise RequestError(f"{key} must be a list.")
    return found


def _text(values: dict[str, Any], key: str, default: str | None = None) -> str:
    """The value, which must be a text."""
    found = values.get(key, default)
    if not isinstance(found, str):
        raise RequestError(f"{key} must be a text.")
    return found


def _parameters(values: dict[str, Any], known: tuple[str, ...], whose: str) -> Parameters:
    """The parameters of an object, which may have none."""
    found = _object(values.get("parameters") or {}, "parameters")
    check_known(found, known, f"parameter {whose}")
    return found


def _flag(parameters: Parameters, name: str, default: bool) -> bool:
    """The value of a parameter that is true or false."""
    found = parameters.get(name, default)
    if not isinstance(found, bool):
        raise RequestError(f"{name} is {found!r}; it must be true or false.")
    return found

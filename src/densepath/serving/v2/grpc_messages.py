"""V2's requests and answers as messages of gRPC: bytes or typed values, and plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from densepath.serving.core.errors import RequestError, TooLargeError
from densepath.serving.core.fields import check_known
from densepath.serving.core.settings import MEGABYTE
from densepath.serving.v2.calls import (
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

# Where InferTensorContents keeps the values of a type. FP16 has no place there.
CONTENTS = {
    **{"BOOL": "bool_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"},
    **{"INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents"},
    **{"UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents"},
    **{"INT64": "int64_contents", "UINT64": "uint64_contents", BYTES: "bytes_contents"},
}


def parse(kind: Any, data: bytes, most_bytes: int) -> Any:
    """The message in these bytes.

    Raises:
        TooLargeError: they are more than a body may have.
        RequestError: they are no such message, or the end of it is missing.
    """
    if len(data) > most_bytes:
        raise TooLargeError(
            f"the message has {len(data):,} bytes, more than the {most_bytes / MEGABYTE:g} MB "
            "allowed; send fewer or smaller images."
        )
    try:
        return kind.FromString(data)
    except DecodeError:
        raise RequestError(f"the message is damaged, or no {kind.DESCRIPTOR.name}.") from None


def read_message(request: Any) -> InferRequest:
    """What a ModelInferRequest asks for.

    Raises:
        RequestError: its tensors do not hold together.
    """
    raw = list(request.raw_input_contents)
    if not request.inputs:
        raise RequestError("the request has no inputs.")
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            f"{len(request.inputs)} inputs and {len(raw)} raw_input_contents; there must be as "
            "many of both."
        )
    if raw and any(each.contents.ListFields() for each in request.inputs):
        raise RequestError("there are contents beside the raw_input_contents; send one of both.")
    inputs = []
    for i, each in enumerate(request.inputs):
        shape = list(each.shape)
        check_input(each.name, each.datatype, shape)
        plain_parameters(each.parameters, (), f"of input {each.name!r}")
        array = from_raw(raw[i], each.datatype, shape, each.name) if raw else _typed(each, shape)
        inputs.append(Input(each.name, each.datatype, array))
    outputs = [
        WantedOutput(
            each.name,
            best=wanted_best(
                plain_parameters(each.parameters, OF_OUTPUT, f"of output {each.name!r}")
            ),
        )
        for each in request.outputs
    ]
    parameters = plain_parameters(request.parameters, OF_REQUEST, "of the request")
    return InferRequest(request.id, inputs, outputs or None, parameters)


def _typed(tensor: Any, shape: list[int]) -> Any:
    """The array in an input's `contents`."""
    if tensor.datatype not in CONTENTS:
        raise RequestError(f"{tensor.datatype} has no typed contents; use raw_input_contents.")
    field = CONTENTS[tensor.datatype]
    others = [each.name for each, _ in tensor.contents.ListFields() if each.name != field]
    if others:
        raise RequestError(
            f"input {tensor.name!r} has {others[0]}; those of {tensor.datatype} are {field}."
        )
    values = list(getattr(tensor.contents, field))
    if tensor.datatype != BYTES:
        return to_array(values, tensor.datatype, shape, tensor.name)
    array = np.empty(len(values), object)
    array[:] = values
    if array.size != np.prod(shape, dtype=object):
        raise RequestError(f"input {tensor.name!r} has {array.size} values, not those of {shape}.")
    return array.reshape(shape)


def write_output(answer: Any, output: Output, *, typed: bool) -> None:
    """Add a tensor to the answer."""
    tensor = answer.outputs.add(
        name=output.name, datatype=output.datatype, shape=output.array.shape
    )
    if typed:
        getattr(tensor.contents, CONTENTS[output.datatype]).extend(output.array.ravel().tolist())
    else:
        answer.raw_output_contents.append(to_raw(output.array))


def plain_parameters(found: Any, known: tuple[str, ...], whose: str) -> Parameters:
    """Plain values of a map of InferParameter, or of ModelRepositoryParameter.

    Raises:
        RequestError: one that is not known.
    """
    check_known(found, known, f"parameter {whose}")
    return {
        key: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for key, value in found.items()
    }

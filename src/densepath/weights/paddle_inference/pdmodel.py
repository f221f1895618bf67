"""`.pdmodel` files, Paddle 2's programs: protobuf messages, read without Paddle.

Source: Paddle 3.3 `paddle/fluid/framework/framework.proto`

    ProgramDesc { repeated BlockDesc blocks = 1; }
    BlockDesc { int32 idx = 1; int32 parent_idx = 2; repeated VarDesc vars = 3;
                repeated OpDesc ops = 4; }
    VarDesc { string name = 1; VarType type = 2; bool persistable = 3; }
    VarType { Type type = 1; DenseTensorDesc dense_tensor = 3; }
    DenseTensorDesc { TensorDesc tensor = 1; }
    TensorDesc { Type data_type = 1; repeated int64 dims = 2; }
    OpDesc { repeated Var inputs = 1; repeated Var outputs = 2; string type = 3;
             repeated Attr attrs = 4; Var { string parameter = 1; repeated string arguments = 2; } }
    Attr { string name = 1; int32 i = 3; float f = 4; string s = 5; repeated int32 ints = 6;
           repeated float floats = 7; repeated string strings = 8; bool b = 10;
           repeated bool bools = 11; int64 l = 13; repeated int64 longs = 15; double float64 = 19; }
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from densepath.errors import WeightsError
from densepath.weights.paddle_inference.program import PaddleOperator, PaddleProgram
from densepath.weights.protobuf_wire import (
    Value,
    as_bytes,
    as_floats,
    as_integer,
    as_integers,
    as_text,
    fields,
)

# Of `VarType.Type`: what is no tensor, though it stays between runs.
_FEED, _FETCH = 9, 10
MOST_OPERATORS = 100_000


def is_pdmodel(start: bytes) -> bool:
    """Whether a file begins as a program does: with block 0, then the number of its parent."""
    body = start[1:].lstrip(bytes(range(0x80, 0x100)))[1:] if start[:1] == b"\x0a" else b""
    return body.startswith(b"\x08\0\x10")


def read_program(content: bytes) -> PaddleProgram:
    """The program of a `.pdmodel` file.

    Raises:
        WeightsError: it is damaged, or has several blocks: loops and conditions.
    """
    blocks = [as_bytes(value) for number, value in fields(memoryview(content)) if number == 1]
    if len(blocks) != 1:
        raise WeightsError(f"it has {len(blocks)} blocks; a network here is one, without branches")
    parameters: dict[str, tuple[int, ...]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    operators: list[PaddleOperator] = []
    for number, value in fields(blocks[0]):
        if number == 3:
            name, kind, shape, persistable = _variable(as_bytes(value))
            shapes[name] = shape
            if persistable and kind not in (_FEED, _FETCH):
                parameters[name] = shape
        elif number == 4:
            operators.append(_operator(as_bytes(value)))
            if len(operators) > MOST_OPERATORS:
                raise WeightsError(f"it has more than {MOST_OPERATORS:,} operators")
    feeds = [one.writes("Out") for one in operators if one.kind == "feed"]
    fetches = [one.reads("X") for one in operators if one.kind == "fetch"]
    inner = [one for one in operators if one.kind not in ("feed", "fetch")]
    return PaddleProgram(inner, parameters, shapes, feeds, fetches)


def _variable(message: memoryview) -> tuple[str, int, tuple[int, ...], bool]:
    """A `VarDesc`: its name, type and shape, and whether it stays between runs."""
    name, kind, shape, persistable = "", 0, tuple[int, ...](), False
    for number, value in fields(message):
        if number == 1:
            name = as_text(value)
        elif number == 2:
            kind, shape = _type(as_bytes(value))
        elif number == 3:
            persistable = bool(as_integer(value))
    return name, kind, shape, persistable


def _type(message: memoryview) -> tuple[int, tuple[int, ...]]:
    """A `VarType`: its number and the shape of a tensor."""
    kind, shape = 0, tuple[int, ...]()
    for number, value in fields(message):
        if number == 1:
            kind = as_integer(value)
        elif number == 3:
            for inner, tensor in fields(as_bytes(value)):
                if inner == 1:
                    shape = tensor_desc(as_bytes(tensor))[1]
    return kind, shape


def tensor_desc(message: memoryview) -> tuple[int, tuple[int, ...]]:
    """A `TensorDesc`: the type of the numbers, and the shape."""
    data_type, dims = 0, list[int]()
    for number, value in fields(message):
        if number == 1:
            data_type = as_integer(value)
        elif number == 2:
            dims += [as_integer(side) for side in as_integers(value)]
    return data_type, tuple(dims)


def _operator(message: memoryview) -> PaddleOperator:
    """An `OpDesc`."""
    kind = ""
    inputs: dict[str, list[str]] = {}
    outputs: dict[str, list[str]] = {}
    attributes: dict[str, Any] = {}
    for number, value in fields(message):
        if number in (1, 2):
            name, arguments = _arguments(as_bytes(value))
            (inputs if number == 1 else outputs)[name] = arguments
        elif number == 3:
            kind = as_text(value)
        elif number == 4:
            name, content = _attribute(as_bytes(value))
            attributes[name] = content
    return PaddleOperator(kind, inputs, outputs, attributes)


def _arguments(message: memoryview) -> tuple[str, list[str]]:
    """An `OpDesc.Var`: the parameter's name and the values'."""
    name, arguments = "", list[str]()
    for number, value in fields(message):
        if number == 1:
            name = as_text(value)
        elif number == 2:
            arguments.append(as_text(value))
    return name, arguments


def _float(value: Value) -> float:
    """The one number of a `float` field."""
    numbers = as_floats(value)
    if len(numbers) != 1:
        raise WeightsError(f"a number has {len(numbers)} values")
    return numbers[0]


def _double(value: Value) -> float:
    """The number of a `double` field."""
    content = as_bytes(value)
    if len(content) != 8:
        raise WeightsError(f"a number of 8 bytes has {len(content)}")
    return float(struct.unpack("<d", content)[0])


def _signed(value: Value) -> list[int]:
    """The numbers of a repeated `int32` or `int64` field, which may be negative."""
    return [as_integer(number) for number in as_integers(value)]


_ONE: dict[int, Callable[[Value], Any]] = {
    3: as_integer,
    4: _float,
    5: as_text,
    10: lambda value: bool(as_integer(value)),
    13: as_integer,
    19: _double,
}
_SEVERAL: dict[int, Callable[[Value], list[Any]]] = {
    6: _signed,
    7: as_floats,
    8: lambda value: [as_text(value)],
    11: _signed,
    15: _signed,
}
# Places of the program's source, which say nothing of the network.
_PASSED_OVER = ("op_callstack",)


def _attribute(message: memoryview) -> tuple[str, Any]:
    """An `OpDesc.Attr`: its name and value; an empty list where it holds none."""
    name, one, several = "", None, list[Any]()
    for number, value in fields(message):
        if number == 1:
            name = as_text(value)
        elif name in _PASSED_OVER:
            break
        elif number in _ONE:
            one = _ONE[number](value)
        elif number in _SEVERAL:
            several += _SEVERAL[number](value)
    return name, several if one is None else one

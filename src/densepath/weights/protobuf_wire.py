"""Protobuf messages, read from their bytes without the messages' classes.

The readers of MindSpore's, Paddle's and other protobuf files walk the fields that they know and
pass over the rest. Every length is checked against the bytes that there are, so that a message
takes no more memory than its file.

Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeAlias

from densepath.errors import WeightsError

VARINT_BYTES = 10  # 64 bits in groups of 7
# A varint as a number, anything else as its bytes.
Value: TypeAlias = int | memoryview
Field: TypeAlias = tuple[int, Value]


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message: its number, and an integer or bytes; 4 or 8 of a fixed one.

    Raises:
        WeightsError: it is no message, or cut off.
    """
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


def as_integers(value: Value) -> list[int]:
    """The integers of a repeated field: one, or all of a packed one.

    Raises:
        WeightsError: they are cut off.
    """
    if isinstance(value, int):
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


def as_integer(value: Value) -> int:
    """The number of an `int32` or `int64` field, which may be negative.

    Raises:
        WeightsError: it holds bytes.
    """
    if not isinstance(value, int):
        raise WeightsError("a field that should hold a number holds bytes")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def as_floats(value: Value) -> list[float]:
    """The numbers of a `float` field: one, or all of a packed one.

    Raises:
        WeightsError: it is none.
    """
    content = as_bytes(value)
    if len(content) % 4:
        raise WeightsError("a field of floats is cut off")
    return list(struct.unpack(f"<{len(content) // 4}f", content))


def as_bytes(value: Value) -> memoryview:
    """The field's bytes, which it must hold.

    Raises:
        WeightsError: it holds a number.
    """
    if isinstance(value, int):
        raise WeightsError("a field that should hold bytes holds a number")
    return value


def as_text(value: Value) -> str:
    """The text of a field.

    Raises:
        WeightsError: it is none.
    """
    try:
        return bytes(as_bytes(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise WeightsError("a name is not text") from error

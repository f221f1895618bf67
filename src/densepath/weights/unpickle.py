"""Reads pickles of NumPy arrays without running anything that the file names.

A pickle is a program: it names functions and says what to call them with. Here every name is
looked up in the table below and nowhere else, and the table holds stand-ins of our own: NumPy's
own reconstruction is not used either. A name outside the table ends the reading.

Source of the names met: PaddlePaddle 3.3 `paddle.save` at pickle protocols 2, 3 and 4, with
NumPy 1 and 2.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from densepath.errors import UnsafeFileError, WeightsError
from densepath.pickles import ThriftyUnpickler

NUMERIC_KINDS = "biuf"


class _Named:
    """Stands for one function or class that a pickle names; calling it is all one can do."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UnsafeFileError("it tries to change a function")


class _DType:
    """Stands for `numpy.dtype`; takes only plain numbers."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any) -> None:
        try:
            dtype = np.dtype(code) if isinstance(code, str) else None
        except TypeError:
            dtype = None
        if dtype is None or dtype.kind not in NUMERIC_KINDS:
            raise WeightsError(f"it holds values of type {code!r}, not numbers")
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        """Takes the byte order out of NumPy's state (version, order, ...)."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise WeightsError(f"it holds a number type with the byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for `numpy.ndarray` while its state is still to come."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    def __setstate__(self, state: Any) -> None:
        """Takes NumPy's state (version, shape, type, is Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise WeightsError("it holds an array in an unknown form")
        _, shape, dtype, is_fortran, content = state
        self.array = _array(content, dtype, shape, "F" if is_fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """The array of these bytes, after checking that they are exactly what the shape needs."""
    if not isinstance(dtype, _DType) or not isinstance(content, bytes | bytearray):
        raise WeightsError("it holds an array that is not made of plain numbers")
    sides = shape if isinstance(shape, tuple) else (shape,)
    if not all(isinstance(side, int) and side >= 0 for side in sides):
        raise WeightsError(f"it holds an array of the shape {shape!r}")
    needed = math.prod(sides) * dtype.dtype.itemsize
    if needed != len(content):
        raise WeightsError(
            f"it holds an array of shape {sides} with {len(content)} bytes instead of {needed}"
        )
    return np.frombuffer(content, dtype.dtype).reshape(sides, order="F" if order == "F" else "C")


def _encode(text: Any, encoding: Any) -> bytes:
    """Stands for `_codecs.encode`, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafeFileError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """Stands for `numpy.core.numeric._frombuffer`, by which protocol 5 writes arrays."""
    return _Array(_array(content, dtype, shape, order))


def _no_bytes() -> bytes:
    """Stands for `bytes`, by which protocol 2 writes no bytes at all: `bytes()`."""
    return b""


def _reconstruct(*_: Any) -> _Array:
    """Stands for `numpy.core.multiarray._reconstruct`: an array without its state."""
    return _Array()


def _data(expression: Any, names: Any = None) -> Any:
    """Stands for `eval`, which Paddle writes for a raw tensor as `eval('data', {'data': x})`."""
    if expression != "data" or not isinstance(names, dict) or set(names) != {"data"}:
        raise UnsafeFileError("it asks to evaluate an expression")
    return names["data"]


_NUMPY: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": _reconstruct,
    "numeric._frombuffer": _from_buffer,
}
_TABLE: dict[str, Callable[..., Any]] = {
    **{f"numpy.core.{name}": call for name, call in _NUMPY.items()},
    **{f"numpy._core.{name}": call for name, call in _NUMPY.items()},
    "numpy.ndarray": _reconstruct,
    "numpy.dtype": _DType,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "builtins.tuple": tuple,
    "builtins.eval": _data,
    "__builtin__.eval": _data,
    "collections.OrderedDict": dict,
}


class _Unpickler(ThriftyUnpickler):
    """Python's unpickler, with every name answered from the table."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name.

        Raises:
            UnsafeFileError: the table has no such name.
        """
        call = _TABLE.get(f"{module}.{name}")
        if call is None:
            raise UnsafeFileError(f"it asks for {module}.{name}")
        return _Named(call)

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafeFileError("it refers to objects outside the file")


def read_pickle(content: bytes, source: str) -> Any:
    """The value pickled in `content`, made of Python's containers, numbers and NumPy arrays.

    Raises:
        UnsafeFileError: the file names something outside the table.
        WeightsError: it is no pickle, is cut off, or holds something else than numbers.
    """
    try:
        value = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except UnsafeFileError as error:
        raise UnsafeFileError(
            f"{source} is refused: {error}. A weights file holds arrays only; reading this one "
            "in its own framework would run code."
        ) from error
    except WeightsError as error:
        raise WeightsError(f"{source} cannot be read: {error}.") from error
    except Exception as error:  # a hostile or damaged file can make the unpickler raise anything
        raise WeightsError(
            f"{source} cannot be read as a pickle ({error}). It is damaged or incomplete: "
            "compare its size with the publisher's."
        ) from error
    return _resolve(value)


def _resolve(value: Any) -> Any:
    """`value` with the stand-ins of its top level, or of `(name, array)` pairs there, made arrays.

    Deeper ones stay stand-ins; callers take arrays only.
    """
    if isinstance(value, dict):
        return {key: _leaf(item) for key, item in value.items()}
    return _leaf(value)


def _leaf(value: Any) -> Any:
    """The array of a stand-in, or of a Paddle `(name, array)` pair; others as they are."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    if isinstance(value, _Array) and value.array is not None:
        return value.array
    return value

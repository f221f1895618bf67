"""Reads pickles of NumPy arrays without running anything that the file names.

Every name that a pickle asks for is looked up in the table below and nowhere else, and the table
holds stand-ins of our own (`plain_data.py`): NumPy's own reconstruction is not used either. A
name outside the table ends the reading.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from densepath.errors import UnsafeFileError, WeightsError
from densepath.pickles import ThriftyUnpickler
from densepath.weights.plain_data import STAND_INS, leaf


class _Named:
    """Stands for one function or class that a pickle names; calling it is all one can do."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UnsafeFileError("it tries to change a function")


def encode(text: Any, encoding: Any) -> bytes:
    """Stands for `_codecs.encode`, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafeFileError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _data(expression: Any, names: Any = None) -> Any:
    """Stands for `eval`, which Paddle writes for a raw tensor as `eval('data', {'data': x})`."""
    if expression != "data" or not isinstance(names, dict) or set(names) != {"data"}:
        raise UnsafeFileError("it asks to evaluate an expression")
    return names["data"]


def _counter(entries: Any = ()) -> OrderedDict[Any, Any]:
    """Stands for `collections.OrderedDict` and `Counter`: a plain table of the same entries."""
    return OrderedDict(entries)


_TABLE: dict[str, Callable[..., Any]] = {
    **STAND_INS,
    "_codecs.encode": encode,
    "builtins.tuple": tuple,
    "builtins.eval": _data,
    "collections.OrderedDict": _counter,
    "collections.Counter": _counter,
}


class _Unpickler(ThriftyUnpickler):
    """Python's unpickler, with every name answered from the table."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name.

        Raises:
            UnsafeFileError: the table has no such name.
        """
        home = "builtins" if module == "__builtin__" else module  # Python 2's, as protocol 2 has it
        call = _TABLE.get(f"{home}.{name}")
        if call is None:
            raise UnsafeFileError(f"it asks for {module}.{name}")
        # A class of ours may be made without being called, which takes the class itself.
        return call if isinstance(call, type) and call is not tuple else _Named(call)

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what a pickle leaves to its reader."""
        raise UnsafeFileError("it refers to objects outside the file")


def read_pickle(content: bytes, source: str) -> Any:
    """The value pickled in `content`, made of Python's containers, numbers and NumPy arrays.

    Arrays deeper than in a table at the top are still stand-ins, which `leaf` resolves.

    Raises:
        UnsafeFileError: the file names something outside the table.
        WeightsError: it is no pickle, is cut off, or holds arrays in an unknown form.
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
    if isinstance(value, dict):
        return {key: leaf(item) for key, item in dict.items(value)}
    return leaf(value)

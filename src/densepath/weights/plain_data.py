"""What a pickle of weights may name, and what stands for it: plain data, and nothing that acts.

A pickle is a program: it names functions and says what to call them with. No name of this table is
answered with the thing itself: arrays and tables are rebuilt by stand-ins of our own, and all
else that trainers leave in a file (options, paths, dates, a schedule's counters) becomes `Unread`,
which takes whatever it is given and keeps nothing. A name outside the table is refused by whoever
reads.

Source of the names met: files of PyTorch 1.13 to 2.13 and Lightning 1 and 2 trainers, of
PaddlePaddle 3.3 `paddle.save` at pickle protocols 2, 3 and 4, with NumPy 1 and 2.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from densepath.errors import WeightsError

NUMERIC_KINDS = "biuf"


class Unread:
    """Stands for an object that is no weight; it keeps nothing of what it is made from."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> Unread:
        """One more, whatever the arguments."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Take any state, and keep none."""


class PlainTable:
    """Stands for classes that are dicts with something added: making one gives a plain table."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """An empty table; its entries are set later."""
        return OrderedDict()

    def __setstate__(self, state: Any) -> None:
        """Set nothing, so that a pickle which changes the class itself fails."""


class DType:
    """Stands for `numpy.dtype`; `dtype` is None where the values are no plain numbers."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *_: Any) -> None:
        try:
            dtype = np.dtype(code) if isinstance(code, str) else None
        except (TypeError, ValueError):
            dtype = None
        numeric = dtype is not None and dtype.kind in NUMERIC_KINDS
        self.dtype = dtype if numeric else None

    def __setstate__(self, state: Any) -> None:
        """Take the byte order out of NumPy's state (version, order, ...)."""
        if self.dtype is None:
            return
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise WeightsError(f"it holds a number type with the byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class Array:
    """Stands for `numpy.ndarray`; `array` is None until its state comes, or where it is unread."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    def __setstate__(self, state: Any) -> None:
        """Take NumPy's state (version, shape, type, is Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise WeightsError("it holds an array in an unknown form")
        _, shape, dtype, is_fortran, content = state
        self.array = _array(content, dtype, shape, "F" if is_fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray | None:
    """The array of these bytes, which must be exactly what the shape needs; None: no numbers."""
    if not isinstance(dtype, DType):
        raise WeightsError("it holds an array that is not made of plain numbers")
    if dtype.dtype is None:
        return None
    if not isinstance(content, bytes | bytearray):
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


def _scalar(dtype: Any, content: Any = None) -> Array:
    """Stands for `numpy.core.multiarray.scalar`: one number, as an array without sides."""
    return Array(_array(content, dtype, (), "C"))


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Stands for `numpy.core.numeric._frombuffer`, by which protocol 5 writes arrays."""
    return Array(_array(content, dtype, shape, order))


def _reconstruct(*_: Any) -> Array:
    """Stands for `numpy.core.multiarray._reconstruct`: an array without its state."""
    return Array()


def _no_bytes() -> bytes:
    """Stands for `bytes`, by which protocol 2 writes no bytes at all: `bytes()`."""
    return b""


def _deque(entries: Any = (), _: Any = None) -> list[Any]:
    """Stands for `collections.deque`, as a smoothed figure keeps its last values: a plain list."""
    return list(entries)


_NUMPY: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": _reconstruct,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _from_buffer,
}
_UNREAD = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePath")),
    *(f"pathlib.{name}" for name in ("PurePosixPath", "PureWindowsPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePath")),
    *(f"pathlib._local.{name}" for name in ("PurePosixPath", "PureWindowsPath")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    "decimal.Decimal",
    "fractions.Fraction",
    "uuid.UUID",
    "typing.Any",
    # The types that a table's default, or an option's type, is.
    *(f"builtins.{name}" for name in ("int", "float", "bool", "str", "list", "dict")),
    *(f"builtins.{name}" for name in ("range", "xrange", "slice", "set", "frozenset", "complex")),
    # The states of NumPy's random generators.
    *(f"numpy.random._pickle.__{kind}_ctor" for kind in ("generator", "bit_generator")),
    "numpy.random._pickle.__randomstate_ctor",
    "numpy.random._mt19937.MT19937",
    "numpy.random._pcg64.PCG64",
    "numpy.random.bit_generator.SeedSequence",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    # OmegaConf and Hydra, with which Lightning keeps a run's options.
    *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata", "SCMode")),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Integer", "Float", "String", "Boolean")),
    "omegaconf.nodes.PathNode",
    "omegaconf.nodes.BytesNode",
    "omegaconf.nodes.EnumNode",
)
_TABLES = (
    "easydict.EasyDict",
    "addict.addict.Dict",
    "yacs.config.CfgNode",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)
# Name → stand-in. Classes of this module are made by REDUCE or NEWOBJ; functions are called.
STAND_INS: dict[str, Callable[..., Any]] = {
    **{f"numpy.core.{name}": call for name, call in _NUMPY.items()},
    **{f"numpy._core.{name}": call for name, call in _NUMPY.items()},
    "numpy.ndarray": Array,
    "numpy.dtype": DType,
    "builtins.bytes": _no_bytes,
    **dict.fromkeys(_UNREAD, Unread),
    "collections.defaultdict": PlainTable,
    "collections.deque": _deque,
    **dict.fromkeys(_TABLES, PlainTable),
}


def leaf(value: Any) -> Any:
    """The array of a stand-in, or of a Paddle `(name, array)` pair; others as they are."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    if isinstance(value, Array):
        return Unread() if value.array is None else value.array
    return value

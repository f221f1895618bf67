"""What a pickle of PyTorch may call, and what stands for it: tensors of the file's own bytes.

Nothing of this table is torch's own function: a tensor is made of a stretch of the file, which is
held against the file's length first; lists and tables are plain ones; all else keeps nothing.

Source: torch 2.13 `torch.serialization`, `torch._utils`, `torch.jit._pickle`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from densepath.errors import UnsafeFileError, WeightsError
from densepath.pickles import check_key
from densepath.weights.plain_data import STAND_INS, Unread
from densepath.weights.stand_ins import Inert, Named
from densepath.weights.unpickle import encode

_COMPILED_MODULE = "torch._dynamo.eval_frame.OptimizedModule"
DTYPES: dict[str, torch.dtype] = {
    f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)
}
_STORAGES: dict[str, torch.dtype] = {
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16},
    **{"BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16},
    **{"Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool, "Untyped": torch.uint8},
    **{"ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
}


@dataclass(frozen=True)
class Storage:
    """A stretch of bytes of the file, as numbers.

    Attributes:
        dtype: of its numbers.
        numel: how many there are.
        content: gives the bytes of the stretch that it lies in.
        start_bytes: where it begins in them.
    """

    dtype: torch.dtype
    numel: int
    content: Callable[[], bytearray]
    start_bytes: int = 0


class Call:
    """Stands for a function that may be called; `call` is ours."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


def _whole(values: Any) -> tuple[int, ...]:
    """Sides or strides: whole numbers that are not negative.

    Raises:
        WeightsError: they are something else.
    """
    numbers = tuple(values) if isinstance(values, tuple | list) else (values,)
    if not all(type(one) is int and 0 <= one < 1 << 62 for one in numbers) or len(numbers) > 16:
        raise WeightsError(f"it holds a tensor of the shape {str(values)[:60]}")
    return numbers


def rebuild(storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> Any:
    """The tensor of a part of a storage; unread where it repeats its numbers.

    Raises:
        WeightsError: it reaches beyond the storage.
    """
    if not isinstance(storage, Storage):
        raise WeightsError("it holds a tensor without numbers")
    sides, steps, (start,) = _whole(size), _whole(stride), _whole(offset)
    kind = dtype if isinstance(dtype, torch.dtype) else storage.dtype
    size_bytes = storage.numel * storage.dtype.itemsize
    last = start + sum((side - 1) * step for side, step in zip(sides, steps, strict=False))
    if len(sides) != len(steps):
        raise WeightsError(f"it holds a tensor of {len(sides)} sides with {len(steps)} strides")
    count = math.prod(sides)
    if count == 0:
        return torch.zeros(sides, dtype=kind)
    if (last + 1) * kind.itemsize > size_bytes:
        raise WeightsError(f"it holds a tensor of shape {list(sides)} that is not in it whole")
    if count * kind.itemsize > size_bytes:
        return Unread()
    flat = torch.frombuffer(
        storage.content(), dtype=kind, count=last + 1, offset=storage.start_bytes
    )
    return torch.as_strided(flat, sides, steps, start)


def _tensor_v1(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    """Stands for `_rebuild_tensor` and `_rebuild_tensor_v2`."""
    return rebuild(storage, offset, size, stride)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> Any:
    """Stands for `_rebuild_tensor_v3`: a type of numbers that has no storage of its own."""
    return rebuild(storage, offset, size, stride, dtype)


def _parameter(data: Any = None, *_: Any) -> Any:
    """Stands for `_rebuild_parameter` and `Parameter`: the tensor itself."""
    return data


def _of_type(call: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """Stands for `_rebuild_from_type_v2`, by which tensors of other classes are written."""
    if not isinstance(call, Call) or not isinstance(arguments, tuple):
        raise UnsafeFileError("it rebuilds a tensor by a function of its own")
    return call.call(*arguments)


def _unread(*_: Any, **__: Any) -> Unread:
    """Stands for what is no dense tensor, and for plain data of torch."""
    return Unread()


def _table(entries: Any = ()) -> OrderedDict[Any, Any]:
    """Stands for `OrderedDict`, with what Python 2 gave it.

    Raises:
        WeightsError: entries that are no pairs.
    """
    made: OrderedDict[Any, Any] = OrderedDict()
    pairs = dict.items(entries) if isinstance(entries, dict) else entries
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise WeightsError("it holds a table in an unknown form")
        check_key(pair[0])
        made[pair[0]] = pair[1]
    return made


def _set(members: Any = ()) -> set[str]:
    """Stands for `set`: the names in it, as of a module's buffers that are not saved."""
    return {one for one in members if isinstance(one, str)} if isinstance(members, list) else set()


def _attribute(owner: Any, *_: Any) -> Unread:
    """Stands for `getattr`, by which a method of an object is written; of nothing else.

    Raises:
        UnsafeFileError: it asks for a part of a class, function or text.
    """
    if not isinstance(owner, Inert | Unread):
        raise UnsafeFileError("it asks for builtins.getattr")
    return Unread()


def _list(values: Any = (), *_: Any) -> Any:
    """Stands for TorchScript's lists: the values."""
    return values


def _compiled(original: Any, *_: Any) -> Inert:
    """Stands for the module around a compiled one, which is among its parts."""
    made = Inert(_COMPILED_MODULE)
    made.set({"_modules": {"_orig_mod": original}})
    return made


_UTILS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor_v1,
    "_rebuild_tensor_v2": _tensor_v1,
    "_rebuild_tensor_v3": _tensor_v3,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
    **dict.fromkeys(
        (
            *("_rebuild_sparse_tensor", "_rebuild_sparse_csr_tensor", "_rebuild_nested_tensor"),
            *("_rebuild_qtensor", "_rebuild_meta_tensor_no_storage", "_rebuild_wrapper_subclass"),
            "_rebuild_device_tensor_from_numpy",
            "_rebuild_device_tensor_from_cpu_tensor",
        ),
        _unread,
    ),
}
CALLS: dict[str, Callable[..., Any]] = {
    **STAND_INS,
    **{f"torch._utils.{name}": call for name, call in _UTILS.items()},
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.nn.parameter.Buffer": _parameter,
    "torch.tensor._rebuild_from_type_v2": _of_type,
    **dict.fromkeys((f"torch.{kind}" for kind in ("device", "Size", "Generator")), _unread),
    **{f"torch.jit._pickle.build_{kind}list": _list for kind in ("int", "double", "bool")},
    "torch.jit._pickle.build_tensorlist": _list,
    "torch.jit._pickle.restore_type_tag": _list,
    "torch.jit._pickle.build_tensor_from_id": _unread,
    _COMPILED_MODULE: _compiled,
    "collections.OrderedDict": _table,
    "collections.Counter": _table,
    "builtins.set": _set,
    "builtins.getattr": _attribute,
    "_codecs.encode": encode,
    "torch.serialization._get_layout": _unread,
}  # fmt: skip


def storage_type(kind: Any) -> torch.dtype:
    """The numbers of a storage's class.

    Raises:
        WeightsError: it is none that is known.
    """
    if isinstance(kind, torch.dtype):
        return kind
    name = kind.name.rpartition(".")[2].removesuffix("Storage") if isinstance(kind, Named) else ""
    if name not in _STORAGES:
        raise WeightsError(f"it holds numbers of the unknown type {name or kind!r}")
    return _STORAGES[name]

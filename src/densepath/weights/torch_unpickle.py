"""Reads the pickles of `torch.save` and TorchScript without running anything that they name.

Of any protocol. Functions that are called must be in the table below, which rebuilds tensors from
the file's own bytes; classes, of the networks' libraries or of the user's own program, are answered
by stand-ins (`stand_ins.py`). Any other name ends the reading.

Source: torch 2.13 `torch.serialization`, `torch._utils`, `torch.jit._pickle`.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from densepath.errors import UnsafeFileError, WeightsError
from densepath.pickles import ThriftyUnpickler, check_key
from densepath.weights.plain_data import STAND_INS, Unread
from densepath.weights.stand_ins import Inert, Named
from densepath.weights.unpickle import encode

# Whose classes may be anywhere in a file: a layer's attribute is often an object of another class.
_LIBRARIES = (
    *("__torch__", "torch", "torchvision", "timm", "monai", "torchxrayvision", "torchmetrics"),
    *("lightning", "pytorch_lightning", "lightning_fabric", "lightning_utilities"),
    *("fastai", "fastcore", "pretrainedmodels", "segmentation_models_pytorch", "ultralytics"),
    *("efficient_densenet_pytorch", "transformers", "contextlib"),
)
_COMPILED_MODULE = "torch._dynamo.eval_frame.OptimizedModule"
_DTYPES: dict[str, torch.dtype] = {
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


class _Call:
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
    if not isinstance(call, _Call) or not isinstance(arguments, tuple):
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
_CALLS: dict[str, Callable[..., Any]] = {
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
# What `torch.compile` leaves in a pickled network: calls that are not made, and objects not kept.
_COMPILED = ("torch._dynamo.", "torch._TorchCompile", "contextlib.nullcontext")


def _is_of_library(name: str) -> bool:
    """Whether a class is of a library that these networks are made of."""
    return name.partition(".")[0] in _LIBRARIES


class TorchUnpickler(ThriftyUnpickler):
    """Python's unpickler, whose every way to act goes through the table or a stand-in.

    Attributes:
        strangers: names outside the table and the libraries that are no class of a network, nor of
            an object with attributes.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(ThriftyUnpickler.dispatch)

    def __init__(self, content: bytes, storage: Callable[[tuple[Any, ...]], Any]) -> None:
        self._file = io.BytesIO(content)
        super().__init__(self._file, encoding="utf-8", errors="replace")
        self._storage = storage
        self.strangers: dict[str, None] = {}

    def tell(self) -> int:
        """Where in the content the value ended."""
        return self._file.tell()

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        home = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        full = f"{home}.{name}"
        if full in _CALLS:
            return _Call(_CALLS[full])
        if full in _DTYPES:
            return _DTYPES[full]
        if home.startswith("torch") and name.endswith("Storage"):
            return Named(full)
        if not _is_of_library(full):
            self.strangers[full] = None
        return Named(full)

    def persistent_load(self, pid: Any) -> Any:
        """The storage that a pickle refers to; or a class that comes with its source."""
        if not isinstance(pid, tuple) or len(pid) < 2:
            raise UnsafeFileError("it refers to objects outside the file")
        kind = pid[0].decode("ascii", "replace") if isinstance(pid[0], bytes) else pid[0]
        if kind == "module" and isinstance(pid[1], Named):
            return pid[1]
        if kind != "storage":
            raise UnsafeFileError("it refers to objects outside the file")
        return self._storage(pid[1:])

    def _make(self, kind: Any, arguments: Any, options: Any = None) -> Any:
        """An object of a class, which is made of nothing and filled later.

        Raises:
            UnsafeFileError: it is made of something, or is of no class.
        """
        if isinstance(kind, _Call):
            return self._call(kind, arguments)
        if not isinstance(kind, Named):
            raise UnsafeFileError("it makes an object of what is no class")
        if arguments not in ((), []) or options:
            raise UnsafeFileError(f"it asks for {kind.name}")
        return Inert(kind.name)

    def _call(self, function: Any, arguments: Any) -> Any:
        """What a function of the table gives.

        Raises:
            UnsafeFileError: it is outside the table.
        """
        if isinstance(function, Named):
            if function.name.startswith(_COMPILED):
                return Unread()
            raise UnsafeFileError(f"it asks for {function.name}")
        if not isinstance(function, _Call) or not isinstance(arguments, tuple | list):
            raise UnsafeFileError("it calls what is no function")
        return function.call(*arguments)

    def load_reduce(self: Any) -> None:
        """A call, or an object by `copyreg`, which protocols 0 and 1 write."""
        arguments = self.stack.pop()
        function = self.stack[-1]
        if isinstance(function, Named) and function.name == "copyreg._reconstructor":
            self.strangers.pop(function.name, None)
            kind, base, *_ = arguments if isinstance(arguments, tuple) and arguments else (0, 0)
            if isinstance(base, Named):
                self.strangers.pop(base.name, None)
            self.stack[-1] = self._make(kind, ())
        else:
            self.stack[-1] = self._call(function, arguments)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self: Any) -> None:
        """An object of a class."""
        arguments = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], arguments)

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_newobj_ex(self: Any) -> None:
        """An object of a class with named arguments."""
        options = self.stack.pop()
        arguments = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], arguments, options)

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def _instantiate(self: Any, kind: Any, arguments: Any) -> None:
        """An object of a class, as protocols 0 and 1 write it."""
        self.append(self._make(kind, tuple(arguments)))

    def load_build(self: Any) -> None:
        """The attributes of a stand-in; those of plain data are not kept.

        Raises:
            UnsafeFileError: they are set on a class or function.
        """
        state = self.stack.pop()
        made = self.stack[-1]
        if isinstance(made, Inert):
            made.set(state)
            if made.state or made.is_module:
                self.strangers.pop(made.kind, None)
        elif isinstance(made, Named | _Call):
            raise UnsafeFileError("it tries to change a function")
        elif not isinstance(made, dict | list | Tensor) and hasattr(made, "__setstate__"):
            made.__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build

    def load_appends(self: Any) -> None:
        """More entries of a list, or of what is none, whose are not kept."""
        entries = self.pop_mark()
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(entries)

    dispatch[pickle.APPENDS[0]] = load_appends

    def load_append(self: Any) -> None:
        """One more entry of a list, or of what is none, whose are not kept."""
        entry = self.stack.pop()
        if isinstance(self.stack[-1], list):
            self.stack[-1].append(entry)

    dispatch[pickle.APPEND[0]] = load_append


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


def unpickle(content: bytes, storage: Callable[[tuple[Any, ...]], Any]) -> tuple[Any, int]:
    """The value pickled in `content`, and where it ends.

    Args:
        content: begins with the pickle.
        storage: gives the `Storage` of a storage's id.

    Raises:
        UnsafeFileError: the file asks for code to be run.
        Exception: whatever a damaged pickle makes Python's unpickler raise.
    """
    reader = TorchUnpickler(content, storage)
    value = reader.load()
    if reader.strangers:
        raise UnsafeFileError(f"it asks for {next(iter(reader.strangers))}")
    return value, reader.tell()

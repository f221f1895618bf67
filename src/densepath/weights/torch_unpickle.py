"""Reads the pickles of `torch.save` and TorchScript without running anything that they name.

Of any protocol. Functions that are called must be in the table of `torch_calls.py`, which rebuilds
tensors from the file's own bytes; classes, of the networks' libraries or of the user's own program,
are answered by stand-ins (`stand_ins.py`). Any other name ends the reading.

Source: torch 2.13 `torch.serialization`, `torch._utils`, `torch.jit._pickle`; files of torch 0.4
to 2.13.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from densepath.errors import UnsafeFileError
from densepath.pickles import ThriftyUnpickler
from densepath.weights.plain_data import Unread
from densepath.weights.stand_ins import Inert, Named
from densepath.weights.torch_calls import CALLS, DTYPES, Call

# Whose classes may be anywhere in a file: a layer's attribute is often an object of another class.
_LIBRARIES = (
    *("__torch__", "torch", "torchvision", "timm", "monai", "torchxrayvision", "torchmetrics"),
    *("lightning", "pytorch_lightning", "lightning_fabric", "lightning_utilities"),
    *("fastai", "fastcore", "pretrainedmodels", "segmentation_models_pytorch", "ultralytics"),
    *("efficient_densenet_pytorch", "transformers", "contextlib"),
)
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
        if full in CALLS:
            return Call(CALLS[full])
        if full in DTYPES:
            return DTYPES[full]
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
        if isinstance(kind, Call):
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
        if not isinstance(function, Call) or not isinstance(arguments, tuple | list):
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
        elif isinstance(made, Named | Call):
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

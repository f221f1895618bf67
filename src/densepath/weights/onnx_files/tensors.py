"""The tensors of an ONNX file: initialisers, also those in files beside it, and what is computed
of them alone.

Nothing is read from outside the folder of the file, and no more than its files hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from densepath.errors import UnsafeFileError, WeightsError

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

# Values that ConstantOfShape, or arithmetic of constants, may make in all: DPN-107 has 87 million.
MOST_MADE = 120_000_000
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


# What NumPy and protobuf raise on values of the wrong kind or shape.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


class Constants:
    """The constant values of a graph by name, read when they are asked for.

    Attributes:
        path: of the file, for the files beside it and for messages.
    """

    def __init__(self, path: Path, initialisers: Mapping[str, TensorProto]) -> None:
        self.path = path
        self._stored = dict(initialisers)
        self._arrays: dict[str, np.ndarray] = {}
        self._made = 0
        self._external = 0

    def __contains__(self, name: str) -> bool:
        """Whether a value is constant."""
        return name in self._arrays or name in self._stored

    def get(self, name: str) -> np.ndarray:
        """The constant value of that name.

        Raises:
            UnsafeFileError: it lies outside the file's folder.
            WeightsError: it is damaged.
        """
        if name not in self._arrays:
            self._arrays[name] = self._read(self._stored[name])
        return self._arrays[name]

    def weights(self) -> list[str]:
        """The initialisers that hold more than one float: what must belong to a layer."""
        from onnx import TensorProto as Proto

        floats = (Proto.FLOAT, Proto.FLOAT16, Proto.BFLOAT16, Proto.DOUBLE)
        return [
            name
            for name, tensor in self._stored.items()
            if tensor.data_type in floats and math.prod(tensor.dims) > 1
        ]

    def fold(self, node: NodeProto, attributes: Mapping[str, Any]) -> bool:
        """Whether a node's result is constant; if so, it is known from here on.

        Raises:
            WeightsError: it cannot be computed, or is too large.
        """
        rule = _RULES.get(node.op_type)
        names = [name for name in node.input if name]
        if rule is None or node.domain not in ("", "ai.onnx") or not node.output:
            return False
        if not all(name in self for name in names):
            return False
        if not names and node.op_type != "Constant":
            return False
        try:
            value = self._constant(attributes) if node.op_type == "Constant" else None
            if value is None:
                inputs = [self.get(name) for name in names]
                self._count(node, inputs)
                value = rule(inputs, attributes)
        except _DAMAGE as error:
            raise WeightsError(
                f"{self.path}: the constant {node.output[0]!r} ({node.op_type}) cannot be "
                f"computed: {error}"
            ) from error
        self._arrays[node.output[0]] = value
        return True

    def _count(self, node: NodeProto, inputs: list[np.ndarray]) -> None:
        """Raise unless the result of a rule is of a size that weights have."""
        if node.op_type == "ConstantOfShape":
            shape = [int(side) for side in inputs[0].reshape(-1)]
            if min(shape, default=0) < 0:
                raise ValueError(f"the shape {shape}")
            size = math.prod(shape)
        else:
            size = max(one.size for one in inputs)
            if node.op_type in _PAIRS:
                size = math.prod(np.broadcast_shapes(*(one.shape for one in inputs)))
        self._made += size
        if self._made > MOST_MADE:
            raise WeightsError(
                f"{self.path}: {node.output[0]!r} would have {size:,} values; a network of these "
                "families has fewer in all."
            )

    def _constant(self, attributes: Mapping[str, Any]) -> np.ndarray:
        """The value of a Constant node."""
        if "value" in attributes:
            return self._read(attributes["value"])
        for name, kind in (("float", np.float32), ("int", np.int64)):
            for form in (f"value_{name}", f"value_{name}s"):
                if form in attributes:
                    return np.asarray(attributes[form], kind)
        # Texts and sparse tensors are no weights.
        return np.zeros(0)

    def _read(self, tensor: TensorProto) -> np.ndarray:
        """The array of a tensor, its bytes compared with its shape before any is made."""
        from onnx import TensorProto as Proto
        from onnx import helper, numpy_helper

        dims = list(tensor.dims)
        if min(dims, default=0) < 0:
            raise WeightsError(f"{self.path}: {tensor.name!r} has the shape {dims}.")
        if tensor.data_location == Proto.EXTERNAL:
            return self._read_external(tensor, dims)
        try:
            itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            held = len(tensor.raw_data) // max(itemsize, 1) * (1 if itemsize > 1 else 2)
            held = max(held, *(len(getattr(tensor, field)) for field in _TYPED_FIELDS))
            if math.prod(dims) > held * 2 + len(tensor.string_data):
                raise ValueError(f"it holds {held:,} values instead of {math.prod(dims):,}")
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError) as error:
            raise WeightsError(
                f"{self.path}: the tensor {tensor.name!r} is damaged: {error}"
            ) from error
        return array

    def _read_external(self, tensor: TensorProto, dims: list[int]) -> np.ndarray:
        """The array of a tensor that lies in a file beside this one."""
        from onnx import helper

        where = {entry.key: entry.value for entry in tensor.external_data}
        file = self._beside(where.get("location", ""), tensor.name)
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
            offset = int(where.get("offset", 0))
            needed = math.prod(dims) * dtype.itemsize
            length = int(where.get("length", needed))
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{self.path}: the place of {tensor.name!r} is damaged: {error}"
            ) from error
        held = file.stat().st_size
        if length != needed or offset < 0 or offset + needed > held:
            raise WeightsError(
                f"{self.path}: {tensor.name!r} needs {needed:,} bytes from byte {offset:,} of "
                f"{file.name}, which has {held:,}; copy that file again."
            )
        self._external += needed
        if self._external > 2 * MOST_MADE * 4:
            raise WeightsError(
                f"{self.path}: its tensors are larger than those of any network here."
            )
        with file.open("rb") as stream:
            stream.seek(offset)
            return np.frombuffer(stream.read(needed), dtype).reshape(dims)

    def _beside(self, location: str, name: str) -> Path:
        """The file of that name in the folder of this one.

        Raises:
            UnsafeFileError: it lies elsewhere.
            WeightsError: there is none.
        """
        posix, windows = PurePosixPath(location), PureWindowsPath(location)
        outside = not location or bool(windows.drive) or "\0" in location or posix.is_absolute()
        folder = self.path.parent.resolve()
        if not outside:
            file = (folder / location).resolve()
            outside = ".." in (*posix.parts, *windows.parts) or not file.is_relative_to(folder)
        if outside:
            raise UnsafeFileError(
                f"{self.path}: the tensor {name!r} asks for the file {location!r}, which is not in "
                "the folder of the model; only files beside it are read."
            )
        if not file.is_file():
            raise WeightsError(
                f"{self.path}: its weights lie in the file {location!r} beside it, which is "
                "missing; copy it, too."
            )
        return file


Rule = Callable[[list[np.ndarray], Mapping[str, Any]], np.ndarray]


def _constant_of_shape(inputs: list[np.ndarray], attributes: Mapping[str, Any]) -> np.ndarray:
    """One value in every place, without the memory for each."""
    from onnx import numpy_helper

    value = np.zeros(1, np.float32)
    if "value" in attributes:
        value = numpy_helper.to_array(attributes["value"]).reshape(-1)[:1]
    return np.broadcast_to(value[0], [int(side) for side in inputs[0].reshape(-1)])


def _axes(inputs: list[np.ndarray], attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """The axes of Squeeze and Unsqueeze, an attribute up to opset 12 and an input from 13."""
    given = inputs[1].reshape(-1) if len(inputs) > 1 else attributes.get("axes", ())
    return tuple(int(axis) for axis in given)


def _squeeze(inputs: list[np.ndarray], attributes: Mapping[str, Any]) -> np.ndarray:
    """Without axes of one place."""
    return np.squeeze(inputs[0], _axes(inputs, attributes) or None)


def _unsqueeze(inputs: list[np.ndarray], attributes: Mapping[str, Any]) -> np.ndarray:
    """With further axes of one place."""
    return np.expand_dims(inputs[0], _axes(inputs, attributes))


def _reshape(inputs: list[np.ndarray], attributes: Mapping[str, Any]) -> np.ndarray:
    """In another shape; 0 keeps a side."""
    given = inputs[1].reshape(-1) if len(inputs) > 1 else attributes.get("shape", ())
    shape = [int(side) for side in given]
    return inputs[0].reshape(
        [inputs[0].shape[i] if side == 0 else side for i, side in enumerate(shape)]
    )


def _transpose(inputs: list[np.ndarray], attributes: Mapping[str, Any]) -> np.ndarray:
    """With the axes in another order."""
    return np.transpose(inputs[0], attributes.get("perm"))


def _cast(inputs: list[np.ndarray], attributes: Mapping[str, Any]) -> np.ndarray:
    """In another type."""
    from onnx import helper

    return inputs[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _pair_rule(rule: Callable[..., np.ndarray]) -> Rule:
    """The rule of two operands."""
    return lambda inputs, _: rule(*inputs)


_PAIRS: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
}
_RULES: dict[str, Rule] = {
    "Constant": lambda inputs, _: np.zeros(0),
    "ConstantOfShape": _constant_of_shape,
    "Identity": lambda inputs, _: inputs[0],
    "Cast": _cast,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Sqrt": lambda inputs, _: np.sqrt(inputs[0]),
    "Reciprocal": lambda inputs, _: np.reciprocal(inputs[0]),
    "Neg": lambda inputs, _: np.negative(inputs[0]),
    **{name: _pair_rule(rule) for name, rule in _PAIRS.items()},
}

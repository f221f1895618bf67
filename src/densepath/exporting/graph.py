"""A runtime's graph, built with Python's operators: what `preprocess_graph.py` is written in.

A runtime brings an `Operations`; a `GraphTensor` is one of its tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

NumberKind = Literal["whole", "real", "byte", "truth"]


class Operations(ABC):
    """What a runtime must be able to do; its tensors are opaque here.

    Names of `apply` and their meaning are those of ONNX: Add, Sub, Mul, Min, Max, Less, Greater,
    And, Where, Floor, Abs, Round, MatMul.
    """

    @abstractmethod
    def constant(self, value: Any, kind: NumberKind) -> Any:
        """A tensor of the numbers or array `value`."""

    @abstractmethod
    def apply(self, name: str, *tensors: Any) -> Any:
        """The tensor that the operation `name` makes."""

    @abstractmethod
    def floor_divide(self, a: Any, b: Any) -> Any:
        """⌊a / b⌋ of whole numbers, b above 0; exact."""

    @abstractmethod
    def cast(self, tensor: Any, kind: NumberKind) -> Any:
        """The tensor's values as another kind; real → whole truncates."""

    @abstractmethod
    def dimension(self, tensor: Any, axis: int) -> Any:
        """The whole number of rank 0 that is the tensor's size along an axis."""

    @abstractmethod
    def count(self, number: Any) -> Any:
        """The whole numbers 0 … number − 1."""

    @abstractmethod
    def take(self, tensor: Any, places: Any, axis: int) -> Any:
        """The tensor's slices at the whole numbers `places`, of rank 1, along an axis."""

    @abstractmethod
    def cut(self, tensor: Any, start: Any, stop: Any, axis: int) -> Any:
        """The tensor from `start` to before `stop` along an axis."""

    @abstractmethod
    def reshape(self, tensor: Any, shape: Sequence[int]) -> Any:
        """The tensor in another shape; one number may be −1, and 0 keeps the size at its place."""

    @abstractmethod
    def transpose(self, tensor: Any, order: Sequence[int]) -> Any:
        """The tensor with its axes in another order."""

    @abstractmethod
    def sum(self, tensor: Any, axis: int) -> Any:
        """The sum along an axis, which stays with size 1."""

    @abstractmethod
    def either(self, condition: Any, yes: Body, no: Body, *tensors: GraphTensor) -> GraphTensor:
        """`yes(*tensors)` where the condition of rank 0 holds, else `no(*tensors)`."""

    @abstractmethod
    def each(self, body: Body, number: int, *tensors: GraphTensor) -> GraphTensor:
        """`body(i, *tensors)` of i = 0 … number − 1 (rank 0), stacked along a new first axis."""

    @abstractmethod
    def rounded_side(self, long: GraphTensor, short: GraphTensor, resize_short: int) -> GraphTensor:
        """Python's `round(long * (resize_short / short))`, to the last half."""

    @abstractmethod
    def resize_like_pillow(
        self, image: GraphTensor, rows: Axis, columns: Axis, kernel: str, channels: int
    ) -> GraphTensor:
        """The crop of the byte image [height, width, channels] resized by Pillow's arithmetic."""


@dataclass(frozen=True, eq=False)
class GraphTensor:
    """A runtime's tensor with Python's operators; numbers become constants of its kind."""

    to: Operations
    handle: Any
    kind: NumberKind

    def __add__(self, other: GraphTensor | float) -> GraphTensor:
        return self._apply("Add", other)

    def __sub__(self, other: GraphTensor | float) -> GraphTensor:
        return self._apply("Sub", other)

    def __rsub__(self, other: float) -> GraphTensor:
        return self.constant(other)._apply("Sub", self)

    def __mul__(self, other: GraphTensor | float) -> GraphTensor:
        return self._apply("Mul", other)

    def __truediv__(self, other: GraphTensor | float) -> GraphTensor:
        return self._apply("Div", other)

    def __floordiv__(self, other: GraphTensor | float) -> GraphTensor:
        return self._new(self.to.floor_divide(self.handle, self._like(other).handle))

    def __matmul__(self, other: GraphTensor) -> GraphTensor:
        return self._apply("MatMul", other)

    def __and__(self, other: GraphTensor) -> GraphTensor:
        return self._apply("And", other)

    def __lt__(self, other: GraphTensor | float) -> GraphTensor:
        return self._apply("Less", other, "truth")

    def __gt__(self, other: GraphTensor | float) -> GraphTensor:
        return self._apply("Greater", other, "truth")

    def least(self, other: GraphTensor | float) -> GraphTensor:
        """The smaller of the two."""
        return self._apply("Min", other)

    def most(self, other: GraphTensor | float) -> GraphTensor:
        """The larger of the two."""
        return self._apply("Max", other)

    def floor(self) -> GraphTensor:
        """The next whole number below."""
        return self._new(self.to.apply("Floor", self.handle))

    def round(self) -> GraphTensor:
        """The nearest whole number, halves to the even one."""
        return self._new(self.to.apply("Round", self.handle))

    def absolute(self) -> GraphTensor:
        """The absolute values."""
        return self._new(self.to.apply("Abs", self.handle))

    def where(self, yes: GraphTensor, no: GraphTensor | float) -> GraphTensor:
        """`yes` where this holds, else `no`."""
        other = yes._like(no)
        return yes._new(self.to.apply("Where", self.handle, yes.handle, other.handle))

    def either(self, yes: Body, no: Body, *tensors: GraphTensor) -> GraphTensor:
        """`yes(*tensors)` if this of rank 0 holds, else `no(*tensors)`; only one is computed."""
        return self.to.either(self.handle, yes, no, *tensors)

    def cast(self, kind: NumberKind) -> GraphTensor:
        """The values as another kind; real → whole truncates."""
        return GraphTensor(self.to, self.to.cast(self.handle, kind), kind)

    def dimension(self, axis: int) -> GraphTensor:
        """The size along an axis."""
        return GraphTensor(self.to, self.to.dimension(self.handle, axis), "whole")

    def count(self) -> GraphTensor:
        """The whole numbers below this one."""
        return self._new(self.to.count(self.handle))

    def take(self, places: GraphTensor, axis: int) -> GraphTensor:
        """The slices at `places` along an axis."""
        return self._new(self.to.take(self.handle, places.handle, axis))

    def cut(self, start: GraphTensor, stop: GraphTensor, axis: int) -> GraphTensor:
        """The part from `start` to before `stop` along an axis."""
        return self._new(self.to.cut(self.handle, start.handle, stop.handle, axis))

    def reshape(self, *shape: int) -> GraphTensor:
        """The values in another shape."""
        return self._new(self.to.reshape(self.handle, shape))

    def transpose(self, *order: int) -> GraphTensor:
        """The values with the axes in another order."""
        return self._new(self.to.transpose(self.handle, order))

    def sum(self, axis: int) -> GraphTensor:
        """The sum along an axis, which stays with size 1."""
        return self._new(self.to.sum(self.handle, axis))

    def constant(self, value: Any, kind: NumberKind | None = None) -> GraphTensor:
        """Another tensor of the same runtime: `value` as this one's kind or as `kind`."""
        wanted = kind or self.kind
        return GraphTensor(self.to, self.to.constant(value, wanted), wanted)

    def _like(self, other: GraphTensor | float) -> GraphTensor:
        """The value as a tensor of this one's kind, unless it is a tensor already."""
        return other if isinstance(other, GraphTensor) else self.constant(other)

    def _apply(
        self, name: str, other: GraphTensor | float, kind: NumberKind | None = None
    ) -> GraphTensor:
        """The result of an operation on this tensor and the others."""
        handle = self.to.apply(name, self.handle, self._like(other).handle)
        return GraphTensor(self.to, handle, kind or self.kind)

    def _new(self, handle: Any) -> GraphTensor:
        """A tensor of the same runtime with this handle."""
        return GraphTensor(self.to, handle, self.kind)


Body = Callable[..., GraphTensor]


@dataclass(frozen=True)
class Axis:
    """One axis of the image: `old` pixels become `target`, of which `size` from `first` on stay."""

    old: GraphTensor
    target: GraphTensor
    first: GraphTensor
    size: int

    @property
    def numbers(self) -> tuple[GraphTensor, GraphTensor, GraphTensor]:
        """All but the size."""
        return self.old, self.target, self.first

    @property
    def last(self) -> GraphTensor:
        """The position after the last that stays."""
        return self.first + self.size

    def middles(self) -> GraphTensor:
        """[size]: how far the new pixels' middles are right of the image's, in half new pixels."""
        places = self.old.constant(np.arange(self.size))
        return (places + self.first) * 2 + 1 - self.target

"""The arithmetic of `preprocess.py` as a graph, said once for every runtime.

On the line: Preprocess → graph (uint8 image of any size → model input) → Bundle. A runtime's file
(`preprocess_onnx.py`, `preprocess_openvino.py`) brings the operations; this file says in which
order they are done. Whole numbers stay exact when a runtime has only 32 bits of them: positions
are counted from the middle of the image, where the crop is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from densepath.preprocess import COEFFICIENT, MOST_PIXELS, Preprocess

Kind = Literal["whole", "real", "byte", "truth"]
# Reach of Pillow's kernels in pixels of the smaller image. Source: Pillow 13 `Resample.c`.
SUPPORT = {"bilinear": 1, "bicubic": 2}
# a of the bicubic kernel. Source: Pillow 13 `Resample.c`, `bicubic_filter`.
CUBIC_A = -0.5


class Operations(ABC):
    """What a runtime must be able to do; its tensors are opaque here.

    Names of `apply` and their meaning are those of ONNX: Add, Sub, Mul, Min, Max, Less, Greater,
    And, Where, Floor, Abs, Round, MatMul.
    """

    @abstractmethod
    def constant(self, value: Any, kind: Kind) -> Any:
        """A tensor of the numbers or array `value`."""

    @abstractmethod
    def apply(self, name: str, *tensors: Any) -> Any:
        """The tensor that the operation `name` makes."""

    @abstractmethod
    def floor_divide(self, a: Any, b: Any) -> Any:
        """⌊a / b⌋ of whole numbers, b above 0; exact."""

    @abstractmethod
    def shift_right(self, a: Any, bits: int) -> Any:
        """⌊a / 2^bits⌋ of whole numbers that are not negative; exact."""

    @abstractmethod
    def cast(self, tensor: Any, kind: Kind) -> Any:
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
        """The tensor in another shape, one number of which may be −1."""

    @abstractmethod
    def transpose(self, tensor: Any, order: Sequence[int]) -> Any:
        """The tensor with its axes in another order."""

    @abstractmethod
    def sum(self, tensor: Any, axis: int) -> Any:
        """The sum along an axis, which stays with size 1."""

    @abstractmethod
    def either(self, condition: Any, yes: Body, no: Body, *tensors: Tensor) -> Tensor:
        """`yes(*tensors)` where the condition of rank 0 holds, else `no(*tensors)`."""

    @abstractmethod
    def rounded_side(self, long: Any, short: Any, resize_short: int) -> Any:
        """Python's `round(long * (resize_short / short))`, to the last half."""

    @abstractmethod
    def resize_like_pillow(self, image: Tensor, rows: Axis, columns: Axis, kernel: str) -> Tensor:
        """The crop of the byte image [height, width, channels] resized by Pillow's arithmetic."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A runtime's tensor with Python's operators; numbers become constants of its kind."""

    to: Operations
    handle: Any
    kind: Kind

    def __add__(self, other: Tensor | float) -> Tensor:
        return self._apply("Add", other)

    def __sub__(self, other: Tensor | float) -> Tensor:
        return self._apply("Sub", other)

    def __rsub__(self, other: float) -> Tensor:
        return self.constant(other)._apply("Sub", self)

    def __mul__(self, other: Tensor | float) -> Tensor:
        return self._apply("Mul", other)

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return self._apply("Div", other)

    def __floordiv__(self, other: Tensor | float) -> Tensor:
        return self._new(self.to.floor_divide(self.handle, self._like(other).handle))

    def __rshift__(self, bits: int) -> Tensor:
        return self._new(self.to.shift_right(self.handle, bits))

    def __matmul__(self, other: Tensor) -> Tensor:
        return self._apply("MatMul", other)

    def __and__(self, other: Tensor) -> Tensor:
        return self._apply("And", other)

    def __lt__(self, other: Tensor | float) -> Tensor:
        return self._apply("Less", other, "truth")

    def __gt__(self, other: Tensor | float) -> Tensor:
        return self._apply("Greater", other, "truth")

    def least(self, other: Tensor | float) -> Tensor:
        """The smaller of the two."""
        return self._apply("Min", other)

    def most(self, other: Tensor | float) -> Tensor:
        """The larger of the two."""
        return self._apply("Max", other)

    def floor(self) -> Tensor:
        """The next whole number below."""
        return self._new(self.to.apply("Floor", self.handle))

    def round(self) -> Tensor:
        """The nearest whole number, halves to the even one."""
        return self._new(self.to.apply("Round", self.handle))

    def absolute(self) -> Tensor:
        """Without its sign."""
        return self._new(self.to.apply("Abs", self.handle))

    def where(self, yes: Tensor, no: Tensor | float) -> Tensor:
        """`yes` where this holds, else `no`."""
        other = yes._like(no)
        return yes._new(self.to.apply("Where", self.handle, yes.handle, other.handle))

    def either(self, yes: Body, no: Body, *tensors: Tensor) -> Tensor:
        """`yes(*tensors)` if this of rank 0 holds, else `no(*tensors)`; only one is computed."""
        return self.to.either(self.handle, yes, no, *tensors)

    def cast(self, kind: Kind) -> Tensor:
        """As another kind; real → whole truncates."""
        return Tensor(self.to, self.to.cast(self.handle, kind), kind)

    def dimension(self, axis: int) -> Tensor:
        """The size along an axis."""
        return Tensor(self.to, self.to.dimension(self.handle, axis), "whole")

    def count(self) -> Tensor:
        """The whole numbers below this one."""
        return self._new(self.to.count(self.handle))

    def take(self, places: Tensor, axis: int) -> Tensor:
        """The slices at `places` along an axis."""
        return self._new(self.to.take(self.handle, places.handle, axis))

    def cut(self, start: Tensor, stop: Tensor, axis: int) -> Tensor:
        """From `start` to before `stop` along an axis."""
        return self._new(self.to.cut(self.handle, start.handle, stop.handle, axis))

    def reshape(self, *shape: int) -> Tensor:
        """In another shape."""
        return self._new(self.to.reshape(self.handle, shape))

    def transpose(self, *order: int) -> Tensor:
        """With the axes in another order."""
        return self._new(self.to.transpose(self.handle, order))

    def sum(self, axis: int) -> Tensor:
        """The sum along an axis, which stays with size 1."""
        return self._new(self.to.sum(self.handle, axis))

    def constant(self, value: Any, kind: Kind | None = None) -> Tensor:
        """Another tensor of the same runtime: `value` as this one's kind or as `kind`."""
        wanted = kind or self.kind
        return Tensor(self.to, self.to.constant(value, wanted), wanted)

    def _like(self, other: Tensor | float) -> Tensor:
        return other if isinstance(other, Tensor) else self.constant(other)

    def _apply(self, name: str, other: Tensor | float, kind: Kind | None = None) -> Tensor:
        handle = self.to.apply(name, self.handle, self._like(other).handle)
        return Tensor(self.to, handle, kind or self.kind)

    def _new(self, handle: Any) -> Tensor:
        return Tensor(self.to, handle, self.kind)


Body = Callable[..., Tensor]


@dataclass(frozen=True)
class Axis:
    """One axis of the image: `old` pixels become `target`, of which `size` from `first` on stay."""

    old: Tensor
    target: Tensor
    first: Tensor
    size: int

    @property
    def last(self) -> Tensor:
        """The position after the last that stays."""
        return self.first + self.size

    def middles(self) -> Tensor:
        """[size]: how far the new pixels' middles are right of the image's, in half new pixels."""
        places = self.old.constant(np.arange(self.size))
        return (places + self.first) * 2 + 1 - self.target


def preprocess_graph(image: Tensor, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    """byte [height, width, channels] → real [1, channels, *size] and byte [*size, channels].

    The first is normalised; the second is the same image before that.
    """
    rows, columns = _axes(image, preprocess)
    if preprocess.interpolation == "cv2_bilinear":
        pixels = _resize_like_opencv(image, rows, columns)
    else:
        pixels = image.to.resize_like_pillow(image, rows, columns, preprocess.interpolation)
    scale, offset = (
        image.constant(values[None, :, None, None], "real")
        for values in preprocess.scale_and_offset()
    )
    pixels = pixels.reshape(*preprocess.size, preprocess.channels)
    planes = pixels.transpose(2, 0, 1).reshape(1, preprocess.channels, *preprocess.size)
    return planes.cast("real") * scale + offset, pixels


def _axes(image: Tensor, preprocess: Preprocess) -> tuple[Axis, Axis]:
    """The image's height and width with what becomes of them; see `Preprocess.fit`."""
    height, width = image.dimension(0), image.dimension(1)
    (new_height, new_width), short = preprocess.size, preprocess.resize_short
    zero = height.constant(0)
    if short is None:
        target = height.constant(new_height), height.constant(new_width)
        return Axis(height, target[0], zero, new_height), Axis(width, target[1], zero, new_width)
    sides = _sides(height, width, short, preprocess.side_rounding == "round")
    axes = []
    for old, side, size in zip((height, width), sides, preprocess.size, strict=True):
        target = side.most(size)
        spare = target - size
        half = spare // 2
        if preprocess.crop_rounding == "round":  # Halves go to the even number.
            half = (spare + (half - half // 2 * 2)) // 2
        axes.append(Axis(old, target, half, size))
    return axes[0], axes[1]


def _sides(height: Tensor, width: Tensor, resize_short: int, rounds: bool) -> tuple[Tensor, Tensor]:
    """Height and width after the short side has been made `resize_short`."""
    long, short = height.most(width), height.least(width)
    if rounds:
        whole = long._new(long.to.rounded_side(long.handle, short.handle, resize_short))
    else:  # ⌊resize_short · long / short⌋ without the large product.
        times = long // short
        whole = times * resize_short + (long - times * short) * resize_short // short
    tall, fixed = height > width, long.constant(resize_short)
    return tall.where(whole, fixed), tall.where(fixed, whole)


def vertical_first(rows: Axis, columns: Axis) -> Tensor:
    """Whether Pillow resizes the height before the width; one rounding lies between the two.

    Source: Pillow 13 `Resample.c`, `ImagingResampleInner`; before, the width always came first.
    """
    # Of what is too large to be made whole, Pillow makes the crop only: see `preprocess.resize`.
    huge = more_pixels(rows, columns, MOST_PIXELS)
    height, width = (huge.where(a.old.constant(a.size), a.target) for a in (rows, columns))
    less_high, less_wide = rows.old - height, columns.old - width
    return (less_high > 0) & (less_high > less_wide * 2)


def more_pixels(rows: Axis, columns: Axis, limit: int) -> Tensor:
    """Whether the whole resized image would have more pixels than `limit`."""
    return rows.target.cast("real") * columns.target.cast("real") > float(limit)


def resize_by_matrices(image: Tensor, rows: Axis, columns: Axis, kernel: str) -> Tensor:
    """Pillow's resizing as two products of matrices, of that part only which the crop needs.

    byte [height, width, channels] → byte [rows.size, columns.size, channels]. Between the two the
    values are rounded to 0…255, as Pillow does.
    """
    (top, bottom), (left, right) = _reach(rows, kernel), _reach(columns, kernel)
    planes = image.cut(top, bottom, 0).cut(left, right, 1).transpose(2, 0, 1)
    down = _weights(rows, kernel, top, bottom)
    across = _weights(columns, kernel, left, right).transpose(1, 0)

    def height_first(planes: Tensor, down: Tensor, across: Tensor) -> Tensor:
        return _rounded(_rounded(down @ planes.cast("real")) @ across)

    def width_first(planes: Tensor, down: Tensor, across: Tensor) -> Tensor:
        return _rounded(down @ _rounded(planes.cast("real") @ across))

    order = vertical_first(rows, columns)
    crop = order.either(height_first, width_first, planes, down, across)
    return crop.transpose(1, 2, 0).cast("byte")


def _rounded(values: Tensor) -> Tensor:
    """The nearest of 0, 1, … 255, halves upwards, as Pillow's `clip8` after its half."""
    return (values + 0.5).floor().most(0.0).least(255.0)


def _reach(axis: Axis, kernel: str) -> tuple[Tensor, Tensor]:
    """The first old pixel that the crop needs, and the one after the last; a few more may come."""
    grid = axis.target * 2
    radius = axis.old.most(axis.target) * (2 * SUPPORT[kernel])
    at = axis.first * 2 + 1 - axis.target
    middle = axis.old // 2
    start = (at * axis.old - radius) // grid + middle - 1
    stop = ((at + (2 * axis.size - 2)) * axis.old + radius) // grid + middle + 2
    return start.most(0), stop.least(axis.old)


def _weights(axis: Axis, kernel: str, start: Tensor, stop: Tensor) -> Tensor:
    """[size, stop − start]: what each old pixel adds to each new one.

    The distance of the middles over the kernel's scale is a whole number over
    2 · max(old, target), so that nothing is lost where positions are large.
    """
    old = ((stop - start).count() + start) * 2 + 1 - axis.old
    apart = old * axis.target - axis.middles().reshape(axis.size, 1) * axis.old
    scale = (axis.old.most(axis.target) * 2).cast("real")
    t = (apart.absolute().cast("real") / scale).least(float(SUPPORT[kernel]))
    weights = 1.0 - t if kernel == "bilinear" else _cubic(t)
    return weights / weights.sum(1)


def _cubic(t: Tensor) -> Tensor:
    """Keys' cubic kernel at 0 ≤ t ≤ 2."""
    near = (t * (CUBIC_A + 2) - (CUBIC_A + 3)) * t * t + 1.0
    far = (((t - 5.0) * t + 8.0) * t - 4.0) * CUBIC_A
    return (t < 1.0).where(near, far)


def _resize_like_opencv(image: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """OpenCV's `INTER_LINEAR` in its own whole numbers; see `preprocess._resize_like_opencv`."""
    top, bottom, v = _neighbours(rows)
    left, right, u = _neighbours(columns)
    u, v = u.reshape(columns.size, 1), v.reshape(rows.size, 1, 1)

    def across(row: Tensor) -> Tensor:
        used = image.take(row, 0)
        first, second = used.take(left, 1).cast("whole"), used.take(right, 1).cast("whole")
        return (first * (COEFFICIENT - u) + second * u) >> 4

    upper, lower = across(top) * (COEFFICIENT - v), across(bottom) * v
    return (((upper >> 16) + (lower >> 16) + 2) >> 2).cast("byte")


def _neighbours(axis: Axis) -> tuple[Tensor, Tensor, Tensor]:
    """For each new position the two old ones, and the weight of the second in 1/2048."""
    half = axis.old // 2
    odd = axis.old - half * 2
    above = axis.middles() * axis.old + (1 - odd) * axis.target
    grid = axis.target * 2
    whole = above // grid
    # Positions are rounded to float32 here, as OpenCV rounds them.
    place = (whole + half - 1 + odd).cast("real") + (above - whole * grid).cast("real") / grid.cast(
        "real"
    )
    first = place.floor()
    weight = ((place - first) * float(COEFFICIENT)).round().cast("whole")
    left, last = first.cast("whole"), axis.old - 1
    return left.most(0).least(last), (left + 1).most(0).least(last), weight

"""The operators of an INT8 network besides convolutions: sums, pools, means and movements of data.

Source: TensorFlow `lite/kernels/{add,mul,sub,reduce,pooling,pad,quantize,concatenation}.cc` and the
reference kernels that they call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.tflite import Operator, TfliteTensor
from densepath.npu.arithmetic import (
    INT8,
    Requantiser,
    activation_bounds,
    multiply,
    quantize_multiplier,
)
from densepath.npu.convolution import SAME, Computation, padding

SUM_SHIFT = 20


def prepare_sum(operator: Operator) -> Computation:
    """ADD and SUB: both inputs are brought to one scale of 20 more bits, added, and scaled back."""
    first, second = _two(operator)
    output = operator.outputs[0]
    largest = 2.0 * max(float(first.scale), float(second.scale))
    sign = -1 if operator.kind == "SUB" else 1
    to_one = [quantize_multiplier(float(one.scale) / largest) for one in (first, second)]
    back = quantize_multiplier(largest / ((1 << SUM_SHIFT) * float(output.scale)))
    requantise = Requantiser(*back, output.zero_point, _bounds(operator))

    def run(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int8]:
        scaled = [
            multiply((x.astype(np.int64) - one.zero_point) << SUM_SHIFT, *pair)
            for x, one, pair in zip((a, b), (first, second), to_one, strict=True)
        ]
        total = scaled[0] + sign * scaled[1]
        flat = total.reshape(-1, total.shape[-1])
        return requantise(flat).reshape(output.shape)

    return run


def prepare_product(operator: Operator) -> Computation:
    """MUL of two int8 tensors, which broadcast."""
    first, second = _two(operator)
    output = operator.outputs[0]
    real = float(first.scale) * float(second.scale) / float(output.scale)
    requantise = Requantiser(*quantize_multiplier(real), output.zero_point, _bounds(operator))

    def run(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int8]:
        product = (a.astype(np.int64) - first.zero_point) * (b.astype(np.int64) - second.zero_point)
        flat = product.reshape(-1, product.shape[-1])
        return requantise(flat).reshape(output.shape)

    return run


def prepare_requantisation(operator: Operator) -> Computation:
    """QUANTIZE of integers (uint8 → int8 at the input), and RELU that stands by itself."""
    source, output = _first(operator), operator.outputs[0]
    pair = quantize_multiplier(float(source.scale) / float(output.scale))
    bounds = INT8
    if operator.kind == "RELU":
        bounds = (max(INT8[0], output.zero_point), INT8[1])
    elif operator.kind == "RELU6":
        bounds = activation_bounds(3, output.scale, output.zero_point)
    requantise = Requantiser(*pair, output.zero_point, bounds)

    def run(a: NDArray[Any]) -> NDArray[np.int8]:
        flat = a.reshape(-1, a.shape[-1]).astype(np.int64) - source.zero_point
        return requantise(flat).reshape(output.shape)

    return run


def prepare_mean(operator: Operator) -> Computation:
    """MEAN: the division by the count is part of the multiplier."""
    source, output = _first(operator), operator.outputs[0]
    axes = tuple(int(axis) % len(source.shape) for axis in _values(operator, 1).reshape(-1))
    count = int(np.prod([source.shape[axis] for axis in axes]))
    multiplier, shift = quantize_multiplier(float(source.scale) / float(output.scale))
    up = min(count.bit_length() - 1, 32, 31 + shift)
    requantise = Requantiser((multiplier << up) // count, shift - up, output.zero_point, INT8)

    def run(a: NDArray[Any]) -> NDArray[np.int8]:
        total = a.sum(axis=axes, dtype=np.int64) - source.zero_point * count
        flat = total.reshape(-1, output.shape[-1])
        return requantise(flat).reshape(output.shape)

    return run


def prepare_average_pool(operator: Operator) -> Computation:
    """AVERAGE_POOL_2D: the quotient of sum and count rounded away from zero at half."""
    bounds = _bounds(operator)
    ones = np.ones(_first(operator).shape, np.int32)
    counts = _pool(operator, ones, 0, np.add)

    def run(a: NDArray[Any]) -> NDArray[np.int8]:
        sums = _pool(operator, a.astype(np.int32), 0, np.add)
        half = np.where(sums > 0, counts // 2, -(counts // 2))
        means = np.trunc((sums + half) / counts)
        return np.clip(means, *bounds).astype(np.int8)

    return run


def prepare_max_pool(operator: Operator) -> Computation:
    """MAX_POOL_2D."""
    bounds = _bounds(operator)

    def run(a: NDArray[Any]) -> NDArray[np.int8]:
        return np.clip(_pool(operator, a, INT8[0], np.maximum), *bounds).astype(np.int8)

    return run


def prepare_concatenation(operator: Operator) -> Computation:
    """CONCATENATION copies: int8 inputs of another scale than the output's are not allowed."""
    output = operator.outputs[0]
    for one in operator.inputs:
        assert one is not None
        if one.scale != output.scale or one.zero_point != output.zero_point:
            raise ValueError(f"{one.name} has another scale than the concatenation it is part of")
    axis = operator.options["axis"]
    return lambda *parts: np.concatenate(parts, axis=axis)


def prepare_pad(operator: Operator) -> Computation:
    """PAD with the zero point, PADV2 with a constant."""
    widths = [(int(a), int(b)) for a, b in _values(operator, 1)]
    value = operator.outputs[0].zero_point
    if operator.kind == "PADV2":
        value = int(_values(operator, 2).reshape(-1)[0])
    return lambda a, *_: np.pad(a, widths, constant_values=value)


def prepare_reshape(operator: Operator) -> Computation:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: the output's shape stands in the file."""
    shape = operator.outputs[0].shape
    return lambda a, *_: a.reshape(shape)


def prepare_transpose(operator: Operator) -> Computation:
    """TRANSPOSE."""
    order = [int(axis) for axis in _values(operator, 1)]
    return lambda a, *_: np.ascontiguousarray(a.transpose(order))


def prepare_slice(operator: Operator) -> Computation:
    """SLICE and STRIDED_SLICE without masks, with the output's sizes."""
    begin = [int(place) for place in _values(operator, 1)]
    steps = [1] * len(begin)
    if operator.kind == "STRIDED_SLICE":
        steps = [int(step) for step in _values(operator, 3)]
        mask = operator.options.get("beginMask", 0)
        begin = [0 if mask >> i & 1 else place for i, place in enumerate(begin)]
        if any(operator.options.get(name) for name in ("ellipsisMask", "newAxisMask")):
            raise ValueError("STRIDED_SLICE with an ellipsis or a new axis")
    sizes = operator.outputs[0].shape
    if len(sizes) != len(begin) or min(steps) < 1:
        raise ValueError(f"{operator.kind} that drops a dimension or goes backwards")
    parts = tuple(
        slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(begin, sizes, steps, strict=True)
    )
    return lambda a, *_: np.ascontiguousarray(a[parts])


def _first(operator: Operator) -> TfliteTensor:
    """The tensor that an operator works on."""
    assert operator.inputs[0] is not None
    return operator.inputs[0]


def _two(operator: Operator) -> tuple[TfliteTensor, TfliteTensor]:
    """Both tensors of a sum or product."""
    assert operator.inputs[1] is not None
    return _first(operator), operator.inputs[1]


def _values(operator: Operator, place: int) -> NDArray[Any]:
    """The values of an input that must be a constant.

    Raises:
        ValueError: it is none.
    """
    tensor = operator.inputs[place]
    if tensor is None or tensor.data is None:
        raise ValueError(f"input {place} is no constant")
    return tensor.data


def _bounds(operator: Operator) -> tuple[int, int]:
    """The least and largest int8 after the fused activation."""
    output = operator.outputs[0]
    activation = operator.options.get("fusedActivationFunction", 0)
    return activation_bounds(activation, output.scale, output.zero_point)


def _pool(operator: Operator, image: NDArray[Any], outside: int, join: np.ufunc) -> NDArray[Any]:
    """Every window's elements joined; those beyond the image count as `outside`."""
    options, output = operator.options, operator.outputs[0].shape
    sizes = options["filterHeight"], options["filterWidth"]
    strides = options["strideH"], options["strideW"]
    same = options["padding"] == SAME
    pads = [
        padding(image.shape[1 + i], output[1 + i], sizes[i], strides[i], same) for i in range(2)
    ]
    if any(map(any, pads)):
        image = np.pad(image, ((0, 0), *pads, (0, 0)), constant_values=outside)
    made: NDArray[Any] | None = None
    for y in range(sizes[0]):
        for x in range(sizes[1]):
            rows = slice(y, y + (output[1] - 1) * strides[0] + 1, strides[0])
            cols = slice(x, x + (output[2] - 1) * strides[1] + 1, strides[1])
            part = image[:, rows, cols]
            made = part.copy() if made is None else join(made, part, out=made)
    assert made is not None
    return made

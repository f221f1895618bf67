"""Convolutions, depthwise convolutions and fully connected layers in exact integer arithmetic.

Each `prepare_…` does once what depends on the weights alone and returns a function of the input.
Sums are formed by float32 or float64 matrix products of whole numbers: exact, in whatever order a
library adds, as long as no sum can reach 2²⁴ or 2⁵³; the weights say which.

Source: TensorFlow `lite/kernels/internal/reference/integer_ops/{conv,depthwise_conv,
fully_connected}.h` and `kernel_util.cc` (PopulateConvolutionQuantizationParams).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.tflite import Operator, TfliteTensor
from densepath.npu.arithmetic import INT8, Requantiser, activation_bounds, quantize_multipliers

Computation = Callable[..., NDArray[Any]]
EXACT_FLOAT32 = 1 << 24
SAME = 0


def prepare_convolution(operator: Operator) -> Computation:
    """CONV_2D: int8 [N, H, W, C] → int8 [N, h, w, O], in groups where the weights are narrower."""
    source, weights = image_and_weights(operator)
    options, output = operator.options, operator.outputs[0]
    count, height, width, depth = weights.shape
    groups = source.shape[3] // depth
    matrices = _matrices(_constant(weights).reshape(groups, count // groups, -1), source.zero_point)
    finish = _finisher(operator)
    pads, window = find_window(source.shape, output.shape, (height, width), options)

    def run(image: NDArray[np.int8]) -> NDArray[np.int8]:
        shifted = _shift(image, source.zero_point, matrices.dtype, pads)
        patches = find_patches(shifted, window)
        rows = patches.shape[0] * patches.shape[1] * patches.shape[2]
        if groups == 1:
            sums = patches.reshape(rows, -1) @ matrices[0].T
        else:
            parts = patches.reshape(rows, height * width, groups, depth).transpose(2, 0, 1, 3)
            sums = parts.reshape(groups, rows, -1) @ matrices.transpose(0, 2, 1)
            sums = sums.transpose(1, 0, 2).reshape(rows, count)
        return finish(sums).reshape(output.shape)

    return run


def prepare_depthwise(operator: Operator) -> Computation:
    """DEPTHWISE_CONV_2D: int8 [N, H, W, C] → int8 [N, h, w, C · depth multiplier]."""
    source, weights = image_and_weights(operator)
    options, output = operator.options, operator.outputs[0]
    _, height, width, count = weights.shape
    times = count // source.shape[3]
    kernel = _constant(weights)[0].astype(np.int32)
    finish = _finisher(operator)
    pads, window = find_window(source.shape, output.shape, (height, width), options)
    (stride_y, stride_x), (step_y, step_x) = window[1], window[2]

    def run(image: NDArray[np.int8]) -> NDArray[np.int8]:
        shifted = _shift(image, source.zero_point, np.dtype(np.int32), pads)
        if times > 1:
            shifted = np.repeat(shifted, times, axis=3)
        sums = np.zeros(output.shape, np.int32)
        for y in range(height):
            for x in range(width):
                top, left = y * step_y, x * step_x
                rows = slice(top, top + (output.shape[1] - 1) * stride_y + 1, stride_y)
                cols = slice(left, left + (output.shape[2] - 1) * stride_x + 1, stride_x)
                sums += shifted[:, rows, cols] * kernel[y, x]
        return finish(sums.reshape(-1, count)).reshape(output.shape)

    return run


def prepare_fully_connected(operator: Operator) -> Computation:
    """FULLY_CONNECTED: int8 […, C] → int8 [N, O]."""
    source, weights = image_and_weights(operator)
    output = operator.outputs[0]
    matrix = _matrices(_constant(weights)[None], source.zero_point)[0]
    finish = _finisher(operator)

    def run(image: NDArray[np.int8]) -> NDArray[np.int8]:
        rows = image.reshape(-1, matrix.shape[1]).astype(matrix.dtype) - source.zero_point
        return finish(rows @ matrix.T).reshape(output.shape)

    return run


def image_and_weights(operator: Operator) -> tuple[TfliteTensor, TfliteTensor]:
    """The image and the weights of a layer."""
    source, weights = operator.inputs[0], operator.inputs[1]
    assert source is not None
    assert weights is not None
    return source, weights


def _constant(tensor: TfliteTensor) -> NDArray[Any]:
    """A constant's values.

    Raises:
        ValueError: it is none, or its zero point is not 0.
    """
    if tensor.data is None:
        raise ValueError(f"{tensor.name} is no constant")
    if tensor.dtype == np.int8 and tensor.zero_points.any():
        raise ValueError(f"the weights {tensor.name} have a zero point")
    return tensor.data


def _matrices(weights: NDArray[Any], zero_point: int) -> NDArray[Any]:
    """The weights [groups, outputs, inputs] in the smallest float in which all sums are exact."""
    positive = np.maximum(weights, 0).sum(axis=2, dtype=np.int64)
    negative = np.minimum(weights, 0).sum(axis=2, dtype=np.int64)
    least, largest = INT8[0] - zero_point, INT8[1] - zero_point
    above = (positive * largest + negative * least).max(initial=0)
    below = (positive * least + negative * largest).min(initial=0)
    exact = max(above, -below) < EXACT_FLOAT32
    return weights.astype(np.float32 if exact else np.float64)


def _finisher(operator: Operator) -> Callable[[NDArray[Any]], NDArray[np.int8]]:
    """What makes int8 [rows, channels] of sums [rows, channels]: bias, multiplier, zero point."""
    source, weights = image_and_weights(operator)
    output = operator.outputs[0]
    bias_tensor = operator.inputs[2] if len(operator.inputs) > 2 else None
    bias = None if bias_tensor is None else _constant(bias_tensor).astype(np.int64)
    real = np.float64(source.scale) * weights.scales.astype(np.float64) / np.float64(output.scale)
    multiplier, shift = quantize_multipliers(real)
    activation = operator.options.get("fusedActivationFunction", 0)
    bounds = activation_bounds(activation, output.scale, output.zero_point)
    requantise = Requantiser(multiplier, shift, output.zero_point, bounds)

    def finish(sums: NDArray[Any]) -> NDArray[np.int8]:
        whole = sums.astype(np.int32) if sums.dtype != np.int32 else sums
        if bias is not None:
            whole += bias.astype(np.int32)
        return requantise(whole)

    return finish


Pads = tuple[tuple[int, int], tuple[int, int]]
Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def find_window(
    source: tuple[int, ...], output: tuple[int, ...], size: tuple[int, int], options: dict[str, Any]
) -> tuple[Pads, Window]:
    """Rows and columns to add around the image; the window's size, strides and dilations."""
    strides = options["strideH"], options["strideW"]
    steps = options.get("dilationHFactor", 1), options.get("dilationWFactor", 1)
    same = options["padding"] == SAME
    pads = tuple(
        padding(source[1 + i], output[1 + i], (size[i] - 1) * steps[i] + 1, strides[i], same)
        for i in range(2)
    )
    return pads, (size, strides, steps)  # type: ignore[return-value]


def padding(source: int, output: int, reach: int, stride: int, same: bool) -> tuple[int, int]:
    """Elements before and after a side of `source` so that `output` windows fit.

    Source: TensorFlow `lite/kernels/padding.h`, ComputePaddingWithOffset.
    """
    if not same:
        return 0, 0
    total = max((output - 1) * stride + reach - source, 0)
    return total // 2, total - total // 2


def _shift(
    image: NDArray[np.int8], zero_point: int, dtype: np.dtype[Any], pads: Pads
) -> NDArray[Any]:
    """The image less its zero point, zeros around it."""
    shifted = image.astype(dtype)
    shifted -= zero_point
    return pad_image(shifted, pads)


def pad_image(image: NDArray[Any], pads: Pads) -> NDArray[Any]:
    """[N, H, W, C] with zeros around it."""
    return np.pad(image, ((0, 0), *pads, (0, 0))) if any(map(any, pads)) else image


def find_patches(image: NDArray[Any], window: Window) -> NDArray[Any]:
    """[N, H, W, C] → [N, h, w, height, width, C]: what each window sees."""
    (height, width), (stride_y, stride_x), (step_y, step_x) = window
    if (height, width) == (1, 1):
        return image[:, ::stride_y, ::stride_x, None, None]
    reach = ((height - 1) * step_y + 1, (width - 1) * step_x + 1)
    views = np.lib.stride_tricks.sliding_window_view(image, reach, axis=(1, 2))
    views = views[:, ::stride_y, ::stride_x, :, ::step_y, ::step_x]
    return np.ascontiguousarray(views.transpose(0, 1, 2, 4, 5, 3))

"""Layers that stay in float32, between integers, as TensorFlow Lite's reference kernels compute.

A network of `--keep-float` leaves the integers by DEQUANTIZE and comes back by QUANTIZE; between
them the CPU beside the NPU computes. A float32 sum depends on the order of its terms: here it is
that of the reference kernels (rows of the window, columns, channels; one product, one sum, each
rounded), so that the bytes are theirs. A board whose compiler fuses product and sum into one
rounding, or whose library adds in another order, may differ in the last place of such a sum, and
hence by one step in a byte that is made of it.

Source: TensorFlow `lite/kernels/internal/reference/`: `conv.h`, `depthwiseconv_float.h`,
`fully_connected.h`, `dequantize.h`, `quantize.h`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.tflite import Operator
from densepath.npu.arithmetic import INT8
from densepath.npu.convolution import (
    Computation,
    find_patches,
    find_window,
    image_and_weights,
    pad_image,
)

Floats = NDArray[np.float32]
# Windows whose sums stay in the processor's cache.
ROWS = 1 << 12
NONE, RELU, RELU6 = 0, 1, 3


def prepare_dequantisation(operator: Operator) -> Computation:
    """DEQUANTIZE: int8 → float32, scale · (integer − zero point)."""
    source = operator.inputs[0]
    assert source is not None
    scale, zero_point = source.scale, np.int32(source.zero_point)
    return lambda a: (a.astype(np.int32) - zero_point).astype(np.float32) * scale


def prepare_quantisation(operator: Operator) -> Computation:
    """QUANTIZE of float32 → int8: the quotient rounded away from zero at half."""
    output = operator.outputs[0]

    def run(a: Floats) -> NDArray[np.int8]:
        quotient = (a / output.scale).astype(np.float64)
        rounded = np.trunc(quotient + np.copysign(0.5, quotient)) + output.zero_point
        return np.clip(rounded, *INT8).astype(np.int8)

    return run


def prepare_float_convolution(operator: Operator) -> Computation:
    """CONV_2D of float32 [N, H, W, C], in groups where the weights are narrower."""
    source, weights = image_and_weights(operator)
    output = operator.outputs[0]
    kernel = _constant(operator, 1)
    count, height, width, depth = weights.shape
    groups = source.shape[3] // depth
    each = count // groups
    finish = _finisher(operator)
    pads, window = find_window(source.shape, output.shape, (height, width), operator.options)

    def run(image: Floats) -> Floats:
        patches = find_patches(pad_image(image, pads), window)
        terms = patches.reshape(-1, height * width, groups, depth)
        parts = [
            _sums(
                terms[:, :, group].reshape(len(terms), -1),
                kernel[group * each : (group + 1) * each].reshape(each, -1),
            )
            for group in range(groups)
        ]
        return finish(np.concatenate(parts, axis=1)).reshape(output.shape)

    return run


def prepare_float_depthwise(operator: Operator) -> Computation:
    """DEPTHWISE_CONV_2D of float32 [N, H, W, C] → [N, h, w, C · depth multiplier]."""
    source, weights = image_and_weights(operator)
    output = operator.outputs[0]
    _, height, width, count = weights.shape
    kernel = _constant(operator, 1).reshape(height * width, count)
    times = count // source.shape[3]
    finish = _finisher(operator)
    pads, window = find_window(source.shape, output.shape, (height, width), operator.options)

    def run(image: Floats) -> Floats:
        patches = find_patches(pad_image(image, pads), window)
        terms = patches.reshape(-1, height * width, source.shape[3])
        sums = np.zeros((len(terms), count), np.float32)
        for place, factors in enumerate(kernel):
            sums += np.repeat(terms[:, place], times, axis=1) * factors
        return finish(sums).reshape(output.shape)

    return run


def prepare_float_fully_connected(operator: Operator) -> Computation:
    """FULLY_CONNECTED of float32 […, C] → [N, O]."""
    matrix, output = _constant(operator, 1), operator.outputs[0]
    finish = _finisher(operator)

    def run(image: Floats) -> Floats:
        sums = _sums(image.reshape(-1, matrix.shape[1]), matrix)
        return finish(sums).reshape(output.shape)

    return run


def _sums(terms: Floats, weights: Floats) -> Floats:
    """[rows, K] times [O, K] → [rows, O], the K products added one after another."""
    made = np.zeros((len(terms), len(weights)), np.float32)
    for start in range(0, len(terms), ROWS):
        columns = np.ascontiguousarray(terms[start : start + ROWS].T)
        sums = np.zeros((len(weights), columns.shape[1]), np.float32)
        products = np.empty_like(sums)
        for values, factors in zip(columns, weights.T, strict=True):
            np.multiply(factors[:, None], values, out=products)
            sums += products
        made[start : start + ROWS] = sums.T
    return made


def _finisher(operator: Operator) -> Callable[[Floats], Floats]:
    """What adds the bias to sums [rows, outputs] and holds them within the fused activation.

    Raises:
        ValueError: an activation besides ReLU and ReLU6.
    """
    has_bias = len(operator.inputs) > 2 and operator.inputs[2] is not None
    bias = _constant(operator, 2) if has_bias else None
    activation = operator.options.get("fusedActivationFunction", NONE)
    if activation not in (NONE, RELU, RELU6):
        raise ValueError(f"fused activation {activation}")

    def finish(sums: Floats) -> Floats:
        if bias is not None:
            sums += bias
        if activation != NONE:
            sums[sums < 0] = 0
        if activation == RELU6:
            sums[sums > 6] = 6
        return sums

    return finish


def _constant(operator: Operator, place: int) -> Floats:
    """The float32 values of an input that must be a constant.

    Raises:
        ValueError: it is none, or of another type.
    """
    tensor = operator.inputs[place]
    if tensor is None or tensor.data is None or tensor.dtype != np.float32:
        raise ValueError(f"input {place} is no constant of float32")
    return tensor.data

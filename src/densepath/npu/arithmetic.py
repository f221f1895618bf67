"""The integer arithmetic of TFLite's reference kernels: multipliers, shifts and rounding.

A layer's int32 sum becomes an int8 by a multiplication with a real number that is kept as an int32
`multiplier` of 31 fractional bits and a power of two, `shift`. What is cut off is rounded twice:
the doubling product at its 31st bit (upwards at half), then the shift (away from zero at half).
TensorFlow Lite Micro does this in every operator, and so does the NPU: it is Ethos-U's rounding
mode TFL, which Vela gives such layers, fully connected ones included. LiteRT 2.3.0's BUILTIN_REF
kernels do it in every operator but the fully connected one, which rounds once: there they may be
off by a step. TFLite can be built with one rounding in place of two (TFLITE_SINGLE_ROUNDING).

Source: TensorFlow `lite/kernels/internal/common.h` (MultiplyByQuantizedMultiplier,
SaturatingRoundingDoublingHighMul, RoundingDivideByPOT) and `quantization_util.cc`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Elements whose int64 intermediates stay in the processor's cache.
CHUNK = 1 << 14
INT8 = (-128, 127)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """The int32 multiplier and shift with real ≈ multiplier / 2³¹ · 2^shift."""
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * (1 << 31) + 0.5)
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < -31:
        return 0, 0
    return multiplier, shift


def quantize_multipliers(reals: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """As `quantize_multiplier`, one a channel: two int64 arrays."""
    pairs = np.array([quantize_multiplier(float(real)) for real in reals], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def multiply(values: NDArray[Any], multiplier: Any, shift: Any) -> NDArray[np.int64]:
    """values · multiplier / 2³¹ · 2^shift, rounded; multipliers broadcast against the last axis."""
    shift = np.asarray(shift, np.int64)
    right = np.maximum(-shift, 0)
    product = np.multiply(values, multiplier << np.maximum(shift, 0), dtype=np.int64)
    product += 1 << 30
    product >>= 31
    if right.any():
        # Away from zero at half: a negative number is one less before it is halved upwards. Where
        # nothing is cut off, nothing is rounded.
        below = product >> 63
        if not right.all():
            below *= right > 0
        below += np.where(right > 0, np.left_shift(np.int64(1), np.maximum(right - 1, 0)), 0)
        product += below
        product >>= right
    return product


class Requantiser:
    """int8 of sums [rows, channels]: multiplied, moved by the zero point, held in `bounds`.

    Args:
        multiplier, shift: of all channels or one a channel.
        zero_point: of the result.
        bounds: its least and largest value.
    """

    def __init__(
        self, multiplier: Any, shift: Any, zero_point: int, bounds: tuple[int, int]
    ) -> None:
        self.multiplier, self.shift = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
        self.zero_point, self.bounds = zero_point, bounds

    def __call__(self, sums: NDArray[Any]) -> NDArray[np.int8]:
        """The result, [rows, channels]."""
        made = np.empty(sums.shape, np.int8)
        rows = max(CHUNK // max(sums.shape[-1], 1), 1)
        for start in range(0, len(sums), rows):
            part = multiply(sums[start : start + rows], self.multiplier, self.shift)
            part += self.zero_point
            np.maximum(part, self.bounds[0], out=part)
            np.minimum(part, self.bounds[1], out=part)
            made[start : start + rows] = part
        return made


def activation_bounds(
    activation: int, scale: float | np.floating, zero_point: int
) -> tuple[int, int]:
    """The least and largest int8 of a fused activation (0 none, 1 ReLU, 2 ReLU1, 3 ReLU6).

    Source: TensorFlow `lite/kernels/kernel_util.cc`, CalculateActivationRangeQuantized.

    Raises:
        ValueError: another activation.
    """
    ranges = {0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
    if activation not in ranges:
        raise ValueError(f"fused activation {activation}")
    least, largest = ranges[activation]

    def quantise(value: float) -> int:
        ratio = np.float32(value) / np.float32(scale)
        return zero_point + int(math.copysign(math.floor(abs(float(ratio)) + 0.5), ratio))

    low = INT8[0] if least is None else max(INT8[0], quantise(least))
    high = INT8[1] if largest is None else min(INT8[1], quantise(largest))
    return low, high

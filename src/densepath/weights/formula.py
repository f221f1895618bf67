"""Weights and images from a formula of name and shape, so that two systems can hold the same ones.

A parity test fills our network and another system's with these numbers and compares the logits:
neither weights nor images need to be stored or fetched. Only NumPy is used, and of it only
`RandomState`, whose streams are frozen for good (NumPy NEP 19), and arithmetic that rounds the
same everywhere.

The tensor `name` holds u = uniform numbers in [-1, 1) drawn in C order by
`RandomState(crc32(name))`, then

- convolution: u · √(6 / inputs), where inputs is the product of all sides but the first; a quarter
  of it for the last 1×1 of a DPN block, whose output is added to the residual path;
- classifier weight: u · √(3 / inputs);
- BatchNorm weight: 1 + u / 5; running variance: 1 + u / 2;
- BatchNorm bias and running mean, classifier bias: u / 5.

`name` is ours, as `build_model`'s state dict has it. An image of H × W pixels holds
uniform numbers in [-1.5, 1.5) constant over squares of 16 × 16 pixels, plus as many in
[-0.5, 0.5) for each pixel: coarse and fine structure, as after normalisation.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

SQUARE = 16


def formula_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 values of our parameter or running statistic `name`."""
    uniform = _uniform(name, shape)
    module, _, leaf = name.rpartition(".")
    if len(shape) > 1:
        inputs = math.prod(shape[1:])
        scale = math.sqrt(3 / inputs) if module == "classifier" else math.sqrt(6 / inputs)
        return _float32(uniform * (scale / 4 if module.endswith("c1x1_c.conv") else scale))
    if leaf == "running_var":
        return _float32(1 + uniform / 2)
    if leaf == "weight":
        return _float32(1 + uniform / 5)
    return _float32(uniform / 5)


def formula_images(count: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Images [count, channels, height, width], float32, in [-2, 2)."""
    rows, columns = math.ceil(height / SQUARE), math.ceil(width / SQUARE)
    coarse = _uniform("coarse", (count, channels, rows, columns))
    squares = coarse.repeat(SQUARE, axis=2).repeat(SQUARE, axis=3)[:, :, :height, :width]
    fine = _uniform("fine", (count, channels, height, width))
    return _float32(1.5 * squares + 0.5 * fine)


def formula_picture(height: int, width: int) -> np.ndarray:
    """A picture [height, width, 3], uint8: the formula's image, its range spread over 0 to 255."""
    image = formula_images(1, height, width)[0].astype(np.float64)
    return np.floor((image + 2) * 64).astype(np.uint8).transpose(1, 2, 0)


def _uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform float64 numbers in [-1, 1) that depend on the name alone."""
    return np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape)


def _float32(values: np.ndarray) -> np.ndarray:
    """The array in float32."""
    return values.astype(np.float32)

"""What the inputs of a network's convolutions are like, measured on calibration images.

On the line: `native.py` makes levels and weights of it. Only sums and histograms are held, some
kilobytes a channel, however many images there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from densepath.errors import UnknownNameError
from densepath.models.plan import Layer, convolutions
from densepath.models.spec import ModelSpec
from densepath.quantize.calibration import Calibration
from densepath.weights.checkpoint import Checkpoint

Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
Array = NDArray[np.float64]

BINS = 256
PERCENTILE = 99.99  # of a channel's values
LEVELS = 255
# Limits that `mse` tries, as parts of a channel's largest value.
TRIED = np.linspace(0.2, 1.0, 41)


@dataclass
class ChannelStatistics:
    """Values ≥ 0 of each channel: their number, sums and histogram."""

    count: int = 0
    total: Array = field(default_factory=lambda: np.zeros(0))
    squares: Array = field(default_factory=lambda: np.zeros(0))
    high: Array = field(default_factory=lambda: np.zeros(0))
    top: Array = field(default_factory=lambda: np.zeros(0))
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, BINS), np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """The values [C, n] are counted."""
        channels = len(values)
        if not self.count:
            self.total, self.squares, self.high, self.top = np.zeros((4, channels))
            self.bins = np.zeros((channels, BINS), np.int64)
        self.count += values.shape[1]
        self.total += values.sum(1, dtype=np.float64)
        self.squares += np.square(values, dtype=np.float64).sum(1)
        self.high = np.maximum(self.high, values.max(1))
        self._widen()
        places = values * (BINS / np.where(self.top > 0, self.top, 1)).astype(np.float32)[:, None]
        places = np.minimum(places.astype(np.int32), BINS - 1)
        places += BINS * np.arange(channels, dtype=np.int32)[:, None]
        self.bins += np.bincount(places.ravel(), minlength=channels * BINS).reshape(-1, BINS)

    def _widen(self) -> None:
        """The histograms reach to the largest values: their bins are joined by twos."""
        self.top = np.where(self.top > 0, self.top, self.high)
        while (narrow := self.high > self.top).any():
            joined = self.bins[narrow].reshape(-1, BINS // 2, 2).sum(2)
            self.bins[narrow] = np.concatenate([joined, np.zeros_like(joined)], 1)
            self.top[narrow] *= 2

    @property
    def mean(self) -> Array:
        """The mean of each channel."""
        return self.total / self.count

    @property
    def mean_square(self) -> Array:
        """The mean square of each channel."""
        return self.squares / self.count

    def limits(self, method: Method) -> Array:
        """The value of each channel that the highest level is to stand for."""
        return LIMITS[method](self)


def _minmax(found: ChannelStatistics) -> Array:
    return found.high


def _percentile(found: ChannelStatistics) -> Array:
    """The edge of the bin below which so many values lie; never above the largest."""
    below = np.cumsum(found.bins, 1) >= found.count * PERCENTILE / 100
    edges = (below.argmax(1) + 1) * found.top / BINS
    return np.minimum(edges, found.high)


def _mse(found: ChannelStatistics) -> Array:
    """The limit of the least mean square error, of the bins' middles."""
    middles = (np.arange(BINS) + 0.5)[None, :] * (found.top / BINS)[:, None]
    middles = np.minimum(middles, found.high[:, None])
    best, least = found.high.copy(), np.full(len(found.high), np.inf)
    positive = found.count - found.bins[:, 0]  # what is 0 has no error; nearly all of bin 0 is
    for part in TRIED:
        limit = part * found.high
        lost = np.maximum(middles - limit[:, None], 0)
        error = (lost**2 * found.bins).sum(1) + positive * (limit / LEVELS) ** 2 / 12
        best = np.where(error < least, limit, best)
        least = np.minimum(error, least)
    return best


LIMITS: dict[Method, Callable[[ChannelStatistics], Array]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _mse,
}


def quant_layers(spec: ModelSpec) -> list[Layer]:
    """The convolutions that read a ReLU's outputs, in their order: all but the stem."""
    return [layer for layer in convolutions(spec) if layer.reads != "images"]


def measure_statistics(
    checkpoint: Checkpoint, calibration: Calibration
) -> dict[str, ChannelStatistics]:
    """What the input of each of `quant_layers` is like on the calibration images."""
    model = checkpoint.to_model()
    modules = dict(model.named_modules())
    found: dict[str, ChannelStatistics] = {}
    for layer in quant_layers(checkpoint.spec):
        found[layer.name] = ChannelStatistics()
        hook = _hook(found[layer.name], layer.averaged)
        modules[layer.name].register_forward_pre_hook(hook)
    with torch.inference_mode():
        for images in calibration.batches():
            model(torch.from_numpy(images))
    return found


def _hook(statistics: ChannelStatistics, averaged: bool) -> Callable[[Any, Any], None]:
    """Counts the input of a convolution."""

    def count(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        values = F.avg_pool2d(inputs[0], 2) if averaged else inputs[0]
        statistics.add(values.transpose(0, 1).flatten(1).numpy())

    return count


def check_method(method: str) -> Method:
    """The method of this name.

    Raises:
        UnknownNameError: there is none.
    """
    for known in METHODS:
        if known == method:
            return known
    raise UnknownNameError("method", method, METHODS)

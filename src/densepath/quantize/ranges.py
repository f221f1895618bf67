"""From the values that an activation takes to the range that 8 bits are spread over.

On the line: a quantiser shows an `Observer` the activation on every calibration image, and asks it
for a range by one of `RANGE_METHODS`. Memory does not grow with the images.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from densepath.errors import UnknownNameError

RangeMethod: TypeAlias = Literal["minmax", "percentile", "mse", "entropy"]
RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)

BINS = 2048
LEVELS = 256
PERCENTILE = 99.999
# Of a map so many values are counted, evenly taken; extremes are of all.
MOST_VALUES = 65_536
# Clipped ranges that `mse` and `entropy` try: shares of the whole one.
SHARES = np.linspace(0.2, 1.0, 41)
SMALLEST = 1e-8


class Observer:
    """A histogram of what an activation was, and its extremes."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self._reach = 0.0  # the histogram spans −reach … reach
        self._counts: NDArray[np.float64] = np.zeros(2 * BINS)

    def see(self, values: NDArray[np.float32]) -> None:
        """One map more, of any shape."""
        flat = values.reshape(-1)
        self.low = min(self.low, float(flat.min()))
        self.high = max(self.high, float(flat.max()))
        self._widen(max(abs(self.low), abs(self.high)))
        sample = flat[:: max(1, flat.size // MOST_VALUES)]
        weight = flat.size / sample.size
        places = ((sample / self._reach + 1) * BINS).astype(np.int64).clip(0, 2 * BINS - 1)
        self._counts += weight * np.bincount(places, minlength=2 * BINS)

    def range(self, method: str) -> tuple[float, float]:
        """The lowest and the highest value that are told apart; 0 lies between them.

        Raises:
            UnknownNameError: no such method.
        """
        if method not in RANGE_METHODS:
            raise UnknownNameError("range method", method, RANGE_METHODS)
        low, high = min(self.low, 0.0), max(self.high, SMALLEST)
        if method == "minmax":
            return low, high
        if method == "percentile":
            return self._percentile(low, high)
        loss = self._squared_error if method == "mse" else self._divergence
        losses = [loss(low * share, high * share) for share in SHARES]
        best = SHARES[int(np.argmin(losses))]
        return float(low * best), float(high * best)

    def _widen(self, reach: float) -> None:
        """The histogram reaches as far; doubling keeps what was counted in whole bins."""
        if self._reach == 0.0:
            self._reach = max(reach, SMALLEST)
        while self._reach < reach:
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.zeros(2 * BINS)
            self._counts[BINS // 2 : BINS // 2 + BINS] = pairs
            self._reach *= 2

    def _centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        return (np.arange(2 * BINS) + 0.5 - BINS) / BINS * self._reach

    def _percentile(self, low: float, high: float) -> tuple[float, float]:
        """The range that leaves out, at either end, what is beyond `PERCENTILE` of the values."""
        cumulated = np.cumsum(self._counts) / self._counts.sum()
        tail = (100 - PERCENTILE) / 100
        centres = self._centres()
        first = int(np.searchsorted(cumulated, tail))
        last = min(int(np.searchsorted(cumulated, 1 - tail)), len(centres) - 1)
        ends = max(low, min(centres[first], 0.0)), min(high, max(centres[last], SMALLEST))
        return float(ends[0]), float(ends[1])

    def _squared_error(self, low: float, high: float) -> float:
        """What rounding to this range's levels, and clipping, costs in all."""
        centres = self._centres()
        rounded = _quantise(centres, low, high)
        return float((self._counts * (centres - rounded) ** 2).sum())

    def _divergence(self, low: float, high: float) -> float:
        """The Kullback-Leibler divergence of the values from what is left of them.

        Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017.
        """
        centres = self._centres()
        inside = (centres >= low) & (centres <= high)
        clipped = self._counts * inside
        edges = np.flatnonzero(inside)
        if not len(edges):
            return np.inf
        reference = clipped.copy()
        reference[edges[0]] += self._counts[: edges[0]].sum()
        reference[edges[-1]] += self._counts[edges[-1] + 1 :].sum()
        step = (high - low) / (LEVELS - 1)
        level = np.round((centres[edges] - low) / step).astype(np.int64)
        held = clipped[edges] > 0
        mass = np.bincount(level, clipped[edges], minlength=LEVELS)
        places = np.bincount(level, held, minlength=LEVELS)
        spread = np.where(held, (mass / np.maximum(places, 1))[level], 0.0)
        p, q = reference[edges] / reference.sum(), spread / max(spread.sum(), 1e-30)
        there = p > 0
        return float((p[there] * np.log(p[there] / np.maximum(q[there], 1e-12))).sum())


def _quantise(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """The values rounded to the range's 256 levels, and clipped to it."""
    step = max((high - low) / (LEVELS - 1), SMALLEST / LEVELS)
    return np.round(np.clip(values, low, high) / step) * step

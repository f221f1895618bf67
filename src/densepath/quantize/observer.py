"""The one observer of ranges: from the values of an activation to the limits that 8 bits span.

On the line: a back end shows an `Observer` an activation on every calibration image and asks it for
`limits` by a name of `LIMITS`. Its way to count is a row of this file: `ONNX`, `NATIVE`, `LITERT`.
Memory does not grow with the images. (Training has moving averages of batches in their place:
`training/steps/qat_ranges.py`.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from densepath.errors import UnknownNameError

RangeMethod = Literal["minmax", "percentile", "mse", "entropy"]
RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)
Array: TypeAlias = NDArray[np.float64]
Limits: TypeAlias = tuple[Array, Array]
# The counts and the bins' middles [C, bins], lows and highs [C] → what the limits lose [C].
Loss: TypeAlias = Callable[[Array, Array, Array, Array], Array]

# The highest of the 256 numbers of 8 bits.
HIGHEST_LEVEL = 255
# Clipped limits that `mse` and `entropy` try, as shares of the extremes.
SHARES = np.linspace(0.2, 1.0, 41)
# The least highest value where a grid has to have a width.
SMALLEST = 1e-8
# So that a histogram of one value has a width to divide by.
LEAST_WIDTH = 1e-30


@dataclass(frozen=True)
class Counting:
    """How a back end counts values.

    Attributes:
        span: what a histogram covers: −r … r or 0 … r, where r doubles when a greater value comes;
            or `extremes`, which have to be known before anything is counted. But for `extremes` 0
            is always within the limits.
        bins: of a histogram.
        percentile: `percentile` leaves out at most 100 − this percent of the values at an end.
        inset: the limit's place in the outermost bin that is held, as a part of a bin.
        most_values: of a map so many are counted, evenly taken; None: all.
        least: of the highest value, and of r; 0: none.
    """

    span: Literal["symmetric", "positive", "extremes"]
    bins: int
    percentile: float
    inset: float = 0.0
    most_values: int | None = None
    least: float = 0.0


# Whole tensors, signed. TensorRT's calibrator has 2,048 bins of magnitudes (S. Migacz, 8-bit
# inference with TensorRT, GTC 2017), here on either side of 0; 99.999 is of the percentiles that
# H. Wu et al. compare (arXiv:2004.09602).
ONNX = Counting("symmetric", 4096, percentile=99.999, inset=0.5, most_values=65_536, least=SMALLEST)
# Channels of what a ReLU gave: each has far fewer values than a tensor, so a wider tail, and two
# kilobytes of bins, one a level.
NATIVE = Counting("positive", 256, percentile=99.99)
# Whole tensors, by an interpreter that is run twice: one value in a million at either end.
LITERT = Counting("extremes", 4096, percentile=99.9999)


class Observer:
    """Extremes and a histogram of each channel of an activation, or of a tensor as one channel.

    Attributes:
        low, high: the least and the greatest value [C]; `low` is 0 where only values ≥ 0 come.
        num_values: of each channel.
    """

    def __init__(self, counting: Counting, *, channels: int = 1, moments: bool = False) -> None:
        """Begin with nothing seen; with `moments`, keep sums and squares for the means."""
        self.counting, self.moments, self.num_values = counting, moments, 0
        self.low = np.full(channels, 0.0 if counting.span == "positive" else np.inf)
        self.high = np.full(channels, -np.inf)
        self._reach, self._sums, self._squares = np.zeros((3, channels))
        self._counts: Array = np.zeros((channels, counting.bins))

    def see(self, values: NDArray[Any]) -> None:
        """Take in more values, [C, n], or of any shape for one channel.

        Where the histogram covers the extremes these only move; `count` shows the values again.
        """
        values = values.reshape(len(self.low), -1)
        self.num_values += values.shape[1]
        if self.moments:
            self._sums += values.sum(1, dtype=np.float64)
            self._squares += np.square(values, dtype=np.float64).sum(1)
        if self.counting.span != "positive":
            self.low = np.fmin(self.low, values.min(1))
        self.high = np.fmax(self.high, values.max(1))
        if self.counting.span != "extremes":
            self._widen()
            self.count(values)

    def count(self, values: NDArray[Any]) -> None:
        """Count the values in the histogram, which covers them."""
        values = values.reshape(len(self.low), -1)
        bins, total = self.counting.bins, values.shape[1]
        if self.counting.most_values is not None:
            values = values[:, :: max(1, total // self.counting.most_values)]
        places = np.minimum(self._places(values).astype(np.int32), bins - 1)
        places += bins * np.arange(len(places), dtype=np.int32)[:, None]
        counts = np.bincount(places.ravel(), minlength=self._counts.size)
        self._counts += total / values.shape[1] * counts.reshape(-1, bins)

    @property
    def mean(self) -> Array:
        """The mean of each channel."""
        return self._sums / self.num_values

    @property
    def mean_square(self) -> Array:
        """The mean square of each channel."""
        return self._squares / self.num_values

    @property
    def extremes(self) -> Limits:
        """The lowest and the highest value of each channel, with 0 between them."""
        if self.counting.span == "extremes":
            return self.low, self.high
        return np.minimum(self.low, 0.0), np.maximum(self.high, self.counting.least)

    def limits(self, method: RangeMethod) -> Limits:
        """The lowest and the highest value of each channel that are told apart; both [C]."""
        return LIMITS[method](self)

    def range(self, method: RangeMethod) -> tuple[float, float]:
        """The limits of the one channel that is observed."""
        (low,), (high,) = self.limits(method)
        return float(low), float(high)

    def _widen(self) -> None:
        """Widen the histograms to reach as far as the values; their bins are joined by twos."""
        bins = self.counting.bins
        far = np.maximum(np.abs(self.low), np.abs(self.high))
        first = np.maximum(far, self.counting.least)
        self._reach = np.where(self._reach > 0, self._reach, first)
        start = bins // 4 if self.counting.span == "symmetric" else 0
        while (narrow := self._reach < far).any():
            joined = self._counts[narrow].reshape(-1, bins // 2, 2).sum(2)
            wider = np.zeros((len(joined), bins))
            wider[:, start : start + bins // 2] = joined
            self._counts[narrow] = wider
            self._reach[narrow] *= 2

    def _places(self, values: NDArray[Any]) -> NDArray[Any]:
        """The bin of each value, not yet whole.

        In float32, by a division or by a factor as the span has always been counted: the other
        rounds a few values into the next bin, which changes the bytes of written networks.
        """
        bins = self.counting.bins
        if self.counting.span == "symmetric":
            shares = values / self._reach.astype(np.float32)[:, None]
            return np.fmax((shares + 1) * (bins // 2), 0)  # NaN: 0
        if self.counting.span == "positive":
            return values * _factor(bins, self._reach)
        # The greatest value has the last bin for itself.
        start = self.low.astype(np.float32)[:, None]
        return (values - start) * _factor(bins - 1, self.high - self.low)

    def _values_at(self, places: NDArray[Any]) -> Array:
        """The values at these places, counted in bins: [n] or [C, n] → [C, n]."""
        shares = places / self.counting.bins
        if self.counting.span == "extremes":
            return self.low[:, None] + shares * (self.high - self.low)[:, None]
        if self.counting.span == "positive":
            return shares * self._reach[:, None]
        return (2 * shares - 1) * self._reach[:, None]


def _factor(bins: int, widths: Array) -> NDArray[np.float32]:
    """The bins in a unit of each channel's width, [C, 1]."""
    return (bins / np.maximum(widths, LEAST_WIDTH)).astype(np.float32)[:, None]


def _percentile(seen: Observer) -> Limits:
    """The bins beyond which, at either end, at most the row's part of the values lies."""
    total = seen._counts.sum(1, keepdims=True)
    outside = total * ((100 - seen.counting.percentile) / 100)
    cumulated = np.cumsum(seen._counts, 1)
    first = (cumulated > outside).argmax(1) + seen.counting.inset
    last = (cumulated >= total - outside).argmax(1) + 1 - seen.counting.inset
    low, high = seen._values_at(np.stack([first, last], 1)).T
    if seen.counting.span != "extremes":
        low, high = np.minimum(low, 0.0), np.maximum(high, seen.counting.least)
    least, most = seen.extremes
    return np.maximum(low, least), np.minimum(high, most)


def _mse(seen: Observer) -> Limits:
    """The limits of the least squared error, of rounding and of clipping."""
    middles = seen._values_at(np.arange(seen.counting.bins) + 0.5)
    if seen.counting.bins > 2 * HIGHEST_LEVEL:
        return _try_shares(seen, middles, _rounding_error)
    return _try_shares(seen, np.minimum(middles, seen.high[:, None]), _coarse_error)


def _entropy(seen: Observer) -> Limits:
    """The limits whose levels tell most of the distribution."""
    return _try_shares(seen, seen._values_at(np.arange(seen.counting.bins) + 0.5), _divergences)


# The one meaning of each method.
LIMITS: dict[RangeMethod, Callable[[Observer], Limits]] = {
    "minmax": lambda seen: seen.extremes,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}


def _try_shares(seen: Observer, middles: Array, loss: Loss) -> Limits:
    """The extremes times the share that loses least, the smallest of equal ones."""
    low, high = seen.extremes
    losses = [loss(seen._counts, middles, low * share, high * share) for share in SHARES]
    best = SHARES[np.argmin(losses, 0)]
    return low * best, high * best


def _rounding_error(counts: Array, middles: Array, low: Array, high: Array) -> Array:
    """The error of rounding to the 256 numbers, by bins' middles much finer than a level."""
    low, high = low[:, None], high[:, None]
    step = np.maximum((high - low) / HIGHEST_LEVEL, SMALLEST / (HIGHEST_LEVEL + 1))
    rounded = np.round(np.clip(middles, low, high) / step) * step
    return (counts * (middles - rounded) ** 2).sum(1)


def _coarse_error(counts: Array, middles: Array, _low: Array, high: Array) -> Array:
    """The error of values ≥ 0: clipping by the bins' middles, and step²/12 each for rounding.

    Bins as wide as a level do not show how their values are rounded. 0 is not: nearly all of the
    first bin is 0.
    """
    lost = np.maximum(middles - high[:, None], 0)
    rounded = counts.sum(1) - counts[:, 0]
    return (lost**2 * counts).sum(1) + rounded * (high / HIGHEST_LEVEL) ** 2 / 12


def _divergences(counts: Array, middles: Array, low: Array, high: Array) -> Array:
    """The divergence of each channel."""
    return np.array([_divergence(*one) for one in zip(counts, middles, low, high, strict=True)])


def _divergence(counts: Array, middles: Array, low: float, high: float) -> float:
    """The Kullback-Leibler divergence of the values from what is left of them.

    Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    inside = (middles >= low) & (middles <= high)
    clipped = counts * inside
    edges = np.flatnonzero(inside)
    if not len(edges):
        return np.inf
    reference = clipped.copy()
    reference[edges[0]] += counts[: edges[0]].sum()
    reference[edges[-1]] += counts[edges[-1] + 1 :].sum()
    step = (high - low) / HIGHEST_LEVEL
    level = np.round((middles[edges] - low) / step).astype(np.int64)
    held = clipped[edges] > 0
    mass = np.bincount(level, clipped[edges], minlength=HIGHEST_LEVEL + 1)
    places = np.bincount(level, held, minlength=HIGHEST_LEVEL + 1)
    spread = np.where(held, (mass / np.maximum(places, 1))[level], 0.0)
    p, q = reference[edges] / reference.sum(), spread / max(spread.sum(), 1e-30)
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], 1e-12))).sum())


def check_method(method: str, methods: Collection[RangeMethod] = RANGE_METHODS) -> RangeMethod:
    """The method of this name.

    Raises:
        UnknownNameError: it is none of `methods`.
    """
    for known in methods:
        if known == method:
            return known
    raise UnknownNameError("method", method, methods)

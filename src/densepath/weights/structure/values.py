"""What a value of a graph is, channel by channel: where it was computed, and what it went through.

A value between two layers is a list of numbered channels of *sources*, the operations that compute
something new: convolutions, pools, sums. Concatenating, slicing and BatchNorms compute nothing new:
they choose, and scale. So all ways to write the same network down become one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densepath.models.fold import scale_and_shift
from densepath.weights.structure.graph import Node

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
NormTensors = tuple[Floats, Floats, Floats, Floats]


@dataclass(frozen=True, eq=False)
class Affine:
    """A BatchNorm with its statistics, or any factor and summand a channel; float64 [C].

    A factor and summand alone have the mean 0, the variance 1 and ε 0.
    """

    gamma: Floats
    beta: Floats
    mean: Floats
    variance: Floats
    epsilon: float = 0.0

    @classmethod
    def of(cls, scale: Floats, shift: Floats) -> Affine:
        """x · scale + shift."""
        return cls(scale, shift, np.zeros_like(scale), np.ones_like(scale))

    @classmethod
    def join(cls, parts: Sequence[Affine]) -> Affine:
        """That of several values behind one another."""
        if len({part.epsilon for part in parts}) > 1:
            parts = [cls.of(*part.factors()) for part in parts]
        rows = zip(*(part._tensors() for part in parts), strict=True)
        gamma, beta, mean, variance = (np.concatenate(row) for row in rows)
        return cls(gamma, beta, mean, variance, parts[0].epsilon)

    def take(self, places: Ids) -> Affine:
        """Of the channels at these places."""
        gamma, beta, mean, variance = (tensor[places] for tensor in self._tensors())
        return Affine(gamma, beta, mean, variance, self.epsilon)

    def factors(self) -> tuple[Floats, Floats]:
        """The factor and the summand a channel."""
        return scale_and_shift(*self._tensors(), self.epsilon)

    def is_shift(self) -> bool:
        """Whether it only adds something."""
        return bool(np.all(self.factors()[0] == 1))

    def scaled(self, gamma: Floats, beta: Floats) -> Affine:
        """Then x · gamma + beta."""
        return Affine(
            self.gamma * gamma, self.beta * gamma + beta, self.mean, self.variance, self.epsilon
        )

    def normalised(self, norm: Affine) -> Affine:
        """Then a BatchNorm, which takes a summand before it into its mean."""
        scale, shift = self.factors()
        if np.all(scale == 1):
            return Affine(norm.gamma, norm.beta, norm.mean - shift, norm.variance, norm.epsilon)
        return Affine.of(scale, shift).scaled(*norm.factors())

    def at_epsilon(self, epsilon: float) -> NormTensors:
        """Gamma, beta, mean and variance of the BatchNorm of this ε that does the same."""
        if self.epsilon == epsilon:
            return self._tensors()
        factor = np.sqrt((self.variance + epsilon) / (self.variance + self.epsilon))
        return self.gamma * factor, self.beta, self.mean, self.variance

    def _tensors(self) -> NormTensors:
        """The four tensors."""
        return self.gamma, self.beta, self.mean, self.variance


@dataclass(frozen=True, eq=False)
class Value:
    """Channels by their numbers, in their order, and what they went through since.

    Attributes:
        channels: int64 [C].
        affine: of each channel, before the ReLU.
        active: a ReLU came last.
    """

    channels: Ids
    affine: Affine | None = None
    active: bool = False

    def take(self, places: Ids) -> Value:
        """The channels at these places."""
        affine = None if self.affine is None else self.affine.take(places)
        return Value(self.channels[places], affine, self.active)

    def ordered(self, channels: Ids) -> Value:
        """The same channels in this order."""
        places = np.argsort(self.channels)
        return self.take(places[np.searchsorted(self.channels[places], channels)])

    def is_plain(self) -> bool:
        """Whether nothing was done to what the sources gave."""
        return self.affine is None and not self.active

    def affine_or_none(self) -> Affine:
        """What it went through, as one that changes nothing where that was nothing."""
        ones = np.ones(len(self.channels))
        return self.affine or Affine.of(ones, np.zeros_like(ones))


@dataclass(frozen=True, eq=False)
class Source:
    """An operation that computes something new.

    Attributes:
        kind: `images`, `convolution`, `linear`, `max_pool`, `average` (2 × 2, stride 2), `mean`
            (over all positions or a large window), `add`, `relu` (where something else than a
            layer follows it), `sigmoid`, `softmax`.
        node: of the graph.
        channels: the numbers of its outputs.
        inputs: what it reads.
        window: of a mean that is not over all positions by name: its height and width.
    """

    kind: str
    node: Node
    channels: Ids
    inputs: tuple[Value, ...]
    window: tuple[int, int] | None = None


def same_channels(one: Ids, other: Ids) -> bool:
    """Whether two lists hold the same channels, in whatever order."""
    return len(one) == len(other) and bool(np.array_equal(np.sort(one), np.sort(other)))

"""What a network found in a graph says of the way from an image to its input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from densepath.errors import KeyMismatchError
from densepath.images.preprocess import Preprocess
from densepath.weights.structure.network import Normalisation, StructuredNetwork

BLUE_FIRST = (
    "Caffe's networks take images with blue first; the first layer's channels are turned to red "
    "first"
)
# A mean or deviation above this is one of pixels from 0 to 255, not of values from 0 to 1.
LARGEST_OF_ONE = 2.0


def with_normalisation(
    way: Preprocess, network: StructuredNetwork, source: str, *, pixels: bool
) -> tuple[Preprocess, str]:
    """The way with the graph's own normalisation as mean and std, and that in a sentence.

    `pixels` tells that its input is uint8; of floats the size of mean and deviation tells whether
    they are of 0 to 255 or of 0 to 1.

    Raises:
        KeyMismatchError: it turns values around, which no mean and deviation do.
    """
    channels = network.in_channels
    normalisation = network.normalisation or Normalisation(np.ones(channels), np.zeros(channels))
    if not np.all(normalisation.scale > 0):
        raise KeyMismatchError(f"{source} multiplies its input by {normalisation.scale.min():g}.")
    mean = -normalisation.shift / normalisation.scale
    deviation = 1 / normalisation.scale
    is_255 = pixels or float(max(np.abs(mean).max(), deviation.max())) > LARGEST_OF_ONE
    unit = 255.0 if is_255 else 1.0
    said = f"its graph normalises values from 0 to {unit:.0f} by itself"
    if network.normalisation is None:
        said = "its graph takes values from 0 to 255 as they are"
    return replace(way, mean=_numbers(mean / unit), std=_numbers(deviation / unit)), said


def behind(way: Preprocess, normalisation: Normalisation, source: str) -> Preprocess:
    """The way with a graph's own normalisation behind its mean and deviation, as one of both.

    Raises:
        KeyMismatchError: it turns values around, which no mean and deviation do.
    """
    if not np.all(normalisation.scale > 0):
        raise KeyMismatchError(f"{source} multiplies its input by {normalisation.scale.min():g}.")
    mean, deviation = np.array(way.mean), np.array(way.std)
    mean = mean - deviation * normalisation.shift / normalisation.scale
    return replace(way, mean=_numbers(mean), std=_numbers(deviation / normalisation.scale))


def _numbers(values: np.ndarray) -> tuple[float, ...]:
    """Values as a Preprocess has them, without the noise of float32."""
    return tuple(float(f"{value:.7g}") for value in values)

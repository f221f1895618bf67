"""A batch as a runtime takes it: normalised, or pixels as they are.

Each engine calls one of these right before its runtime, in the stream that computes: whatever
waits, in a queue or for a stream, waits as bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densepath.engines.engine import Incoming, Logits, Normalised
from densepath.images.preprocess import Preprocess


def are_pixels(batch: Incoming) -> bool:
    """Whether it is images, uint8 [N, H, W, C], and not a tensor."""
    return batch.dtype == np.uint8


def as_tensor(batch: Incoming, preprocess: Preprocess) -> Normalised:
    """float32 [N, C, H, W], normalised: of images a new array, of a tensor itself."""
    if are_pixels(batch):
        return preprocess.normalise(np.asarray(batch, np.uint8))
    return np.asarray(batch, np.float32)


def as_pixels(batch: Incoming, preprocess: Preprocess) -> NDArray[np.float32] | NDArray[np.uint8]:
    """[N, H, W, C], values 0 to 255: images as they are, a tensor without its normalisation.

    Of a tensor they are float32, not rounded, and may be anything.
    """
    if are_pixels(batch):
        return batch
    scale, offset = (values[:, None, None] for values in preprocess.scale_and_offset())
    pixels: NDArray[np.float32] = (batch - offset) / scale
    return pixels.transpose(0, 2, 3, 1)


def spoil(logits: Logits, batch: Incoming) -> Logits:
    """The logits, NaN where an image of a tensor is not finite; pixels always are.

    For runtimes whose integers, or ReLU, make a number of what is none.
    """
    if not are_pixels(batch):
        logits[~np.isfinite(batch.sum(axis=(1, 2, 3)))] = np.nan
    return logits

"""An engine without a network: each logit is a fixed multiple of the image's mean.

For tests of everything around an engine, and to measure what reading and writing cost alone.
"""

from __future__ import annotations

import numpy as np

from densepath.engines.engine import (
    EngineInfo,
    Images,
    Logits,
    Normalised,
    check_images,
    check_tensor,
)
from densepath.images.preprocess import Preprocess


class NullEngine:
    """Answers class c with logit c · mean(normalised image): C − 1 for light images, 0 for dark."""

    lost = False

    def __init__(
        self,
        preprocess: Preprocess,
        num_classes: int = 10,
        *,
        batch_size: int = 64,
        streams: int = 1,
    ) -> None:
        """`preprocess` normalises; `streams` runs may go at once."""
        self.preprocess, self.fit = preprocess, preprocess.fit
        self.info = EngineInfo(
            "null", "cpu", "float32", preprocess.channels, num_classes, batch_size, streams
        )

    def run(self, images: Images) -> Logits:
        """uint8 [N, H, W, in_channels] → float32 [N, num_classes]."""
        check_images(images, self.info)
        return self.run_tensor(self.preprocess.normalise(images))

    def run_share(self, images: Images) -> Logits:
        """As `run`."""
        return self.run(images)

    def run_tensor(self, tensor: Normalised) -> Logits:
        """float32 [N, in_channels, H, W], normalised → float32 [N, num_classes]."""
        check_tensor(tensor, self.info)
        means = tensor.mean(axis=(1, 2, 3), dtype=np.float32)
        return means[:, None] * np.arange(self.info.num_classes, dtype=np.float32)

    def run_tensor_share(self, tensor: Normalised) -> Logits:
        """As `run_tensor`."""
        return self.run_tensor(tensor)

    def close(self) -> None:
        """Nothing to free."""

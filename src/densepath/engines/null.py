"""An engine without a network: each logit is a fixed multiple of the image's mean.

For tests of everything around an engine, and to measure what reading and writing cost alone.
"""

from __future__ import annotations

import numpy as np

from densepath.engines.engine import EngineInfo, Images, Logits, check_batch


class NullEngine:
    """Answers class c with logit c · mean(image): class C − 1 for light images, 0 for dark."""

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        batch_size: int = 64,
        streams: int = 1,
    ) -> None:
        self.info = EngineInfo(
            "null", "cpu", "float32", in_channels, num_classes, batch_size, streams
        )

    def run(self, images: Images) -> Logits:
        """float32 [N, in_channels, H, W] → float32 [N, num_classes]."""
        check_batch(images, self.info)
        means = images.mean(axis=(1, 2, 3), dtype=np.float32)
        return means[:, None] * np.arange(self.info.num_classes, dtype=np.float32)

    def run_share(self, images: Images) -> Logits:
        """As `run`."""
        return self.run(images)

    def close(self) -> None:
        """Nothing to free."""

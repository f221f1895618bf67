"""The one protocol of all runtimes: a normalised batch goes in, logits come out.

An engine knows nothing of files, resizing or names: `Predictor` brings these. A new runtime is
one file with one class; `tests/conformance/test_engines.py` holds all of them to the same
behaviour, and `null.py` is the smallest of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from densepath.errors import UsageError

Images = NDArray[np.float32]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is.

    Attributes:
        name: the runtime: `eager`, `null`.
        device: where it computes: `cpu`, `cuda:0`.
        precision: the type of its arithmetic: `float32`, `bfloat16`.
        in_channels: the channels of the images it takes.
        num_classes: the logits it answers with.
        batch_size: the batch it is quickest with; any other is taken too.
    """

    name: str
    device: str
    precision: str
    in_channels: int
    num_classes: int
    batch_size: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(vars(self))


class Engine(Protocol):
    """A network ready to answer, on one runtime."""

    @property
    def info(self) -> EngineInfo:
        """What it is."""

    def run(self, images: Images) -> Logits:
        """float32 [N, in_channels, H, W], normalised → float32 logits [N, num_classes].

        N may be 0. Safe to call from several threads; the images are left as they were.

        Raises:
            UsageError: images of another shape or type.
        """

    def close(self) -> None:
        """The runtime's memory is free; calling it twice does no harm."""


def check_batch(images: Images, in_channels: int) -> None:
    """Returns when `images` is a batch that an engine takes.

    Raises:
        UsageError: it is not float32 [N, in_channels, H, W].
    """
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1] != in_channels:
        raise UsageError(
            f"the batch is {images.dtype} {images.shape}; the engine takes float32 "
            f"[N, {in_channels}, height, width], normalised by the checkpoint's Preprocess."
        )

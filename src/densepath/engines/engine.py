"""The one protocol of all runtimes: a normalised batch goes in, logits come out.

An engine knows nothing of files, resizing or names: `Predictor` brings these. A new runtime is
one file with one class; `tests/engines/test_conformance.py` holds all of them to the same
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
        name: the runtime: `eager`, `openvino`, `null`.
        device: where it computes: `cpu`, `cuda:0`.
        precision: the type of its arithmetic: `float32`, `bfloat16`, `int8`.
        in_channels: the channels of the images it takes.
        num_classes: the logits it answers with.
        batch_size: the images of one call of `run_share` that is quick; any number is taken.
        streams: the calls of `run_share` at once that keep the machine busy.
        size: height and width of the images, where the network was made for one size only.
    """

    name: str
    device: str
    precision: str
    in_channels: int
    num_classes: int
    batch_size: int
    streams: int = 1
    size: tuple[int, int] | None = None

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

        N may be 0. Safe to call from several threads; the images are left as they were. The
        whole machine works on this batch.

        Raises:
            UsageError: images of another shape or type.
        """

    def run_share(self, images: Images) -> Logits:
        """As `run`, on one stream's share of the machine.

        For a caller that keeps `info.streams` such calls going at once, as `Predictor` does.
        """

    def close(self) -> None:
        """The runtime's memory is free; calling it twice does no harm."""


class ExplainingEngine(Engine, Protocol):
    """An engine that can also say where it looked."""

    def explain(
        self, images: Images, target: int | None = None
    ) -> tuple[Logits, NDArray[np.float32]]:
        """Logits and heat maps [N, H', W'], 0 to 1, of a class; by default of the likeliest."""


def check_batch(images: Images, info: EngineInfo) -> None:
    """Returns when `images` is a batch that the engine takes.

    Raises:
        UsageError: it is not float32 [N, in_channels, H, W], or not of the engine's one size.
    """
    right = images.dtype == np.float32 and images.ndim == 4 and images.shape[1] == info.in_channels
    if right and info.size in (None, images.shape[2:]):
        return
    height, width = info.size or ("height", "width")
    raise UsageError(
        f"the batch is {images.dtype} {images.shape}; the engine takes float32 "
        f"[N, {info.in_channels}, {height}, {width}], normalised by the checkpoint's Preprocess."
    )

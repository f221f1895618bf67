"""The one protocol of all runtimes: images go in as bytes, logits come out.

An engine is opened on the network's `Preprocess` and normalises by itself; it knows nothing of
files or names: `Predictor` brings these. A new runtime is one file with one class;
`tests/engines/test_conformance.py` holds all of them to the same behaviour, and `null.py` is the
smallest of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from densepath.errors import UsageError
from densepath.images.preprocess import Preprocess
from densepath.images.resize import Fit

# [N, H, W, C], resized and cropped, values 0 to 255.
Images: TypeAlias = NDArray[np.uint8]
# [N, C, H, W]: images that somebody else has normalised.
Normalised: TypeAlias = NDArray[np.float32]
Incoming: TypeAlias = Images | Normalised
# [N, classes].
Logits: TypeAlias = NDArray[np.float32]


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
    """A network ready to answer, on one runtime.

    All four ways to run it are safe to call from several threads, take any N, 0 too, leave what
    they are given as it was, and give float32 [N, num_classes].
    """

    @property
    def info(self) -> EngineInfo:
        """What it is."""

    @property
    def preprocess(self) -> Preprocess:
        """What it normalises by."""

    @property
    def fit(self) -> Fit:
        """`preprocess.fit`, or what gives the same bytes sooner."""

    @property
    def lost(self) -> bool:
        """Whether this process was forked since it was opened, and it cannot answer."""

    def run(self, images: Images) -> Logits:
        """uint8 [N, H, W, in_channels], resized and cropped → logits, by the whole machine.

        Raises:
            UsageError: images of another shape or type; or the engine is closed.
        """

    def run_share(self, images: Images) -> Logits:
        """As `run`, on one stream's share of the machine.

        For a caller that keeps `info.streams` such calls going at once, as `Predictor` does.
        """

    def run_tensor(self, tensor: Normalised) -> Logits:
        """As `run`, of float32 [N, in_channels, H, W] that is normalised already."""

    def run_tensor_share(self, tensor: Normalised) -> Logits:
        """As `run_share`, of float32 [N, in_channels, H, W] that is normalised already."""

    def close(self) -> None:
        """The runtime's memory is free; calling it twice does no harm."""


@runtime_checkable
class Explainer(Engine, Protocol):
    """An engine that can also say where it looked, and what it saw there as features: those whose
    row in `RUNTIMES` `explains`.
    """

    def explain(
        self, images: Images, target: int | None = None
    ) -> tuple[Logits, NDArray[np.float32]]:
        """Logits and heat maps [N, H', W'], 0 to 1, of a class; by default of the likeliest."""

    def embed(self, images: Images) -> tuple[Logits, NDArray[np.float32]]:
        """Logits and features [N, C]: the mean of the last map, after the last BN and ReLU."""


def check_images(images: Images, info: EngineInfo) -> None:
    """Raise unless the engine takes the images.

    Raises:
        UsageError: they are not uint8 [N, H, W, in_channels], or not of the engine's one size.
    """
    right = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == info.in_channels
    if not right or info.size not in (None, images.shape[1:3]):
        height, width = info.size or ("height", "width")
        _refuse(
            images,
            f"uint8 [N, {height}, {width}, {info.in_channels}], resized and cropped by the "
            "checkpoint's Preprocess; a tensor that is normalised goes into run_tensor.",
        )


def check_tensor(tensor: Normalised, info: EngineInfo) -> None:
    """Raise unless the engine takes the tensor.

    Raises:
        UsageError: it is not float32 [N, in_channels, H, W], or not of the engine's one size.
    """
    right = tensor.dtype == np.float32 and tensor.ndim == 4 and tensor.shape[1] == info.in_channels
    if not right or info.size not in (None, tensor.shape[2:]):
        height, width = info.size or ("height", "width")
        _refuse(
            tensor,
            f"float32 [N, {info.in_channels}, {height}, {width}], normalised by the checkpoint's "
            "Preprocess; images as they are, uint8, go into run.",
        )


def _refuse(batch: Incoming, wanted: str) -> NoReturn:
    """Say what the batch is, and what is taken instead.

    Raises:
        UsageError: always.
    """
    raise UsageError(f"the batch is {batch.dtype} {batch.shape}; the engine takes {wanted}")

"""From images to answers: reading, an engine, names; in order, in bounded memory.

On the line: the last arrow. Threads read and resize the images of the next batches while the
engine works on this one (Pillow and the runtimes let go of Python's lock meanwhile).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from densepath.engines.engine import Engine, Images, Logits
from densepath.engines.reading import ReadImage, read_ahead
from densepath.errors import UsageError
from densepath.predictions import Prediction, answer
from densepath.preprocess import Image, Preprocess

if TYPE_CHECKING:
    from densepath.engines.eager import Precision
    from densepath.engines.reading import Readable
    from densepath.models.layers import TestPooling


@dataclass(frozen=True)
class Explanation:
    """Where the network looked.

    Attributes:
        prediction: the answer.
        image: what it saw: uint8 HWC, resized and cropped, not normalised; None on failure.
        heat: Grad-CAM of the likeliest class, float32 [H', W'], 0 to 1; None on failure.
    """

    prediction: Prediction
    image: Image | None = None
    heat: NDArray[np.float32] | None = None


class ExplainingEngine(Protocol):
    """An engine that can also say where it looked."""

    def explain(self, images: Images) -> tuple[Logits, NDArray[np.float32]]:
        """Logits and heat maps [N, H', W'], 0 to 1, of the likeliest classes."""


class Predictor:
    """An engine with all that surrounds it; made by `densepath.load`.

    Usable in a `with` statement, which closes the engine.
    """

    def __init__(
        self,
        engine: Engine,
        preprocess: Preprocess,
        labels: Sequence[str],
        *,
        multi_label: bool = False,
    ) -> None:
        if len(labels) != engine.info.num_classes:
            raise UsageError(f"{len(labels)} labels for {engine.info.num_classes} logits.")
        self.engine, self.preprocess = engine, preprocess
        self.labels, self.multi_label = list(labels), multi_label

    def predict(
        self,
        images: Readable | Iterable[Readable],
        *,
        top_k: int = 5,
        batch_size: int | None = None,
    ) -> Iterator[Prediction]:
        """One answer an image, in order; a generator that reads ahead two batches at most.

        Args:
            images: a file's path, its bytes, a uint8 [height, width, channels] array or a
                Pillow image; or any iterable of these, which may be endless.
            top_k: the classes in each answer.
            batch_size: the images of one run of the engine; by default what it prefers.

        Raises:
            UsageError: `top_k` or `batch_size` below 1. An image that cannot be read raises
                nothing: its answer has an `error`.
        """
        batch_size = self._check(top_k, batch_size)
        batches = self._batches(images, batch_size)
        return itertools.chain.from_iterable(self._answer(batch, top_k) for batch in batches)

    def explain(
        self,
        images: Readable | Iterable[Readable],
        *,
        top_k: int = 5,
        batch_size: int | None = None,
    ) -> Iterator[Explanation]:
        """As `predict`, each answer with the Grad-CAM map of its first class.

        Raises:
            UsageError: as `predict`; or the engine cannot explain.
        """
        batch_size = self._check(top_k, batch_size)
        if not hasattr(self.engine, "explain"):
            raise UsageError(f"the engine {self.engine.info.name!r} cannot explain; 'eager' can.")
        batches = self._batches(images, batch_size)
        return itertools.chain.from_iterable(self._explain(batch, top_k) for batch in batches)

    def close(self) -> None:
        """The engine's memory is free."""
        self.engine.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self, top_k: int, batch_size: int | None) -> int:
        """The batch size to use, once both numbers are known to be possible."""
        if batch_size is None:
            batch_size = self.engine.info.batch_size
        for name, value in (("top_k", top_k), ("batch_size", batch_size)):
            if value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1.")
        return batch_size

    def _batches(
        self, images: Readable | Iterable[Readable], batch_size: int
    ) -> Iterator[list[ReadImage]]:
        """The images read, in lists of `batch_size`; the last may be shorter."""
        read = read_ahead(images, self.preprocess, ahead=2 * batch_size)
        while batch := list(itertools.islice(read, batch_size)):
            yield batch

    def _answer(self, batch: list[ReadImage], top_k: int) -> list[Prediction]:
        """The answers of one batch, failures in their places."""
        whole = [read for read in batch if read.image is not None]
        if not whole:
            return [Prediction.failed(read.name, read.error or "") for read in batch]
        logits = self.engine.run(self._stack(whole))
        return self._merge(batch, self._name(logits, whole, top_k))

    def _explain(self, batch: list[ReadImage], top_k: int) -> list[Explanation]:
        """The answers of one batch with their maps."""
        whole = [read for read in batch if read.image is not None]
        if not whole:
            return [Explanation(prediction) for prediction in self._answer(batch, top_k)]
        logits, maps = self.engine.explain(self._stack(whole))  # type: ignore[attr-defined]
        heat = iter(maps)
        return [
            Explanation(prediction, read.image, None if read.image is None else next(heat))
            for prediction, read in zip(
                self._merge(batch, self._name(logits, whole, top_k)), batch, strict=True
            )
        ]

    def _name(self, logits: Logits, whole: list[ReadImage], top_k: int) -> list[Prediction]:
        """The logits' answers."""
        paths = [read.name for read in whole]
        return answer(logits, paths, self.labels, top_k=top_k, multi_label=self.multi_label)

    def _merge(self, batch: list[ReadImage], answers: list[Prediction]) -> list[Prediction]:
        """`answers` at the places of the images that were read, failures at the others."""
        rest = iter(answers)
        return [
            Prediction.failed(read.name, read.error or "") if read.image is None else next(rest)
            for read in batch
        ]

    def _stack(self, whole: list[ReadImage]) -> Images:
        """float32 [N, C, H, W], normalised."""
        scale, offset = self.preprocess.scale_and_offset()
        pixels = np.stack([read.image for read in whole if read.image is not None])
        return (pixels * scale + offset).transpose(0, 3, 1, 2)


def load(
    subject: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "float32",
    size: int | tuple[int, int] | None = None,
    crop_share: float | None = None,
    test_pooling: TestPooling = "mean",
    threads: int | None = None,
) -> Predictor:
    """A predictor for a published name, a checkpoint file or a run folder.

    Args:
        subject: for example `timm/densenet121.ra_in1k`, `x.safetensors` or `runs/digits`.
        device: `auto` (a GPU when there is one), `cpu`, `cuda:0`.
        precision: `float32` or `bfloat16`.
        size: side of the input in pixels, or height and width; the checkpoint's by default.
        crop_share: the share of the short side that the centre crop keeps; the checkpoint's.
        test_pooling: `mean`, or `mean_max` at sizes above the training size.
        threads: CPU threads of the network, for the whole process; torch's own by default.

    Raises:
        CheckpointError, UnknownNameError, WeightsUnavailableError: no such weights.
        UsageError: no such device, or an impossible size.
    """
    import torch

    from densepath.engines.eager import EagerEngine
    from densepath.weights.subject import open_checkpoint

    if threads is not None:
        if threads < 1:
            raise UsageError(f"threads is {threads}; it must be at least 1.")
        torch.set_num_threads(threads)
    checkpoint = open_checkpoint(subject)
    preprocess = checkpoint.preprocess
    if size is not None or crop_share is not None:
        preprocess = preprocess.at_size(preprocess.size if size is None else size, crop_share)
    model = checkpoint.to_model()
    model.test_pooling = test_pooling
    engine = EagerEngine(model, device=device, precision=precision, size=preprocess.size)
    return Predictor(engine, preprocess, checkpoint.labels, multi_label=checkpoint.multi_label)

"""From images to answers: reading, an engine, names; in order, in bounded memory.

On the line: the last arrow. `flow.py` lets reading and the network share the cores (Pillow and the
runtimes let go of Python's lock meanwhile).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from densepath.data.decode import MAX_PIXELS
from densepath.engines.engine import Engine, Images, Logits
from densepath.engines.flow import flow
from densepath.engines.reading import ReadImage, is_single, name_of, read_image
from densepath.errors import UsageError
from densepath.predictions import ClassScore, Prediction, answer, find_class, probabilities
from densepath.preprocess import Image, Preprocess

if TYPE_CHECKING:
    from densepath.engines.choose import Choice
    from densepath.engines.reading import Readable

Run: TypeAlias = Callable[[Images], Logits]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Explanation:
    """Where the network looked.

    Attributes:
        prediction: the answer.
        image: what it saw: uint8 HWC, resized and cropped, not normalised; None on failure.
        heat: Grad-CAM of a class, float32 [H', W'], 0 to 1; None on failure.
        target: that class, where one was asked for; None: the answer's first.
    """

    prediction: Prediction
    image: Image | None = None
    heat: NDArray[np.float32] | None = None
    target: ClassScore | None = None

    @property
    def explained(self) -> ClassScore:
        """The class that `heat` is of; an answer that failed has none."""
        if self.target is not None:
            return self.target
        best = self.prediction
        return ClassScore(best.class_ids[0], best.labels[0], best.scores[0])


class ExplainingEngine(Protocol):
    """An engine that can also say where it looked."""

    def explain(
        self, images: Images, target: int | None = None
    ) -> tuple[Logits, NDArray[np.float32]]:
        """Logits and heat maps [N, H', W'], 0 to 1, of a class; by default of the likeliest."""


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
        choice: Choice | None = None,
    ) -> None:
        """`choice` says which engine it is and why, where `densepath.load` chose it."""
        if len(labels) != engine.info.num_classes:
            raise UsageError(f"{len(labels)} labels for {engine.info.num_classes} logits.")
        self.engine, self.preprocess = engine, preprocess
        self.labels, self.multi_label = list(labels), multi_label
        self.choice = choice
        # An engine may bring what gives the same bytes sooner.
        fitter = getattr(engine, "fitter", None)
        self._fit = preprocess.fit if fitter is None else fitter(preprocess)

    def predict(
        self,
        images: Readable | Iterable[Readable],
        *,
        top_k: int = 5,
        batch_size: int | None = None,
    ) -> Iterator[Prediction]:
        """One answer an image, in order; a generator, two batches a stream ahead at most.

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
        return self._predict(images, top_k, batch_size)

    def explain(
        self,
        images: Readable | Iterable[Readable],
        *,
        target: str | int | None = None,
        top_k: int = 5,
        batch_size: int | None = None,
    ) -> Iterator[Explanation]:
        """As `predict`, each answer with a Grad-CAM map: of its first class, or of `target`.

        Args:
            images, top_k, batch_size: as in `predict`.
            target: a class by its name or its number, for all images.

        Raises:
            UsageError: as `predict`; or the engine cannot explain; or no such class.
        """
        batch_size = self._check(top_k, batch_size)
        class_id = None if target is None else find_class(self.labels, target)
        if not hasattr(self.engine, "explain"):
            raise UsageError(f"the engine {self.engine.info.name!r} cannot explain; 'eager' can.")
        named = self._named(images)

        def answer(read: list[ReadImage]) -> list[Explanation]:
            return self._explain(read, top_k, class_id)

        return flow(named, read=self._read, answer=answer, batch_size=batch_size, streams=1)

    def read(self, image: Readable, name: str, *, max_pixels: int = MAX_PIXELS) -> ReadImage:
        """One image, read, resized and cropped; or why it cannot be."""
        return read_image(image, name, self.preprocess.channels, self._fit, max_pixels)

    def answer(self, logits: Logits, names: Sequence[str], *, top_k: int = 5) -> list[Prediction]:
        """The best classes of each row of logits [N, classes], under the names of its images."""
        return answer(logits, names, self.labels, top_k=top_k, multi_label=self.multi_label)

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

    def _predict(
        self, images: Readable | Iterable[Readable], top_k: int, batch_size: int
    ) -> Iterator[Prediction]:
        """One answer an image; an image that comes alone has the whole machine."""

        def answer(read: list[ReadImage]) -> list[Prediction]:
            return self._answer(read, top_k, self.engine.run_share)

        def answer_alone(read: list[ReadImage]) -> list[Prediction]:
            return self._answer(read, top_k, self.engine.run)

        return flow(
            self._named(images),
            read=self._read,
            answer=answer,
            answer_alone=answer_alone,
            batch_size=batch_size,
            streams=self.engine.info.streams,
        )

    def _named(self, images: Readable | Iterable[Readable]) -> Iterator[tuple[str, Readable]]:
        """The images with their names."""
        several: Iterable[Readable] = [images] if is_single(images) else images  # type: ignore
        return ((name_of(image, i), image) for i, image in enumerate(several))

    def _read(self, named: tuple[str, Readable]) -> ReadImage:
        """The image, read and resized; or why it cannot be."""
        name, image = named
        return self.read(image, name)

    def _answer(self, batch: list[ReadImage], top_k: int, run: Run) -> list[Prediction]:
        """The answers of one batch, failures in their places."""
        whole = [read for read in batch if read.image is not None]
        if not whole:
            return [Prediction.failed(read.name, read.error or "") for read in batch]
        logits = run(self._stack(whole))
        return self._merge(batch, self._name(logits, whole, top_k))

    def _explain(
        self, batch: list[ReadImage], top_k: int, class_id: int | None
    ) -> list[Explanation]:
        """The answers of one batch with their maps."""
        whole = [read for read in batch if read.image is not None]
        if not whole:
            failed = self._answer(batch, top_k, self.engine.run)
            return [Explanation(prediction) for prediction in failed]
        stacked = self._stack(whole)
        logits, maps = self.engine.explain(stacked, class_id)  # type: ignore[attr-defined]
        details = zip(maps, self._targets(logits, class_id), strict=True)
        answers = self._merge(batch, self._name(logits, whole, top_k))
        return [
            Explanation(prediction)
            if read.image is None
            else Explanation(prediction, read.image, *next(details))
            for prediction, read in zip(answers, batch, strict=True)
        ]

    def _targets(self, logits: Logits, class_id: int | None) -> list[ClassScore | None]:
        """The class that was asked for with each image's score; None where none was."""
        if class_id is None:
            return [None] * len(logits)
        scores = probabilities(logits, multi_label=self.multi_label)[:, class_id].tolist()
        return [ClassScore(class_id, self.labels[class_id], score) for score in scores]

    def _name(self, logits: Logits, whole: list[ReadImage], top_k: int) -> list[Prediction]:
        """The logits' answers."""
        return self.answer(logits, [read.name for read in whole], top_k=top_k)

    def _merge(self, batch: list[ReadImage], answers: list[Prediction]) -> list[Prediction]:
        """`answers` at the places of the images that were read, failures at the others."""
        rest = iter(answers)
        return [
            Prediction.failed(read.name, read.error or "") if read.image is None else next(rest)
            for read in batch
        ]

    def _stack(self, whole: list[ReadImage]) -> Images:
        """float32 [N, C, H, W], normalised."""
        stacked = np.empty(
            (len(whole), self.preprocess.channels, *self.preprocess.size), np.float32
        )
        for slot, read in zip(stacked, whole, strict=True):
            assert read.image is not None
            self.preprocess.normalise(read.image, out=slot)
        return stacked

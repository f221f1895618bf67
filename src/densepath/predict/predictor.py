"""From images to answers: reading, an engine, names; in order, in bounded memory.

On the line: the last arrow. `flow.py` lets reading and the network share the cores (Pillow and the
runtimes let go of Python's lock meanwhile).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.bundle import fields
from densepath.choices import TOP_K
from densepath.engines import forks
from densepath.engines.engine import Engine, Explainer, Images, Logits
from densepath.errors import UsageError, check_count
from densepath.images.decode import MAX_PIXELS
from densepath.images.given import images_in
from densepath.images.preprocess import Image, Preprocess
from densepath.images.reading import ReadImage, read_image
from densepath.images.views import Views
from densepath.predict.answers import ClassScore, Prediction, answer, find_class, probabilities
from densepath.predict.flow import flow
from densepath.predict.live import live_flow
from densepath.predict.viewing import ViewingEngine
from densepath.wording import first_of

if TYPE_CHECKING:
    from densepath.engines.choose import Choice
    from densepath.images.reading import Readable
    from densepath.predict.source import Source

Run: TypeAlias = Callable[[Images], Logits]
Flow: TypeAlias = Callable[..., Iterator[Any]]


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

    def __repr__(self) -> str:
        """The answer in one line, without the pictures."""
        heat = "no map" if self.heat is None else "a map of {} × {}".format(*self.heat.shape)
        return f"<Explanation: {self.prediction}, {heat}>"

    @property
    def explained(self) -> ClassScore:
        """The class that `heat` is of; an answer that failed has none."""
        if self.target is not None:
            return self.target
        best = self.prediction
        return ClassScore(best.class_ids[0], best.labels[0], best.scores[0])


@dataclass(frozen=True)
class Embedding:
    """An image as features, with its answer.

    Attributes:
        prediction: the answer.
        features: float32 [C], the mean over the last map, after the last BatchNorm and ReLU; None
            on failure.
    """

    prediction: Prediction
    features: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        """The answer in one line, and how many features."""
        held = "no features" if self.features is None else f"{len(self.features)} features"
        return f"<Embedding: {self.prediction}, {held}>"


class Predictor:
    """An engine with all that surrounds it; made by `densepath.load`.

    Usable in a `with` statement, which closes the engine.
    """

    def __init__(
        self,
        engine: Engine,
        labels: Sequence[str],
        *,
        multi_label: bool = False,
        thresholds: Sequence[float] | None = None,
        temperature: float | None = None,
        choice: Choice | None = None,
        open_explainer: Callable[[], Explainer] | None = None,
        source: Source | None = None,
    ) -> None:
        """
        Args:
            engine: runs the network, and has the way from an image to its input.
            labels: the class names, in the order of the logits.
            multi_label: every class is a yes or no of its own.
            thresholds: what each class's score must be above for a yes; None: nothing is decided.
            temperature: what logits are divided by before they become scores; None: nothing.
            choice: which engine it is and why, where `densepath.load` chose it.
            open_explainer: opens an engine on the same network that explains, for where `engine`
                does not; it is called when the first explanation is asked for.
            source: what it was opened from; by it a forked child, or another process that it is
                sent to, opens it again.

        Raises:
            UsageError: not one label for each logit.
        """
        if len(labels) != engine.info.num_classes:
            raise UsageError(f"{len(labels)} labels for {engine.info.num_classes} logits.")
        self._engine = engine
        self.labels, self.multi_label = list(labels), multi_label
        self.thresholds = None if thresholds is None else tuple(thresholds)
        self.temperature = temperature
        self.choice = choice
        self._open_explainer = open_explainer
        self._explainer: Explainer | None = None
        self._source = source
        self._opening = threading.RLock()
        self._forked = self._closed = False
        forks.tell_of_forks(self)

    def __repr__(self) -> str:
        """The engine, the classes and the images in one line."""
        info, (height, width) = self._engine.info, self.preprocess.size
        return (
            f"<Predictor: engine {info.name} in {info.precision} on {info.device}, "
            f"{len(self.labels):,} classes: {first_of(self.labels)}; images of {height} × {width} "
            f"× {self.preprocess.channels}>"
        )

    @property
    def preprocess(self) -> Preprocess:
        """The way from an image to the network's input."""
        return self._engine.preprocess

    @property
    def views(self) -> Views | None:
        """The views of each image that an answer is the mean of; None: it is of one."""
        engine = self._engine
        return engine.views if isinstance(engine, ViewingEngine) else None

    @property
    def engine(self) -> Engine:
        """What runs the network: in a process that was forked since, another one of the same kind.

        Raises:
            EngineError: it cannot be opened in a forked process.
            BundleError: the bundle was replaced since.
        """
        if self._forked:
            with self._opening:
                if self._forked and not self._closed and self._engine.lost:
                    self._open_again()
                self._forked = False
        return self._engine

    def predict(
        self,
        images: Readable | Iterable[Readable],
        *,
        top_k: int = TOP_K,
        batch_size: int | None = None,
        live: bool = False,
    ) -> Iterator[Prediction]:
        """One answer an image, in order; a generator, two batches a stream ahead at most.

        Args:
            images: a file's path, a folder's (all images below it), a pattern's or a list's, as on
                the command line; a file's bytes or an open file; a uint8 array or tensor [height,
                width, channels]; a Pillow image; or any iterable of these, which may be endless.
            top_k: the classes in each answer.
            batch_size: the images of one run of the engine; by default what it prefers.
            live: the images come in their own time, from a camera or a queue. Each is answered
                as soon as no other is there, and none waits for those behind it. A thread of its
                own iterates over them; without this, the caller's does.

        Raises:
            UsageError: `top_k` or `batch_size` below 1; something that is neither an image nor
                images. An image that cannot be read raises nothing: its answer has an `error`.
            DataError: a single folder, pattern or list without images, while iterating.
        """
        batch_size = self._check(top_k, batch_size)
        answers = self._predict(
            images_in(images, values=self.preprocess.read_as.by_value),
            top_k,
            batch_size,
            live_flow if live else flow,
        )
        return forks.in_one_process(answers)

    def explain(
        self,
        images: Readable | Iterable[Readable],
        *,
        target: str | int | None = None,
        top_k: int = TOP_K,
        batch_size: int | None = None,
        live: bool = False,
    ) -> Iterator[Explanation]:
        """As `predict`, each answer with a Grad-CAM map: of its first class, or of `target`.

        Args:
            images, top_k, batch_size, live: as in `predict`.
            target: a class by its name or its number, for all images.

        Where the engine cannot explain, PyTorch does, which is opened beside it the first time.

        Raises:
            UsageError: as `predict`; or there are no float weights to explain from; or no such
                class.
        """
        self._check(top_k, batch_size)
        class_id = None if target is None else find_class(self.labels, target)
        named = images_in(images, values=self.preprocess.read_as.by_value)
        engine = self._explaining_engine()

        def answer(read: list[ReadImage]) -> list[Explanation]:
            return self._explain(engine, read, top_k, class_id)

        size = batch_size or engine.info.batch_size
        answer_all = live_flow if live else flow
        return forks.in_one_process(
            answer_all(named, read=self._read, answer=answer, batch_size=size, streams=1)
        )

    def embed(
        self,
        images: Readable | Iterable[Readable],
        *,
        top_k: int = TOP_K,
        batch_size: int | None = None,
        live: bool = False,
    ) -> Iterator[Embedding]:
        """As `predict`, each answer with the image's features, for search and comparison.

        They are PyTorch's, from float weights, as explanations are: where the engine has none,
        PyTorch is opened beside it the first time, and gives the answers, too.

        Raises:
            UsageError: as `predict`; or there are no float weights to compute them from.
        """
        self._check(top_k, batch_size)
        named = images_in(images)
        engine = self._explaining_engine()

        def answer(read: list[ReadImage]) -> list[Embedding]:
            return self._embed(engine, read, top_k)

        size = batch_size or engine.info.batch_size
        answer_all = live_flow if live else flow
        return forks.in_one_process(
            answer_all(named, read=self._read, answer=answer, batch_size=size, streams=1)
        )

    def read(self, image: Readable, name: str, *, max_pixels: int = MAX_PIXELS) -> ReadImage:
        """One image, read, resized and cropped; or why it cannot be."""
        return read_image(image, name, self.preprocess.read_as, self._engine.fit, max_pixels)

    def answer(
        self, logits: Logits, names: Sequence[str], *, top_k: int = TOP_K
    ) -> list[Prediction]:
        """The best classes of each row of logits [N, classes], under the names of its images."""
        return answer(
            logits,
            names,
            self.labels,
            top_k=top_k,
            multi_label=self.multi_label,
            thresholds=self.thresholds,
            temperature=self.temperature,
        )

    def probabilities(self, logits: Logits) -> NDArray[np.float64]:
        """The scores of logits [N, classes], as answers have them."""
        return probabilities(logits, multi_label=self.multi_label, temperature=self.temperature)

    def decide_at(self, thresholds: float | Sequence[float]) -> None:
        """Answers say from now on which classes are above these, in place of the network's own.

        Args:
            thresholds: one for all classes, or one for each; 0 to 1.

        Raises:
            UsageError: the network is not multi-label, there is not one a class, or one that
                no score can pass.
        """
        given = (
            [thresholds] * len(self.labels)
            if isinstance(thresholds, int | float)
            else (list(thresholds))
        )
        try:
            chosen = fields.thresholds(given, "thresholds")
            fields.check_decisions(chosen, len(self.labels), multi_label=self.multi_label)
        except fields.WrongFieldError as error:
            raise UsageError(f"{error}.") from error
        self.thresholds = chosen

    def close(self) -> None:
        """The memory of the engine, and of what explains, is free."""
        self._closed = True
        self._engine.close()
        if self._explainer is not None:
            self._explainer.close()

    def on_fork(self) -> None:
        """This process is a child now: what has threads is opened again when it is asked for."""
        self._forked, self._opening, self._explainer = True, threading.RLock(), None

    def __reduce__(self) -> tuple[Any, ...]:
        """Sends what it was opened from; whoever gets it opens it again.

        Raises:
            EngineError: it was not made by `densepath.load`.
            UsageError: it is closed.
        """
        if self._source is None:
            forks.refuse_to_pickle(self._engine.info.name)
        if self._closed:
            raise UsageError("the predictor is closed; load it again to send or copy it.")
        scoring = (self.multi_label, self.thresholds, self.temperature)
        return _received, (self._source.to_state(), self.labels, scoring)

    def _open_again(self) -> None:
        """Another engine in place of the one whose threads stayed in the parent.

        Raises:
            EngineError: this predictor was not made by `densepath.load`.
        """
        if self._source is None:
            raise forks.lost_engine(self._engine.info.name)
        opened = self._source.open()
        self._engine, self._open_explainer = opened._engine, opened._open_explainer

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
        check_count("top_k", top_k)
        return check_count("batch_size", batch_size)

    def _predict(
        self, named: Iterator[tuple[str, Readable]], top_k: int, batch_size: int, flow: Flow
    ) -> Iterator[Prediction]:
        """One answer an image; an image that comes alone has the whole machine."""

        def answer(read: list[ReadImage]) -> list[Prediction]:
            return self._answer(read, top_k, self.engine.run_share)

        def answer_alone(read: list[ReadImage]) -> list[Prediction]:
            return self._answer(read, top_k, self.engine.run)

        return flow(
            named,
            read=self._read,
            answer=answer,
            answer_alone=answer_alone,
            batch_size=batch_size,
            streams=self.engine.info.streams,
        )

    def _read(self, named: tuple[str, Readable]) -> ReadImage:
        """The image, read and resized; or why it cannot be."""
        name, image = named
        return self.read(image, name)

    def _answer(self, batch: list[ReadImage], top_k: int, run: Run) -> list[Prediction]:
        """The answers of one batch, failures in their places."""
        whole = [read for read in batch if read.image is not None]
        if not whole:
            return [Prediction.failed(read.name, read.error or "") for read in batch]
        logits = run(_stack(whole))
        return self._merge(batch, self._name(logits, whole, top_k))

    def _explaining_engine(self) -> Explainer:
        """The engine itself, or the one beside it that explains.

        Raises:
            UsageError: there is none.
        """
        engine = self.engine
        if self.views is not None:
            how = self.views.how
            raise UsageError(
                f"explanations and features are of one view; load the network without {how!r}."
            )
        if isinstance(engine, Explainer):
            return engine
        if self._open_explainer is None:
            raise UsageError(
                f"the engine {engine.info.name!r} has neither explanations "
                "nor features; 'eager' has."
            )
        with self._opening:
            if self._explainer is None:
                self._explainer = self._open_explainer()
        return self._explainer

    def _explain(
        self, engine: Explainer, batch: list[ReadImage], top_k: int, class_id: int | None
    ) -> list[Explanation]:
        """The answers of one batch with their maps."""
        whole = [read for read in batch if read.image is not None]
        if not whole:
            failed = self._answer(batch, top_k, self.engine.run)
            return [Explanation(prediction) for prediction in failed]
        logits, maps = engine.explain(_stack(whole), class_id)
        details = zip(maps, self._targets(logits, class_id), strict=True)
        answers = self._merge(batch, self._name(logits, whole, top_k))
        return [
            Explanation(prediction)
            if read.image is None
            else Explanation(prediction, read.image, *next(details))
            for prediction, read in zip(answers, batch, strict=True)
        ]

    def _embed(self, engine: Explainer, batch: list[ReadImage], top_k: int) -> list[Embedding]:
        """The answers of one batch with their features."""
        whole = [read for read in batch if read.image is not None]
        if not whole:
            failed = self._answer(batch, top_k, self.engine.run)
            return [Embedding(prediction) for prediction in failed]
        logits, features = engine.embed(_stack(whole))
        rows = iter(features)
        answers = self._merge(batch, self._name(logits, whole, top_k))
        return [
            Embedding(prediction) if read.image is None else Embedding(prediction, next(rows))
            for prediction, read in zip(answers, batch, strict=True)
        ]

    def _targets(self, logits: Logits, class_id: int | None) -> list[ClassScore | None]:
        """The class that was asked for with each image's score; None where none was."""
        if class_id is None:
            return [None] * len(logits)
        scores = self.probabilities(logits)[:, class_id].tolist()
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


def _stack(whole: list[ReadImage]) -> Images:
    """The images, all of which were read, uint8 [N, H, W, C]."""
    return np.stack([read.image for read in whole if read.image is not None])


def _received(state: dict[str, Any], labels: list[str], scoring: tuple[Any, ...]) -> Predictor:
    """The predictor that another process has sent."""
    from densepath.predict.source import Source

    predictor = Source.from_state(state).open()
    predictor.labels = labels
    predictor.multi_label, predictor.thresholds, predictor.temperature = scoring
    return predictor

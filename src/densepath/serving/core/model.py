"""One bundle that is served: its predictor, the queue before it, and who may enter.

A bundle's files are read when it is loaded and never after, but for explanations' PyTorch, which
opens the same bundle at the first of them; no request names a path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from densepath.bundle.bundle import Bundle
from densepath.engines.engine import Normalised
from densepath.errors import BundleError, UsageError
from densepath.predict.answers import find_class
from densepath.predict.load import load
from densepath.serving.core.batcher import Batcher, RowAnswer
from densepath.serving.core.errors import BusyError, NotReadyError, RequestError, TooLargeError
from densepath.serving.core.held import Held, open_held, without_path
from densepath.serving.core.metrics import Metrics, Tally
from densepath.serving.core.settings import ModelSource, Settings

if TYPE_CHECKING:
    from densepath.images.reading import ReadImage
    from densepath.predict.predictor import Explanation, Predictor


class ServedModel:
    """A bundle ready to answer. All but `open` is for the event loop's thread.

    Attributes:
        source: what it is known by.
        held: which bundle it is.
        manifest: what its bundle says of itself.
        predictor: the engine and what surrounds it.
        batcher: the queue before the engine.
    """

    def __init__(
        self, source: ModelSource, bundle: Bundle, predictor: Predictor, settings: Settings,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self.source, self.held = source, Held(bundle.folder, bundle.sha256)
        self.manifest, self.predictor = bundle.manifest, predictor
        self._settings, self._metrics = settings, metrics
        self._key = (source.name, source.version)
        self.batcher = Batcher(
            predictor.engine,
            max_batch=settings.max_batch,
            max_delay_s=settings.max_delay_s,
            observe=lambda answer: metrics.observe_batch(self._key, answer),
        )
        self._explainer: Predictor | None = None
        self._explaining = ThreadPoolExecutor(1, "explain")
        self._pending, self._closing = 0, False
        self._emptied = asyncio.Event()

    @classmethod
    def open(
        cls, source: ModelSource, held: Held, settings: Settings, metrics: Metrics
    ) -> ServedModel:
        """The model, once its engine has run. Takes seconds: not for the event loop's thread.

        Raises:
            BundleError: another bundle stands there than is meant; or as `densepath.load`.
            EngineError, MissingPackageError, UsageError: as `densepath.load`.
        """
        bundle = open_held(held)
        predictor = load(
            bundle,
            engine=settings.engine,
            precision=settings.precision,
            threads=settings.threads,
        )
        try:
            preprocess, engine = predictor.preprocess, predictor.engine
            blank = np.zeros((1, *preprocess.size, preprocess.channels), np.uint8)
            engine.run(blank)
            engine.run_share(blank)
        except BaseException:
            predictor.close()
            raise
        return cls(source, bundle, predictor, settings, metrics)

    @property
    def explains(self) -> bool:
        """Whether it can say where it looked."""
        return "torch" in self.manifest.formats and find_spec("torch") is not None

    @contextmanager
    def place(self, count: int) -> Iterator[Tally]:
        """While this is entered, `count` images have their place here; what becomes of them counts.

        Raises:
            TooLargeError: more than one request may have.
            BusyError: there is no room for them now.
            NotReadyError: the model is being unloaded.
        """
        limits = self._settings
        if count > limits.max_images:
            raise TooLargeError(
                f"{count} images in one request; at most {limits.max_images} are taken. Send "
                "several requests."
            )
        if self._closing:
            raise NotReadyError(f"model {self.source} is being unloaded; ask again.")
        if self._pending + count > limits.max_queue:
            self._metrics.refused.labels(*self._key).inc()
            after_s = self._retry_after_s()
            raise BusyError(
                f"the queue of model {self.source.name} is full: {self._pending} of "
                f"{limits.max_queue} images. Try again in {after_s} s.",
                after_s,
            )
        self._count(count)
        try:
            with self._metrics.counting(self._key, count) as tally:
                yield tally
        finally:
            self._count(-count)

    async def run_tensor(self, tensor: Normalised, deadline: float) -> list[RowAnswer]:
        """The logits of float32 [N, C, H, W], normalised, row by row.

        Raises:
            LateError: the deadline, by `time.monotonic`, passed in the queue.
        """
        futures = self.batcher.submit(list(tensor), deadline=deadline)
        return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))

    def class_of(self, target: str) -> int | None:
        """The class that a request names or numbers; None for an empty target.

        Raises:
            RequestError: there is no such class.
        """
        try:
            return find_class(self.predictor.labels, target) if target else None
        except UsageError as error:
            raise RequestError(str(error)) from None

    async def explain(
        self, images: list[ReadImage], top_k: int, target: int | None = None
    ) -> list[Explanation]:
        """The answers with their heat maps, by PyTorch, one request after another.

        Raises:
            RequestError: this bundle, or this machine, cannot explain.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._explaining, self._explain, images, top_k, target)

    def _explain(
        self, images: list[ReadImage], top_k: int, target: int | None
    ) -> list[Explanation]:
        """As `explain`, in its thread; the first one opens the engine."""
        if self._explainer is None:
            if not self.explains:
                raise RequestError(
                    f"model {self.source.name} cannot explain: that takes a bundle with the format "
                    "torch, in float32, and PyTorch beside the server. Leave explain out."
                )
            try:
                self._explainer = load(
                    open_held(self.held),
                    engine="eager",
                    explains=True,
                    precision=self._settings.precision,
                    threads=self._settings.threads,
                )
            except BundleError as error:
                raise RequestError(
                    f"model {self.source.name} was changed on the server's disk; explanations "
                    "come back when it is loaded again."
                ) from error
        return list(self._explainer.explain(images, target=target, top_k=top_k))

    def to_dict(self) -> dict[str, Any]:
        """What `/models` says of it."""
        info, choice = self.predictor.engine.info, self.predictor.choice
        return {
            "name": self.source.name,
            "version": self.source.version,
            "ready": not self._closing,
            "sha256": self.held.sha256,
            "network": self.manifest.model["name"],
            "num_classes": len(self.predictor.labels),
            "input_size": list(self.predictor.preprocess.size),
            "precision": info.precision,
            "engine": info.name,
            "reason": without_path(choice.why, self.source, self.held) if choice else "",
            "explains": self.explains,
            "multi_label": self.predictor.multi_label,
            "thresholds": _as_list(self.predictor.thresholds),
            "temperature": self.predictor.temperature,
        }

    async def close(self) -> None:
        """No image enters any more; those inside were answered, and the engine is closed."""
        self._closing = True
        if self._pending:
            await self._emptied.wait()
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        """As `close`; it waits for threads."""
        self.batcher.close()
        self._explaining.shutdown()
        if self._explainer is not None:
            self._explainer.close()
        self.predictor.close()

    def _count(self, change: int) -> None:
        """So many more images are inside."""
        self._pending += change
        self._metrics.pending.labels(*self._key).set(self._pending)
        if not self._pending:
            self._emptied.set()
            self._emptied = asyncio.Event()

    def _retry_after_s(self) -> int:
        """When half of the queue should have gone: whole seconds, as HTTP says it."""
        return max(1, round(self.batcher.seconds_for(self._pending) / 2))


def _as_list(values: tuple[float, ...] | None) -> list[float] | None:
    """The values as JSON has them; None stays."""
    return None if values is None else list(values)

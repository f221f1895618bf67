"""The way of a request from its images or tensors to answers, whatever protocol it came by.

Reading images, running networks and opening bundles happen in other threads; everything here is for
the event loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.engines.cores import usable_cores
from densepath.engines.engine import Logits, Normalised
from densepath.images.reading import ReadImage
from densepath.predict.answers import Prediction
from densepath.predict.predictor import Explanation
from densepath.serving.core.batcher import RowAnswer
from densepath.serving.core.deadlines import gather, in_time
from densepath.serving.core.errors import (
    BusyError,
    NotReadyError,
    RequestError,
    UnreadableError,
)
from densepath.serving.core.held import Holdings
from densepath.serving.core.metrics import Metrics
from densepath.serving.core.model import ServedModel
from densepath.serving.core.repository import Repository
from densepath.serving.core.settings import ModelSource, Settings

# Bodies of the largest size that may be in memory at once; smaller ones are as many more.
BODIES = 8
HELD = "held_bytes"
NamedImage = tuple[str, bytes | NDArray[np.uint8]]
# An operation on the models, which every worker must do: "load" or "unload", and a name.
Order = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True)
class Times:
    """Where the milliseconds of a request went: the longest of its images each."""

    read: float = 0.0
    queue: float = 0.0
    network: float = 0.0

    @classmethod
    def of(cls, read_s: float, rows: Sequence[RowAnswer]) -> Times:
        """Those of a request that read images and ran rows."""
        queue = max((row.queue_s for row in rows), default=0.0)
        network = max((row.network_s for row in rows), default=0.0)
        return cls(*(round(seconds * 1000, 3) for seconds in (read_s, queue, network)))


@dataclass(frozen=True)
class Classified:
    """The answers to images, in their order, those that could not be read among them."""

    model: ServedModel
    predictions: list[Prediction]
    times: Times
    explanations: list[Explanation | None] | None = None


class Service:
    """What REST and gRPC share.

    Attributes:
        settings: the limits.
        metrics: the counters.
        repository: the models.
        draining: no new request should come: the server is being stopped.
        held_bytes: of all bodies that are in memory.
    """

    def __init__(self, settings: Settings, sources: Sequence[ModelSource]) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.draining, self.held_bytes = False, 0
        self.repository = Repository(
            sources,
            lambda source, held: ServedModel.open(source, held, settings, self.metrics),
            self.metrics,
        )
        self._readers = ThreadPoolExecutor(usable_cores(), "read")
        self._obeying: set[asyncio.Future[None]] = set()
        # With several workers, what tells all of them instead.
        self.order: Order = self.obey

    async def start(self, holdings: Holdings | None = None, *, tolerant: bool = False) -> None:
        """Every model answers; as `Repository.start`.

        Raises:
            DensepathError: one cannot be opened.
        """
        await self.repository.start(holdings, tolerant=tolerant)

    async def stop(self) -> None:
        """Every model is closed, behind its last answer."""
        await self.repository.close()
        self._readers.shutdown(cancel_futures=True)

    async def obey(self, verb: str, name: str) -> None:
        """This process has loaded or unloaded the model, also when who asked has gone meanwhile.

        Raises:
            NotFoundError, LoadError: as `Repository.load`.
        """
        order = self.repository.load if verb == "load" else self.repository.unload
        task = asyncio.ensure_future(order(name))
        self._obeying.add(task)
        task.add_done_callback(self._obeying.discard)
        await asyncio.shield(task)

    @property
    def is_ready(self) -> bool:
        """Whether new requests are welcome."""
        return self.repository.is_ready and not self.draining

    def hold(self, request: dict[str, Any], size_bytes: int) -> None:
        """A body, or a part of one, is in memory until `let_go` of the same request.

        Raises:
            BusyError: all bodies together would be too large.
        """
        limit = BODIES * self.settings.max_body_bytes
        if self.held_bytes + size_bytes > limit:
            raise BusyError("the bodies of all requests are too large together; try again.", 1)
        self.held_bytes += size_bytes
        request[HELD] = request.get(HELD, 0) + size_bytes

    def let_go(self, request: dict[str, Any]) -> None:
        """The request is over."""
        self.held_bytes -= request.pop(HELD, 0)

    def deadline(self, asked_s: float | None = None) -> float:
        """When a request that comes now must be answered, by `time.monotonic`.

        Raises:
            RequestError: the client asks for no time at all.
        """
        if asked_s is not None and not asked_s > 0:
            raise RequestError(f"the timeout is {asked_s} s; it must be above 0.")
        return time.monotonic() + min(asked_s or self.settings.timeout_s, self.settings.timeout_s)

    async def infer(self, model: ServedModel, tensor: Normalised, deadline: float) -> Logits:
        """The logits [N, classes] of a batch: float32 [N, C, H, W], normalised.

        Raises:
            RequestError: a batch that the network does not take, or one of the statuses of
                `errors.py`.
        """
        check_tensor(model, tensor)
        with model.place(len(tensor)):
            rows = await in_time(model.run_tensor(tensor, deadline), deadline)
            return stack_logits(model, rows)

    async def read_and_infer(
        self, model: ServedModel, images: Sequence[NamedImage], deadline: float
    ) -> Logits:
        """The logits [N, classes] of images: files' bytes, or pixels uint8 [H, W, C].

        Raises:
            UnreadableError: one cannot be read.
            RequestError: as `infer`.
        """
        with model.place(len(images)) as tally:
            _, done = await in_time(self._answer_all(model, images, deadline), deadline)
            said = [f"{read.name}: {read.error}" for read, row in done if row is None]
            tally.unreadable = len(said)
            if said:
                raise UnreadableError(f"{len(said)} of {len(images)} images: {'; '.join(said[:5])}")
            return stack_logits(model, [row for _, row in done if row is not None])

    async def classify(
        self, model: ServedModel, images: Sequence[NamedImage], *, top_k: int, deadline: float
    ) -> Classified:
        """The best classes of images; those that cannot be read have an `error` instead."""
        with model.place(len(images)) as tally:
            read_s, done = await in_time(self._answer_all(model, images, deadline), deadline)
            rows = [row for _, row in done if row is not None]
            tally.unreadable = len(done) - len(rows)
        logits = np.stack([row.logits for row in rows]) if rows else np.empty((0, 1), np.float32)
        names = [read.name for read, row in done if row is not None]
        named = iter(model.predictor.answer(logits, names, top_k=top_k))
        predictions = [
            Prediction.failed(read.name, read.error or "") if row is None else next(named)
            for read, row in done
        ]
        return Classified(model, predictions, Times.of(read_s, rows))

    async def explain(
        self,
        model: ServedModel,
        images: Sequence[NamedImage],
        *,
        top_k: int,
        deadline: float,
        target: str = "",
        all_or_none: bool = False,
    ) -> Classified:
        """As `classify`, each answer with the heat map of its first class, or of `target`.

        Raises:
            RequestError: as `classify`; the model cannot explain, or has no such class.
            UnreadableError: with `all_or_none`, an image that cannot be read.
        """
        class_id = model.class_of(target)
        if not model.explains:
            await model.explain([], top_k)  # says why
        with model.place(len(images)) as tally:
            started = time.monotonic()
            reads = await in_time(
                gather([self._read(model, name, image) for name, image in images]), deadline
            )
            read_s = time.monotonic() - started
            said = [f"{read.name}: {read.error}" for read in reads if read.image is None]
            tally.unreadable = len(said)
            if said and all_or_none:
                raise UnreadableError("; ".join(said[:5]))
            found = await in_time(model.explain(list(reads), top_k, class_id), deadline)
            network_ms = round((time.monotonic() - started - read_s) * 1000, 3)
        times = Times(round(read_s * 1000, 3), 0.0, network_ms)
        return Classified(model, [each.prediction for each in found], times, list(found))

    async def _answer_all(
        self, model: ServedModel, images: Sequence[NamedImage], deadline: float
    ) -> tuple[float, list[tuple[ReadImage, RowAnswer | None]]]:
        """The seconds of reading, and each image with its logits; None where it is unreadable.

        An image goes to the network as soon as it is read, whatever the others do.
        """
        started, slowest = time.monotonic(), 0.0

        async def one(name: str, image: Any) -> tuple[ReadImage, RowAnswer | None]:
            nonlocal slowest
            with model.batcher.expecting(1):
                read = await self._read(model, name, image)
                slowest = max(slowest, time.monotonic() - started)
                if read.image is None:
                    return read, None
                futures = model.batcher.submit([read.image], deadline=deadline)
            return read, await asyncio.wrap_future(futures[0])

        done = await gather([one(name, image) for name, image in images])
        return slowest, done

    async def _read(self, model: ServedModel, name: str, image: Any) -> ReadImage:
        """The image, read in another thread."""
        loop, max_pixels = asyncio.get_running_loop(), self.settings.max_pixels
        return await loop.run_in_executor(
            self._readers, lambda: model.predictor.read(image, name, max_pixels=max_pixels)
        )


def check_tensor(model: ServedModel, tensor: NDArray[Any]) -> None:
    """Returns when the batch can go through the network.

    Raises:
        RequestError: another shape, or values that are not finite.
    """
    preprocess, size = model.predictor.preprocess, model.predictor.engine.info.size
    height, width = size or preprocess.size
    fits = tensor.ndim == 4 and tensor.shape[1] == preprocess.channels and len(tensor) > 0
    if not fits or (size is not None and tensor.shape[2:] != size) or 0 in tensor.shape:
        free = "" if size else " or another height and width"
        raise RequestError(
            f"the tensor has shape {list(tensor.shape)}; model {model.source.name} takes "
            f"[N, {preprocess.channels}, {height}, {width}]{free}, float32, normalised. Images as "
            "files or pixels go into an input of type BYTES or UINT8."
        )
    if not np.isfinite(tensor).all():
        raise RequestError("the tensor has values that are not finite (NaN or infinity).")


def stack_logits(model: ServedModel, rows: Sequence[RowAnswer]) -> Logits:
    """float32 [N, classes].

    Raises:
        RequestError: a row is not finite: its input was out of the network's range.
    """
    classes = len(model.predictor.labels)
    logits = np.stack([row.logits for row in rows]) if rows else np.empty((0, classes), np.float32)
    if not np.isfinite(logits).all():
        raise RequestError("the network's answer is not a number: are the values normalised?")
    return logits


def check_ready(service: Service) -> None:
    """Returns when the server takes requests.

    Raises:
        NotReadyError: it does not.
    """
    if not service.is_ready:
        what = "being stopped" if service.draining else "not ready"
        raise NotReadyError(f"the server is {what}; ask again, or another one.")

"""What Prometheus reads at `/metrics`: of one process, or of all workers together."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from densepath.errors import OutputError
from densepath.serving.core.batcher import RowAnswer
from densepath.serving.core.errors import InternalError, LateError, RequestError
from densepath.temporaries import remove_leftovers, temporary_in

# prometheus_client's files of several processes; `process/workers.py` sets it before they start.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SHARED_MEMORY = "/dev/shm"
MODEL = ("model", "version")
UNREADABLE = "unreadable"
OUTCOMES = ("answered", UNREADABLE, "refused", "late", "cancelled", "failed")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
READS, READ_AGAIN_S = 20, 0.005
T = TypeVar("T")
SIZES = (1, 2, 4, 8, 16, 32, 64)


@dataclass
class Tally:
    """The images of a request that could not be read; the others share one outcome."""

    unreadable: int = 0


def outcome_of(error: BaseException) -> str:
    """What became of the images of a request that ended so.

    Refused ones were wrong themselves, or beside one that was.
    """
    if isinstance(error, LateError):
        return "late"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    is_wrong = isinstance(error, RequestError) and error.http_status < InternalError.http_status
    return "refused" if is_wrong else "failed"


def make_shared_folder() -> str:
    """A new folder for the counters of several workers: temporary, or in shared memory.

    What servers that were killed have left there is removed.

    Raises:
        OutputError: none can be written.
    """
    tried = None
    for find_parent in (gettempdir, lambda: SHARED_MEMORY):  # the latter is all a container has
        try:
            parent = Path(find_parent())
            remove_leftovers(parent)
            folder = temporary_in(parent.absolute(), "metrics")
            folder.mkdir(mode=0o700)
        except OSError as error:
            tried = tried or error
        else:
            return str(folder)
    raise OutputError(
        "several workers share their counters in a temporary folder, and none can be written "
        f"({tried.strerror if tried else ''}): set TMPDIR to a folder that can, or serve with "
        "--workers 1."
    ) from tried


def forget_worker(pid: int) -> None:
    """The gauges of a worker that has died are gone; what it counted stays counted."""
    mark_process_dead(pid)


def _whole(read: Callable[[], T]) -> T:
    """What `read` returns; again where a worker that starts had only begun its file of counters."""
    for _ in range(READS):
        with suppress(struct.error):
            return read()
        time.sleep(READ_AGAIN_S)
    return read()


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        request = ("protocol", "route", "status")
        self.requests = Counter(
            "densepath_requests", "Requests by what they asked for and came to.", request,
            registry=registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "densepath_request_seconds", "From a request's arrival to its answer.",
            ("protocol", "route"), buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.images = Counter(
            "densepath_images", f"Images by outcome: {', '.join(OUTCOMES)}.",
            (*MODEL, "outcome"), registry=registry,
        )  # fmt: skip
        self.answers = Summary(
            "densepath_model_request_seconds",
            "From a request's entry into a model's queue to its answer or refusal: ok, failed.",
            (*MODEL, "outcome"), registry=registry,
        )  # fmt: skip
        self.last_answer = Gauge(
            "densepath_last_answer_time_seconds", "When the last request was answered, since 1970.",
            MODEL, registry=registry, multiprocess_mode="max",
        )  # fmt: skip
        self.refused = Counter(
            "densepath_refused", "Requests refused because the queue was full.", MODEL,
            registry=registry,
        )  # fmt: skip
        self.queue_seconds = Histogram(
            "densepath_queue_seconds", "What the first row of a batch waited.", MODEL,
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.network_seconds = Histogram(
            "densepath_network_seconds", "One run of the network.", MODEL, buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.batch_size = Histogram(
            "densepath_batch_size", "Rows of one run of the network.", MODEL, buckets=SIZES,
            registry=registry,
        )  # fmt: skip
        self.pending = Gauge(
            "densepath_pending_images", "Images that are read, wait or run.", MODEL,
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.ready = Gauge(
            "densepath_model_ready", "1 for a model that answers.", MODEL,
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self.dropped_lines = Counter(
            "densepath_log_lines_dropped", "Lines of the log that nobody was there to read.",
            registry=registry,
        )  # fmt: skip
        self.workers = Gauge(
            "densepath_workers", "Processes that answer.",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip

    @contextmanager
    def counting(self, model: tuple[str, str], num_images: int) -> Iterator[Tally]:
        """While this is entered the images are inside; how it is left says what became of them."""
        tally, started, outcome = Tally(), time.monotonic(), "failed"
        try:
            yield tally
            outcome = "answered"
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            rest = num_images - tally.unreadable
            for name, number in ((UNREADABLE, tally.unreadable), (outcome, rest)):
                if number:
                    self.images.labels(*model, name).inc(number)
            told = "ok" if outcome == "answered" and rest else "failed"
            self.answers.labels(*model, told).observe(time.monotonic() - started)
            if told == "ok":
                self.last_answer.labels(*model).set(time.time())

    def observe_batch(self, model: tuple[str, str], answer: RowAnswer) -> None:
        """Counts one run of the network, by its first row."""
        self.queue_seconds.labels(*model).observe(answer.queue_s)
        self.network_seconds.labels(*model).observe(answer.network_s)
        self.batch_size.labels(*model).observe(answer.batch_size)

    def to_text(self) -> bytes:
        """Prometheus's text format."""
        return _whole(lambda: generate_latest(self._gathered()))

    def of_model(self, model: tuple[str, str]) -> dict[str, float]:
        """The counters of a model in all workers, by name, and `name outcome` where it has one."""
        wanted = dict(zip(MODEL, model, strict=True))
        return {
            " ".join([sample.name, *filter(None, [sample.labels.get("outcome")])]): sample.value
            for metric in _whole(lambda: list(self._gathered().collect()))
            for sample in metric.samples
            if wanted.items() <= sample.labels.items() and "le" not in sample.labels
        }

    def _gathered(self) -> CollectorRegistry:
        """The counters of this process, or those of all workers."""
        if SHARED_FOLDER not in os.environ:
            return self._registry
        merged = CollectorRegistry()
        MultiProcessCollector(merged)
        return merged

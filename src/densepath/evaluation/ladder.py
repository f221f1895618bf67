"""The accuracy ladder: one network from float to NPU, every form on the same images.

On the line: Bundles and checkpoints enter, each is run by the engine of each of its formats, and
compared with the first one and with the images' classes.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Dataset, Split, Subset
from densepath.data.loader import EvalLoader, OnError
from densepath.engines.engine import Images, Logits
from densepath.errors import DataError, LabelMismatchError, UsageError
from densepath.evaluation.labels import MissingClasses, match_labels
from densepath.evaluation.measured import Overlap, find_known, find_overlap, open_measured
from densepath.evaluation.rungs import Rung, open_rungs
from densepath.metrics.metrics import TOP, top5_tells
from densepath.names import several
from densepath.quantize.scoring import signal_to_noise
from densepath.wording import counted, in_markdown, percent

BATCH, SIMULATED_BATCH = 32, 100
WARM_RUNS, TIMED_RUNS = 5, 30
NUM_NAMES = 3
UNKNOWN = "none of these forms says it (a run folder or its checkpoint does)"

Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """A form of the network, as it did.

    Attributes:
        name: the subject's and the format's.
        engine: what ran it.
        precision: of its arithmetic.
        num_images: that it answered.
        top1, top5: shares of them whose class is the best, or among the best five.
        agreement: the share with the same best class as the first form.
        snr_db: of its logits to the first form's; None where they are equal.
        first_top1: the first form's top-1 on the same images.
        size_bytes: of its files.
        latency_ms: of one image on all cores, the median; None where it was not timed.
    """

    name: str
    engine: str
    precision: str
    num_images: int
    top1: float
    top5: float
    agreement: float
    snr_db: float | None
    first_top1: float
    size_bytes: int
    latency_ms: float | None

    @property
    def lost_points(self) -> float:
        """Percentage points of top-1 that it has less than the first form."""
        return 100 * (self.first_top1 - self.top1)


@dataclass(frozen=True)
class Ladder:
    """How the forms of a network compare.

    Attributes:
        rows: the first of them is what the others are compared with.
        data: the images, in a sentence.
        num_classes: of the network.
        overlap: how many of the images it was trained on.
    """

    rows: list[Row]
    data: str
    num_classes: int
    overlap: Overlap

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = [{**asdict(row), "lost_points": row.lost_points} for row in self.rows]
        about = self.overlap.to_dict()
        return {**about, "data": self.data, "num_classes": self.num_classes, "rows": rows}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Titles and cells for people: without top-5 where it is 100 % by its nature."""
        left_out = () if top5_tells(self.num_classes) else ("top-5",)
        cells = [_cells(row) for row in self.rows]
        titles = [title for title in cells[0] if title not in left_out]
        return titles, [[row[title] for title in titles] for row in cells]

    def to_markdown(self) -> str:
        """The table for a person."""
        first, (titles, rows) = self.rows[0], self.table()
        alignment = ["---"] * NUM_NAMES + ["--:"] * (len(titles) - NUM_NAMES)
        lines = [
            "# Accuracy ladder",
            "",
            in_markdown(str(self.overlap)),
            "",
            f"Images: {in_markdown(self.data)}. Agreement and SNR of the logits: with "
            f"{in_markdown(first.name)},",
            f"run by {in_markdown(first.engine)}. Latency: one image on all cores, median of "
            f"{TIMED_RUNS}.",
            "",
            f"| {' | '.join(titles)} |",
            f"|{'|'.join(alignment)}|",
        ]
        lines += [f"| {' | '.join(map(_in_cell, row))} |" for row in rows]
        return "\n".join(lines) + "\n"


def _in_cell(text: str) -> str:
    """A cell's text in Markdown; what is empty stays so."""
    return in_markdown(text) if text else ""


def _cells(row: Row) -> dict[str, str]:
    """The figures of a row as text, by their titles; `NUM_NAMES` names come first."""
    return {
        "form": row.name,
        "engine": row.engine,
        "precision": row.precision,
        "images": f"{row.num_images:,}",
        "top-1": percent(row.top1, 2),
        "points lost": f"{row.lost_points:+.2f}",
        "top-5": percent(row.top5, 2),
        "agreement": percent(row.agreement, 2),
        "SNR, dB": "exact" if row.snr_db is None else f"{row.snr_db:.1f}",
        "size, MB": f"{row.size_bytes / 1e6:.2f}",
        "latency, ms": "" if row.latency_ms is None else f"{row.latency_ms:.2f}",
    }


def measure_ladder(
    subjects: Sequence[str | Path],
    data: str | Path,
    *,
    split: Split | None = None,
    num_images: int | None = None,
    num_simulated: int = 500,
    timed: bool = True,
    data_root: str | Path | None = None,
    reading: Mapping[str, Any] | None = None,
    missing_classes: MissingClasses = "refuse",
    on_error: OnError = "fail",
    say: Say = lambda step: None,
) -> Ladder:
    """The ladder of these subjects, in their order.

    Args:
        subjects: checkpoints, run folders, bundles and compiled NPU programs of one network.
        data: a labelled data set, see `open_dataset`.
        split: of it; None: as in `evaluate`.
        num_images: of the split, taken evenly; all by default.
        num_simulated: of them, those that an NPU's simulator answers.
        timed: measure latencies.
        data_root: the folder that a list's or table's paths start from.
        reading: fields of DataOptions, such as a table's columns.
        missing_classes: whether the data set may lack classes of the network.
        on_error: an unreadable image: leave it out and count it, or stop there.
        say: is told of each step.

    Raises:
        UsageError: no subject, or networks of different sizes or classes.
        DensepathError: a subject or the data set cannot be opened.
    """
    subjects = several(subjects)
    if not subjects:
        raise UsageError("name at least one checkpoint, run folder, bundle or program.")
    with ExitStack() as stack:
        rungs = [stack.enter_context(rung) for one in subjects for rung in open_rungs(one)]
        _check_alike(rungs)
        first = rungs[0]
        known = find_known(subjects)
        measured = open_measured(
            *(known, data, split),
            channels=first.preprocess.channels,
            reading={**({} if data_root is None else {"root": data_root}), **(reading or {})},
        )
        dataset = measured.dataset
        _check_labels(dataset, first)
        dataset = _evenly(dataset, num_images)
        to_logits = np.array(
            match_labels(
                dataset.class_names, first.labels, missing=missing_classes, named=dataset.named
            )
        )
        batches, read = _load(dataset, first, on_error)
        sample = np.linspace(0, len(read) - 1, min(num_simulated, len(read)), dtype=np.int64)
        answers = [_answer(rung, batches, sample, say) for rung in rungs]
        latencies = _time(rungs, batches[0][0][:1]) if timed else [None] * len(rungs)
    targets = np.concatenate([targets for _, targets in batches])
    rows = [
        _row(rung, found, answers[0], targets, to_logits, sample, latency)
        for rung, found, latency in zip(rungs, answers, latencies, strict=True)
    ]
    overlap = find_overlap(known, dataset, read, UNKNOWN)
    said = f"{len(read):,} of {dataset.description}"
    if len(read) < len(dataset):
        said += f"; {counted(len(dataset) - len(read), 'image')} could not be read"
    return Ladder(rows, said, len(first.labels), overlap)


def _check_alike(rungs: Sequence[Rung]) -> None:
    """Returns when all take the same images and name the same classes.

    Raises:
        UsageError: one does not.
    """
    first = rungs[0]
    for rung in rungs[1:]:
        if rung.labels != first.labels or rung.preprocess != first.preprocess:
            raise UsageError(
                f"{rung.name} has other classes or another preprocessing than {first.name}; a "
                "ladder compares forms of one network."
            )


def _check_labels(dataset: Dataset, first: Rung) -> None:
    """Returns when each image has one class.

    Raises:
        LabelMismatchError: images have several.
    """
    if dataset.multi_label:
        raise LabelMismatchError(
            f"{dataset.description}: its images have several labels; a ladder needs one an image "
            f"for {first.name}."
        )


def _evenly(dataset: Dataset, count: int | None) -> Dataset:
    """So many of the images, taken evenly."""
    if count is None or count >= len(dataset):
        return dataset
    indices = np.linspace(0, len(dataset) - 1, count, dtype=np.int64).tolist()
    return Subset(dataset, indices, dataset.description)


def _load(
    dataset: Dataset, first: Rung, on_error: OnError
) -> tuple[list[tuple[Images, NDArray[np.int64]]], NDArray[np.int64]]:
    """Images [n, C, H, W] and their classes, batch after batch; and the numbers of all of them.

    Raises:
        DataError: none can be read.
    """
    found = EvalLoader(dataset, first.preprocess, batch_size=BATCH, on_error=on_error)
    batches = [batch for batch in found if len(batch.targets)]
    if not batches:
        raise DataError(f"{dataset.description}: none of its images can be read.")
    read = np.concatenate([batch.indices.numpy() for batch in batches])
    return [(batch.images.numpy(), batch.targets.numpy()) for batch in batches], read


def _answer(
    rung: Rung,
    batches: list[tuple[Images, NDArray[np.int64]]],
    sample: NDArray[np.int64],
    say: Say,
) -> Logits:
    """The logits [N, classes]; of a simulator those of the sample alone."""
    if rung.simulated:
        images = np.concatenate([images for images, _ in batches])[sample]
        batches = [
            (part, sample[:0])
            for part in np.array_split(images, -(-len(images) // SIMULATED_BATCH))
        ]
    parts = []
    for number, (images, _) in enumerate(batches):
        say(f"{rung.name}: {number + 1} of {len(batches)} batches")
        parts.append(rung.run(images))
    return np.concatenate(parts)


def _time(rungs: Sequence[Rung], image: Images) -> list[float | None]:
    """The median of each, in turns, in milliseconds."""
    spent: list[list[float]] = [[] for _ in rungs]
    for turn in range(WARM_RUNS + TIMED_RUNS):
        for rung, times in zip(rungs, spent, strict=True):
            if rung.simulated:
                continue
            start = time.perf_counter()
            rung.run(image)
            if turn >= WARM_RUNS:
                times.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(times) if times else None for times in spent]


def _row(
    rung: Rung,
    found: Logits,
    reference: Logits,
    targets: NDArray[np.int64],
    to_logits: NDArray[np.int64],
    sample: NDArray[np.int64],
    latency_ms: float | None,
) -> Row:
    """The figures of a form."""
    if rung.simulated:
        reference, targets = reference[sample], targets[sample]
    ratio = signal_to_noise(found, reference)
    top1, top5 = _hits(found[:, to_logits], targets)
    return Row(
        *(rung.name, rung.engine, rung.precision, len(found), top1, top5),
        agreement=float((found.argmax(1) == reference.argmax(1)).mean()),
        snr_db=ratio if math.isfinite(ratio) else None,
        first_top1=_hits(reference[:, to_logits], targets)[0],
        size_bytes=rung.size_bytes,
        latency_ms=latency_ms,
    )


def _hits(logits: Logits, targets: NDArray[np.int64]) -> tuple[float, float]:
    """The shares of images whose class is the best, and among the best five."""
    own = np.take_along_axis(logits, targets[:, None], axis=1)
    better = (logits > own).sum(axis=1)
    return float((logits.argmax(1) == targets).mean()), float((better < TOP).mean())

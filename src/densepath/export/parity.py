"""Does an exported network answer as the checkpoint does? From image file to five best classes.

The reference is the checkpoint's own network as PyTorch runs it, not rewritten, on images that
`preprocess.py` resized. Each format is run by each engine that reads it, with that preprocessing
and, where the format has one, with its own preprocess graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from densepath.data.decode import open_image
from densepath.engines.engine import Engine, Images, Logits
from densepath.errors import DataError, EngineError, ImageError, ParityError
from densepath.export.parity_images import ParityImages
from densepath.export.preprocess_run import open_preprocess
from densepath.predictions import probabilities
from densepath.preprocess import Image
from densepath.weights.checkpoint import Checkpoint

# max |Δlogit| as a share of the largest |logit|: float32 on other kernels leaves about 1e-6.
LOGIT_BOUND = 1e-3
# A graph's resized image: no value further from Pillow's, and no more of them that differ at all.
PIXEL_BOUND, PIXEL_SHARE_BOUND = 1, 1e-3
REFERENCE_BATCH = 8
OWN = "Pillow"
GRAPH = "graph"
Parts: TypeAlias = dict[str, dict[str, str]]
Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One engine on all images.

    Attributes:
        format, engine: of the bundle, and what ran it.
        preprocess: `Pillow`, or `graph` for the bundle's own.
        batch_size: images of one run.
        max_difference: the largest |Δlogit|.
        relative: that, as a share of the largest |logit| of the reference.
        top1, top5: the share of the images whose best class, or whose five best in their order,
            are the reference's.
        ties: images counted as agreeing whose two best logits differ by less than the bound.
        score: the largest |Δscore|.
    """

    format: str
    engine: str
    preprocess: str
    batch_size: int
    max_difference: float
    relative: float
    top1: float
    top5: float
    ties: int
    score: float


@dataclass(frozen=True)
class PixelRow:
    """A preprocess graph's resized images against Pillow's.

    Attributes:
        share: of the values that differ.
        largest: difference, of 255.
    """

    format: str
    share: float
    largest: int


@dataclass(frozen=True)
class Parity:
    """What was compared, on which images, and how it came out."""

    model: str
    images: str
    names: list[str]
    rows: list[Row]
    pixels: list[PixelRow]

    def broken(self) -> list[str]:
        """Each bound that does not hold, in a sentence."""
        said = []
        for row in self.rows:
            where = f"{row.format} on {row.engine}, batch {row.batch_size}, {row.preprocess}"
            # Where the image itself may differ by 1 of 255, the logits follow.
            if row.preprocess == OWN and not row.relative <= LOGIT_BOUND:
                bound = f"the bound is {LOGIT_BOUND:g}"
                said.append(f"{where}: max |Δlogit| is {row.relative:.2e} of the largest; {bound}")
            if row.preprocess == OWN and row.top1 < 1:
                said.append(f"{where}: the best class agrees on {row.top1:.2%}; it must on all")
        for pixel in self.pixels:
            if pixel.largest > PIXEL_BOUND or pixel.share > PIXEL_SHARE_BOUND:
                said.append(
                    f"{pixel.format}'s preprocess graph: {pixel.share:.2e} of the values differ, "
                    f"by {pixel.largest} at most; the bounds are {PIXEL_SHARE_BOUND:g} and "
                    f"{PIXEL_BOUND}"
                )
        return said

    def summary(self) -> dict[str, Any]:
        """What a manifest keeps."""
        return {
            "images": self.images,
            "max_relative_difference": max(row.relative for row in self.rows),
            "top1_agreement": min(row.top1 for row in self.rows),
            "top5_agreement": min(row.top5 for row in self.rows),
            "max_score_difference": max(row.score for row in self.rows),
            "max_pixel_difference": max((row.largest for row in self.pixels), default=0),
            "differing_pixel_share": max((row.share for row in self.pixels), default=0.0),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "broken": self.broken()}

    def to_markdown(self) -> str:
        """The report for a person."""
        lines = [
            f"# Parity of {self.model}",
            "",
            f"Compared on {self.images}.",
            "The reference is the checkpoint's network in PyTorch, float32, not rewritten, on",
            "images resized by Pillow (`preprocess.py`).",
            "",
            "| format | engine | resized by | batch | max abs Δlogit | of the largest | top-1 "
            "| top-5 | max abs Δscore |",
            "|---|---|---|--:|--:|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {row.format} | {row.engine} | {row.preprocess} | {row.batch_size} "
            f"| {row.max_difference:.2e} | {row.relative:.2e} | {row.top1:.2%} | {row.top5:.2%} "
            f"| {row.score:.1e} |"
            for row in self.rows
        ]
        if self.pixels:
            lines += ["", "| preprocess graph | values that differ | by at most, of 255 |"]
            lines += ["|---|--:|--:|"]
            lines += [f"| {row.format} | {row.share:.2e} | {row.largest} |" for row in self.pixels]
        ties = max(row.ties for row in self.rows)
        if ties:
            lines += ["", f"Two classes within the bound of each other, counted as equal: {ties}."]
        lines += ["", *(f"BROKEN: {line}." for line in self.broken())]
        return "\n".join(lines).rstrip() + "\n"


def check_parity(parity: Parity) -> None:
    """Returns when all bounds hold.

    Raises:
        ParityError: one does not; the message says which.
    """
    broken = parity.broken()
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise ParityError(
            f"the exported {parity.model} does not answer as its checkpoint: {broken[0]}{more}. "
            "No bundle was written."
        )


def measure_parity(
    checkpoint: Checkpoint,
    folder: Path,
    parts: Parts,
    images: ParityImages,
    batch_sizes: Sequence[int],
    *,
    say: Say = lambda step: None,
) -> Parity:
    """The comparison of all formats in `folder` with the checkpoint's network.

    Raises:
        DataError: an image cannot be read.
        MissingPackageError: a format's engine is not installed.
    """
    say(f"reading {len(images.paths)} images")
    pictures = list(_read(images.paths, checkpoint.preprocess.channels))
    fitted = [checkpoint.preprocess.fit(picture) for picture in pictures]
    inputs = checkpoint.preprocess.normalise(np.stack(fitted))
    say("computing the reference")
    expected = _reference(checkpoint, inputs)
    rows: list[Row] = []
    pixel_rows: list[PixelRow] = []
    for name, files in parts.items():
        given = {OWN: inputs}
        if "preprocess" in files:
            say(f"resizing with the graph of {name}")
            path = folder / files["preprocess"]
            given[GRAPH], pixel_row = _resize(name, path, pictures, fitted)
            pixel_rows.append(pixel_row)
        for engine in _engines(name, folder / files["model"], checkpoint):
            say(f"running {name} on {engine.info.name}")
            try:
                rows += _run_all(name, engine, given, expected, batch_sizes, checkpoint.multi_label)
            finally:
                engine.close()
    names = [path.name for path in images.paths]
    return Parity(checkpoint.spec.name, images.description, names, rows, pixel_rows)


def _read(paths: Sequence[Path], channels: int) -> Iterator[Image]:
    """The pixels of each file."""
    for path in paths:
        try:
            yield open_image(path, channels=channels)
        except ImageError as error:
            raise DataError(f"{error}; name images that can be read, by --images.") from error


def _reference(checkpoint: Checkpoint, inputs: Images) -> Logits:
    """The logits of the checkpoint's network, as it is."""
    model = checkpoint.to_model()
    with torch.inference_mode():
        parts = torch.from_numpy(inputs).split(REFERENCE_BATCH)
        return torch.cat([model(part) for part in parts]).numpy()


def _resize(
    name: str, path: Path, pictures: Sequence[Image], fitted: Sequence[Image]
) -> tuple[Images, PixelRow]:
    """The graph's input for each picture, and how its pixels differ from Pillow's."""
    fit = open_preprocess(name, path)
    made, differing, largest = [], 0, 0
    for picture, right in zip(pictures, fitted, strict=True):
        images, pixels = fit(picture)
        made.append(images)
        difference = np.abs(pixels.astype(np.int16) - right)
        differing += int(np.count_nonzero(difference))
        largest = max(largest, int(difference.max()))
    share = differing / sum(right.size for right in fitted)
    return np.concatenate(made), PixelRow(name, share, largest)


def _engines(name: str, path: Path, checkpoint: Checkpoint) -> Iterator[Engine]:
    """Every engine of this machine that reads the format, one after the other."""
    size = checkpoint.preprocess.size
    if name == "onnx":
        from densepath.engines.onnxruntime import OnnxRuntimeEngine

        yield OnnxRuntimeEngine(path)
    elif name == "openvino":
        from densepath.engines.openvino import OpenVinoEngine

        yield OpenVinoEngine(path)
    elif name == "aoti":
        from densepath.engines.aoti import AotiEngine

        channels, classes = checkpoint.in_channels, checkpoint.num_classes
        yield AotiEngine(path, in_channels=channels, num_classes=classes, size=None)
    else:
        from densepath.engines.eager import EagerEngine

        saved = Checkpoint.load(path)
        yield EagerEngine(saved.to_model(), size=size)
        yield from _native(path, size)


def _native(path: Path, size: tuple[int, int]) -> Iterator[Engine]:
    """Our own kernels, where there is a compiler for them."""
    from densepath.engines.native import NativeEngine, read_tensors

    spec, in_channels, tensors = read_tensors(path)
    classes = int(tensors["classifier.weight"].shape[0])
    try:
        yield NativeEngine(spec, tensors, num_classes=classes, in_channels=in_channels, size=size)
    except EngineError:
        return


def _run_all(
    name: str,
    engine: Engine,
    given: dict[str, Images],
    expected: Logits,
    batch_sizes: Sequence[int],
    multi_label: bool,
) -> Iterator[Row]:
    """A row for each preprocessing and batch size."""
    for preprocess, inputs in given.items():
        for batch_size in batch_sizes:
            starts = range(0, len(inputs), batch_size)
            found = np.concatenate([engine.run(inputs[i : i + batch_size]) for i in starts])
            measured = compare(found, expected, multi_label=multi_label)
            yield Row(name, engine.info.name, preprocess, batch_size, **measured)


def compare(
    found: NDArray[np.float32], expected: NDArray[np.float32], *, multi_label: bool
) -> dict[str, Any]:
    """The figures of a `Row` from logits [N, classes]."""
    difference = float(np.abs(found - expected).max())
    size = float(np.abs(expected).max()) or 1.0
    wanted = -np.sort(-expected, axis=1)[:, :2]
    close = wanted[:, 0] - wanted[:, -1] <= LOGIT_BOUND * size
    best = found.argmax(1) == expected.argmax(1)
    ranks = [np.argsort(-logits, axis=1, kind="stable")[:, :5] for logits in (found, expected)]
    scores = [probabilities(logits, multi_label=multi_label) for logits in (found, expected)]
    tied = close & ~best if expected.shape[1] > 1 else np.zeros_like(best)
    return {
        "max_difference": difference,
        "relative": difference / size,
        "top1": float((best | tied).mean()),
        "top5": float((ranks[0] == ranks[1]).all(1).mean()),
        "ties": int(tied.sum()),
        "score": float(np.abs(scores[0] - scores[1]).max()),
    }

"""From image file to five best classes: each format of a bundle beside the checkpoint's network.

The reference is the checkpoint's own network as PyTorch runs it, not rewritten, on images that
`images/preprocess.py` resized. Each format is run by each engine that reads it, with that
preprocessing and, where the format has one, with its own preprocess graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from densepath.bundle.formats import FORMATS, named, runtimes_of
from densepath.engines.engine import Engine, Logits, Normalised
from densepath.engines.opening import Opening, open_runtime
from densepath.errors import DataError, EngineError, ImageError, ParityError
from densepath.exporting.parity import LOGIT_BOUNDS, EngineRow, Parity, PixelRow, Resizer, compare
from densepath.exporting.parity_bfloat16 import is_quick_in_bfloat16, measure_bfloat16
from densepath.exporting.parity_images import ParityImages
from densepath.exporting.preprocess_run import Fit
from densepath.exporting.speeds import measure_speeds
from densepath.images.decode import open_image
from densepath.images.preprocess import Image, Preprocess
from densepath.images.read_as import PHOTO_CHANNELS, ReadAs
from densepath.models.build import Model
from densepath.weights.checkpoint import Checkpoint
from densepath.wording import counted

REFERENCE_BATCH = 8
Parts: TypeAlias = dict[str, dict[str, str]]
Say: TypeAlias = Callable[[str], None]


def measure_parity(
    checkpoint: Checkpoint,
    folder: Path,
    parts: Parts,
    images: ParityImages,
    batch_sizes: Sequence[int],
    *,
    dynamic_size: bool = False,
    say: Say = lambda step: None,
) -> Parity:
    """The comparison of all formats in `folder` with the checkpoint's network.

    Images that cannot be read are left out, and named in the report. Formats that take images of
    any size are run on those of another size too.

    Raises:
        DataError: no image can be read.
        ParityError: the checkpoint's own answers are not numbers.
        MissingPackageError: a format's engine is not installed.
    """
    fits = {
        name: named(FORMATS[name].open_preprocess or "")(folder / files["preprocess"])
        for name, files in parts.items()
        if "preprocess" in files
    }
    preprocesses = [checkpoint.preprocess]
    if dynamic_size:
        preprocesses.append(_at_another_size(checkpoint.preprocess))
    say(f"reading {counted(len(images.paths), 'image')}")
    resized = _resize_all(images, preprocesses, fits)
    say("computing the reference")
    model = checkpoint.to_model()
    by_pillow = [np.concatenate(inputs) for inputs in resized.pillow]
    expected = [_reference(model, inputs, resized.names) for inputs in by_pillow]
    opening = _opening(checkpoint, dynamic_size)
    openings = {k: replace(opening, model=folder / files["model"]) for k, files in parts.items()}
    rows: list[EngineRow] = []
    for name in parts:
        cases = [
            _Case("Pillow", inputs, logits)
            for inputs, logits in zip(by_pillow, expected, strict=True)
        ]
        if name in fits:
            cases.append(_Case("graph", np.concatenate(resized.graphs[name].inputs), expected[0]))
        for engine in _engines(name, openings[name]):
            say(f"running {name} on {engine.info.name}")
            try:
                rows += _run_all(name, engine, cases, batch_sizes, checkpoint)
            finally:
                engine.close()
    quick = is_quick_in_bfloat16(parts)
    in_bfloat16 = measure_bfloat16(
        openings,
        by_pillow[0],
        expected[0],
        multi_label=checkpoint.multi_label,
        temperature=checkpoint.temperature,
        others=quick,
        say=say,
    )
    say("measuring the engines in turns")
    speeds = measure_speeds(openings, by_pillow[0], in_bfloat16=in_bfloat16 if quick else ())
    return Parity(
        checkpoint.spec.name,
        _described(images, len(resized.unreadable)),
        resized.names,
        len(set(expected[0].argmax(axis=1).tolist())),
        rows,
        [graph.row(name) for name, graph in resized.graphs.items()],
        resized.unreadable,
        in_bfloat16,
        speeds,
    )


def _described(images: ParityImages, num_unreadable: int) -> str:
    """What the images are, and which of them were not compared."""
    parts = [images.description]
    if num_unreadable:
        parts.append(f"{counted(num_unreadable, 'image')} of them could not be read")
    if images.passed_over:
        parts.append(str(images.passed_over))
    return "; ".join(parts)


@dataclass(frozen=True)
class _Case:
    """Images [N, C, H, W] as a format gets them, and the logits that they must give."""

    resizer: Resizer
    inputs: Normalised
    expected: Logits


@dataclass
class _Resized:
    """The images as the network takes them.

    Attributes:
        pillow: for each preprocessing float32 [1, C, H, W] of each image, by
            `images/preprocess.py`.
        graphs: the same by the graph of each format, for the first preprocessing.
        names: of the images, in order.
        unreadable: the others, with the reason.
    """

    pillow: list[list[Normalised]]
    graphs: dict[str, _ByGraph]
    names: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


@dataclass
class _ByGraph:
    """What a preprocess graph made, and how its pixels differ from Pillow's."""

    inputs: list[Normalised] = field(default_factory=list)
    values: int = 0
    differing: int = 0
    beyond_one: int = 0
    largest: int = 0

    def add(self, images: Normalised, pixels: Image, right: Image) -> None:
        """Count one image more, `right` by Pillow."""
        self.inputs.append(images)
        difference = np.abs(pixels.astype(np.int16) - right)
        self.values += difference.size
        self.differing += int(np.count_nonzero(difference))
        self.beyond_one += int(np.count_nonzero(difference > 1))
        self.largest = max(self.largest, int(difference.max()))

    def row(self, format: str) -> PixelRow:
        """The figures."""
        share, beyond = self.differing / self.values, self.beyond_one / self.values
        return PixelRow(format, share, beyond, self.largest)


def _at_another_size(preprocess: Preprocess) -> Preprocess:
    """The same for a larger image that is not square, with sides that halve to odd numbers."""
    height, width = preprocess.size
    return preprocess.at_size((height + 5, width + 30))


def _resize_all(
    images: ParityImages, preprocesses: Sequence[Preprocess], fits: dict[str, Fit]
) -> _Resized:
    """Every image, decoded once and resized in each way; only the small forms are kept.

    Raises:
        DataError: no image can be read.
    """
    resized = _Resized([[] for _ in preprocesses], {name: _ByGraph() for name in fits})
    for path, shown in zip(images.paths, images.names, strict=True):
        try:
            picture = _read(path, preprocesses[0].read_as, named=images.named)
        except ImageError as error:
            resized.unreadable.append(f"{shown}: {error.reason}")
            continue
        resized.names.append(shown)
        for preprocess, made in zip(preprocesses, resized.pillow, strict=True):
            made.append(preprocess(picture)[None])
        right = preprocesses[0].fit(picture)
        for name, fit in fits.items():
            resized.graphs[name].add(*fit(picture), right)
    if not resized.names:
        raise DataError(
            f"none of {images.description} can be read; the first is {resized.unreadable[0]}. "
            "Name others to compare answers on, by --images."
        )
    return resized


def _read(path: Path, read_as: ReadAs, *, named: bool) -> Image:
    """The pixels of a file; where a network takes other channels, the RGB planes over and over.

    Files that the user `named` are read as the network has them read; our photographs as photos.

    Raises:
        ImageError: it cannot be read.
    """
    channels, intensity = read_as.channels, read_as.intensity if named else None
    if channels in PHOTO_CHANNELS:
        return open_image(path, channels=channels, intensity=intensity)
    if named:
        with contextlib.suppress(ImageError):
            return open_image(path, channels=channels, intensity=intensity)
    planes = [channel % 3 for channel in range(channels)]
    return np.ascontiguousarray(open_image(path)[:, :, planes])


def _reference(model: Model, inputs: Normalised, names: Sequence[str]) -> Logits:
    """The logits of the checkpoint's network, as it is.

    Raises:
        ParityError: one is not a number.
    """
    with torch.inference_mode():
        parts = torch.from_numpy(inputs).split(REFERENCE_BATCH)
        logits = torch.cat([model(part) for part in parts]).numpy()
    whole = np.isfinite(logits).all(axis=1)
    if not whole.all():
        raise ParityError(
            f"the checkpoint's own answer to {names[int(np.argmin(whole))]} is not a number: its "
            "weights are damaged, or its training diverged. No bundle was written."
        )
    return logits


def _opening(checkpoint: Checkpoint, dynamic_size: bool) -> Opening:
    """How the networks are run; the file is left open.

    In the mode `latency` a call of `run_tensor_share` is one call of the runtime, on all cores.
    """
    return Opening(
        None,
        checkpoint.preprocess,
        checkpoint.in_channels,
        checkpoint.num_classes,
        size=None if dynamic_size else checkpoint.preprocess.size,
        device="cpu",
        mode="latency",
    )


def _engines(name: str, opening: Opening) -> Iterator[Engine]:
    """Every engine of this machine that reads the format, one after the other.

    What only a runtime of several can say is missing here, such as a compiler, leaves that one
    out.
    """
    rows = list(runtimes_of(name, "float32"))
    for row in rows:
        try:
            yield open_runtime(row, opening)
        except EngineError:
            if len(rows) == 1:
                raise


def _run_all(
    name: str,
    engine: Engine,
    cases: Sequence[_Case],
    batch_sizes: Sequence[int],
    checkpoint: Checkpoint,
) -> Iterator[EngineRow]:
    """A row for each case and batch size."""
    for case in cases:
        bound, (height, width) = LOGIT_BOUNDS[case.resizer], case.inputs.shape[2:]
        for batch_size in batch_sizes:
            starts = range(0, len(case.inputs), batch_size)
            parts = [engine.run_tensor_share(case.inputs[i : i + batch_size]) for i in starts]
            measured = compare(
                np.concatenate(parts),
                case.expected,
                multi_label=checkpoint.multi_label,
                temperature=checkpoint.temperature,
                bound=bound,
            )
            size = f"{height} × {width}"
            yield EngineRow(name, engine.info.name, case.resizer, size, batch_size, **measured)

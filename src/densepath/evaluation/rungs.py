"""What a ladder's subject can be run by: an engine a format, a checkpoint, an NPU's simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from densepath.bundle.bundle import Bundle, is_bundle
from densepath.bundle.formats import runtimes_of
from densepath.engines.engine import Images, Logits
from densepath.images.preprocess import Preprocess
from densepath.npu.program import COMPILED, DESCRIPTION, Program
from densepath.npu.simulate import simulate_batch
from densepath.predict.load import load
from densepath.weights.subject import open_checkpoint

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Rung:
    """A form of the network that can be run; closed on leaving a `with` statement.

    Attributes:
        name: the subject's and the format's.
        engine: what runs it.
        precision: of its arithmetic.
        labels, preprocess: of the network.
        size_bytes: of its files.
        simulated: it is slow, and answers but a sample.
        run: images [N, C, H, W] → logits [N, classes].
        close: frees it.
    """

    name: str
    engine: str
    precision: str
    labels: list[str]
    preprocess: Preprocess
    size_bytes: int
    run: Callable[[Images], Logits]
    close: Callable[[], None] = lambda: None
    simulated: bool = False

    def __enter__(self) -> Rung:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_rungs(subject: str | Path) -> Iterator[Rung]:
    """The forms of a subject: of a bundle each format, of a program its simulator.

    Raises:
        DensepathError: it cannot be opened.
    """
    if (Path(subject) / DESCRIPTION).is_file():
        yield _open_program(Program.open(subject))
        return
    if is_bundle(subject):
        bundle = Bundle.open(subject)
        for format in bundle.manifest.formats:
            name = f"{bundle.folder.name}, {format}"
            engine = next(runtimes_of(format, bundle.manifest.precision)).name
            yield _open(subject, name, engine, _bytes_of(bundle, format))
        return
    tensors = open_checkpoint(subject).tensors
    size_bytes = sum(FLOAT_BYTES * tensor.numel() for tensor in tensors.values())
    yield _open(subject, Path(subject).name, "eager", size_bytes)


def _open(subject: str | Path, name: str, engine: str, size_bytes: int) -> Rung:
    """The form that the engine runs."""
    predictor = load(subject, engine=engine, mode="latency")
    info = predictor.engine.info
    return Rung(
        *(name, info.name, info.precision, predictor.labels, predictor.preprocess, size_bytes),
        run=predictor.engine.run,
        close=predictor.close,
    )


def _open_program(program: Program) -> Rung:
    """An NPU's program in its simulator."""
    preprocess = program.preprocess
    scale, offset = (part[:, None, None] for part in preprocess.scale_and_offset())

    def run(images: Images) -> Logits:
        pixels = np.clip(np.rint((images - offset) / scale), 0, 255).astype(np.uint8)
        return simulate_batch(program, np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))

    target = program.about["target"]["name"]
    return Rung(
        *(f"{program.folder.name}, {target}", "simulator", "int8", program.labels, preprocess),
        size_bytes=(program.folder / COMPILED).stat().st_size,
        run=run,
        simulated=True,
    )


def _bytes_of(bundle: Bundle, format: str) -> int:
    """The size of the format's files without its preprocess graph."""
    preprocess = Path(bundle.manifest.formats[format].get("preprocess", ""))
    return sum(
        file.size_bytes
        for name, file in bundle.manifest.files.items()
        if format in file.formats and Path(name).stem != preprocess.stem
    )

"""What can be measured: a checkpoint or a bundle on an engine, an NPU's program in its simulator.

On the line: Predictor → Report. `evaluate` measures one form, the ladder a list of them; neither
knows what runs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from densepath.bundle.bundle import Bundle, is_bundle
from densepath.bundle.formats import runtimes_of
from densepath.bundle.other_formats import INT8
from densepath.choices import TestPooling
from densepath.engines.engine import Images, Logits
from densepath.engines.request import AUTO, AskedPrecision
from densepath.errors import UsageError
from densepath.images.preprocess import Preprocess
from densepath.npu.program import DESCRIPTION, Program
from densepath.npu.simulate import simulate_batch
from densepath.predict.load import load
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint

FLOAT_BYTES = 4
SIMULATOR = "simulator"


@dataclass(frozen=True)
class Form:
    """A form of a network that can be run; closed on leaving a `with` statement.

    Attributes:
        name: the subject's, and where it has several forms the format's.
        engine: what runs it.
        precision: of its arithmetic.
        labels, preprocess: of the network.
        multi_label: every class is a yes or no of its own.
        size_bytes: of its files; 0 where nobody asked.
        run: images uint8 [N, H, W, C], resized and cropped → logits [N, classes].
        close: frees it.
        simulated: it is slow, and a ladder has it answer but a sample.
        about: the engine, and why it was taken.
        thresholds: above which score each class is a yes; None where nothing was chosen.
        temperature: what `run` has divided its logits by; None: nothing.
    """

    name: str
    engine: str
    precision: str
    labels: list[str]
    preprocess: Preprocess
    multi_label: bool
    size_bytes: int
    run: Callable[[Images], Logits]
    close: Callable[[], None] = lambda: None
    simulated: bool = False
    about: str = ""
    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None

    def __enter__(self) -> Form:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_form(
    subject: str | Path | Checkpoint,
    *,
    name: str,
    engine: str = "auto",
    precision: AskedPrecision = "float32",
    device: str = "auto",
    size: int | tuple[int, int] | None = None,
    crop_share: float | None = None,
    test_pooling: TestPooling = "mean",
    size_bytes: int = 0,
) -> Form:
    """The form of a subject that an engine runs; `load` says what the arguments mean.

    Raises:
        DensepathError: it cannot be opened, or the engine cannot do what is asked.
    """
    if is_program(subject):
        asked = (engine, precision, device, size, crop_share, test_pooling)
        if asked != ("auto", "float32", "auto", None, None, "mean"):
            raise UsageError(
                f"{subject} is a program for an NPU: its simulator runs it as it was compiled. "
                "Leave --engine, --precision, --device, --size, --crop-pct and --test-pooling out."
            )
        return open_program(Program.open(Path(str(subject))), name=name)
    if isinstance(subject, Bundle) and subject.manifest.precision == INT8:
        precision = AUTO if precision == "float32" else precision  # nobody need have named it
    predictor = load(
        subject,
        engine=engine,
        precision=precision,
        device=device,
        size=size,
        crop_share=crop_share,
        test_pooling=test_pooling,
    )
    info = predictor.engine.info
    return Form(
        name,
        info.name,
        info.precision,
        predictor.labels,
        predictor.preprocess,
        predictor.multi_label,
        size_bytes,
        run=_divided(predictor.engine.run, predictor.temperature),
        close=predictor.close,
        about=str(predictor.choice),
        thresholds=predictor.thresholds,
        temperature=predictor.temperature,
    )


def open_forms(subject: str | Path, *, name: str) -> Iterator[Form]:
    """The forms of a subject: of a bundle each format, of a program its simulator.

    Raises:
        DensepathError: it cannot be opened.
    """
    if is_program(subject):
        yield open_program(Program.open(Path(subject)), name=name)
        return
    if is_bundle(subject):
        bundle = Bundle.open(subject)
        for format in bundle.manifest.formats:
            yield open_form(
                subject,
                name=f"{name}, {format}",
                engine=next(runtimes_of(format, bundle.manifest.precision)).name,
                size_bytes=_bytes_of(bundle, format),
            )
        return
    tensors = open_checkpoint(subject).tensors
    size_bytes = sum(FLOAT_BYTES * tensor.numel() for tensor in tensors.values())
    yield open_form(subject, name=name, engine="eager", size_bytes=size_bytes)


def short_names(subjects: Sequence[str | Path]) -> list[str]:
    """The last part of each subject's path; the whole path where two would have one name."""
    short = [os.path.basename(os.path.abspath(one)) for one in subjects]  # noqa: PTH100, PTH119
    return [
        name if short.count(name) == 1 else str(subject)
        for name, subject in zip(short, subjects, strict=True)
    ]


def is_program(subject: object) -> bool:
    """Whether it is the folder of a compiled program for an NPU."""
    return isinstance(subject, str | Path) and (Path(subject) / DESCRIPTION).is_file()


def open_program(program: Program, *, name: str) -> Form:
    """An NPU's program in its simulator."""
    target = program.description.target.name
    return Form(
        f"{name}, {target}",
        SIMULATOR,
        "int8",
        program.labels,
        program.preprocess,
        program.multi_label,
        size_bytes=program.compiled.stat().st_size,
        run=_divided(partial(simulate_batch, program), program.description.temperature),
        simulated=True,
        about=f"{SIMULATOR} of {target}: bit-exact, and slow",
        thresholds=program.description.thresholds,
        temperature=program.description.temperature,
    )


def _divided(
    run: Callable[[Images], Logits], temperature: float | None
) -> Callable[[Images], Logits]:
    """`run`, its logits divided as answers' are."""
    if temperature is None:
        return run
    divisor = np.float32(temperature)
    return lambda images: run(images) / divisor


def _bytes_of(bundle: Bundle, format: str) -> int:
    """The size of the format's files without its preprocess graph."""
    preprocess = Path(bundle.manifest.formats[format].get("preprocess", ""))
    return sum(
        file.size_bytes
        for name, file in bundle.manifest.files.items()
        if format in file.formats and Path(name).stem != preprocess.stem
    )

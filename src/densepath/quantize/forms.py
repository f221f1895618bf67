"""The INT8 forms of a network, one a runtime: how each is written, and what runs it.

A new form is one row of `FORMS`; what it needs is imported only when it is written or run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from densepath.engines.engine import Engine
from densepath.engines.litert import Kernels
from densepath.engines.modes import Mode
from densepath.errors import MissingPackageError, UnknownNameError, UsageError
from densepath.export.describe import input_shape
from densepath.export.onnx import OPSET
from densepath.export.program import export_program
from densepath.export.rewrite import STEPS
from densepath.extras import find_missing, note_left_out
from densepath.quantize import executorch, litert, native, onnxruntime, openvino
from densepath.quantize.calibration import Calibration
from densepath.quantize.layers import choose_layers, list_layers
from densepath.weights.checkpoint import Checkpoint

Purpose = Literal["server", "edge", "npu"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


@dataclass(frozen=True)
class Task:
    """What is to be quantised.

    Attributes:
        checkpoint: the float network.
        calibration: the images that ranges are measured on.
        keep_float: names of modules that stay in float32.
        scratch: a folder for what is made on the way.
        opset: ONNX's set of operators.
    """

    checkpoint: Checkpoint
    calibration: Calibration
    keep_float: tuple[str, ...]
    scratch: Path
    opset: int = OPSET


# A method's name, the folder of its files, and the file of each part.
Written: TypeAlias = tuple[str, Path, dict[str, str]]


@dataclass(frozen=True)
class Form:
    """An INT8 form.

    Attributes:
        format: as the manifest calls it.
        purposes: what it is for.
        methods: of making ranges, the one to begin with first.
        packages: what it needs, and the extra that brings it.
        write: makes the form by each of some methods.
        open: the engine that runs its model.
        open_as_npu: an engine with an NPU's integers, where one differs from the other; None where
            no NPU runs the form.
    """

    format: str
    purposes: tuple[Purpose, ...]
    methods: Callable[[], tuple[str, ...]]
    packages: tuple[tuple[str, str], ...]
    write: Callable[[Task, Sequence[str]], Iterator[Written]]
    open: Callable[[Path, Checkpoint], Engine]
    open_as_npu: Callable[[Path, Checkpoint], Engine] | None = None


def choose_forms(purpose: str, formats: Sequence[str] | None) -> list[Form]:
    """The forms that are named, or those for a purpose that this machine can write.

    Those that it cannot are said once, with the command that changes it.

    Raises:
        UnknownNameError: no such purpose or form.
        MissingPackageError: what a named one needs is not installed, or what all need; it names
            all that is missing.
    """
    if purpose not in PURPOSES:
        raise UnknownNameError("purpose", purpose, PURPOSES)
    for name in formats or ():
        if name not in FORMS:
            raise UnknownNameError("INT8 format", name, FORMS)
    if formats:
        chosen = [form for name, form in FORMS.items() if name in formats]
        left_out: list[Form] = []
    else:
        fit = [form for form in FORMS.values() if purpose in form.purposes]
        chosen = [form for form in fit if not find_missing(form.packages)]
        left_out = [form for form in fit if form not in chosen]
    missing = find_missing(package for form in chosen or left_out for package in form.packages)
    if missing:
        raise MissingPackageError.of(missing)
    if left_out:
        lacking = find_missing(package for form in left_out for package in form.packages)
        note_left_out(
            "quantised",
            [form.format for form in chosen],
            [form.format for form in left_out],
            lacking,
        )
    return chosen


def choose_methods(form: Form, method: str) -> tuple[str, ...]:
    """The methods to try: all of the form's, or the one that is named.

    Raises:
        UsageError: the form has no such method.
    """
    methods = form.methods()
    if method == "auto":
        return methods
    if method not in methods:
        having = [name for name, other in FORMS.items() if method in other.methods()]
        cure = f" Formats that have it: --to {','.join(having)}" if having else ""
        raise UsageError(
            f"{form.format} has no method {method!r}; it has auto, {', '.join(methods)}.{cure}"
        )
    return (method,)


def _write_openvino(task: Task, methods: Sequence[str]) -> Iterator[Written]:
    from densepath.export.openvino import write_openvino

    checkpoint, size = task.checkpoint, task.checkpoint.preprocess.size
    plain = _folder(task, "openvino")
    shape = input_shape(checkpoint, dynamic_size=False)
    parts = write_openvino(export_program(checkpoint, size), checkpoint.preprocess, plain, shape)
    kept = choose_layers(list_layers(checkpoint), task.keep_float)
    for method in methods:
        folder = _folder(task, f"openvino-{method}")
        openvino.quantize_openvino(
            *(plain / parts["model"], folder / parts["model"], task.calibration),
            method=method,
            keep_float=kept,
        )
        for suffix in (".xml", ".bin"):
            shutil.copy(plain / f"preprocess{suffix}", folder)
        yield method, folder, parts


def _write_onnx(task: Task, methods: Sequence[str]) -> Iterator[Written]:
    from densepath.export.onnx import write_onnx

    checkpoint, size = task.checkpoint, task.checkpoint.preprocess.size
    plain, steps = _folder(task, "onnx"), (*STEPS, "depthwise")
    program = export_program(checkpoint, size, steps=steps)
    parts = write_onnx(program, checkpoint.preprocess, plain, task.opset)
    kept = choose_layers(list_layers(checkpoint, steps), task.keep_float)
    for method, path in onnxruntime.quantize_onnx(
        *(plain / parts["model"], plain, task.calibration), methods=methods, keep_float=kept
    ):
        folder = _folder(task, f"onnx-{method}")
        path.rename(folder / parts["model"])
        shutil.copy(plain / parts["preprocess"], folder)
        yield method, folder, parts


def _write_executorch(task: Task, methods: Sequence[str]) -> Iterator[Written]:
    for method in methods:
        folder = _folder(task, f"executorch-{method}")
        executorch.write_executorch(
            *(task.checkpoint, folder / "model.pte"),
            calibration=task.calibration,
            method=method,  # type: ignore[arg-type]
            keep_float=_kept_names(task),
        )
        yield method, folder, {"model": "model.pte"}


def _write_litert(task: Task, methods: Sequence[str]) -> Iterator[Written]:
    for method in methods:
        folder = _folder(task, f"litert-{method}")
        litert.write_litert(
            *(task.checkpoint, folder / "model.tflite"),
            calibration=task.calibration,
            method=method,  # type: ignore[arg-type]
            keep_float=_kept_names(task),
        )
        yield method, folder, {"model": "model.tflite"}


def _write_native(task: Task, methods: Sequence[str]) -> Iterator[Written]:
    for method in methods:
        folder = _folder(task, f"native-{method}")
        native.write_native(
            *(task.checkpoint, folder / native.FILE_NAME),
            calibration=task.calibration,
            method=method,
            keep_float=_kept_names(task),
        )
        yield method, folder, {"model": native.FILE_NAME}


def _open_openvino(model: Path, checkpoint: Checkpoint) -> Engine:
    from densepath.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(model, precision="int8", mode="latency")


def _open_onnx(model: Path, checkpoint: Checkpoint) -> Engine:
    from densepath.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, precision="int8", mode="latency")


def _open_executorch(model: Path, checkpoint: Checkpoint) -> Engine:
    from densepath.engines.executorch import ExecutorchEngine

    return ExecutorchEngine(
        model,
        in_channels=checkpoint.in_channels,
        num_classes=checkpoint.num_classes,
        size=checkpoint.preprocess.size,
        precision="int8",
        mode="latency",
    )


def _open_litert(
    model: Path, checkpoint: Checkpoint, *, mode: Mode = "latency", kernels: Kernels = "optimised"
) -> Engine:
    from densepath.engines.litert import LiteRtEngine

    return LiteRtEngine(
        model,
        preprocess=checkpoint.preprocess,
        in_channels=checkpoint.in_channels,
        num_classes=checkpoint.num_classes,
        size=checkpoint.preprocess.size,
        precision="int8",
        mode=mode,
        kernels=kernels,
    )


def _open_litert_as_npu(model: Path, checkpoint: Checkpoint) -> Engine:
    """With the reference kernels, which use one thread an image."""
    return _open_litert(model, checkpoint, mode="throughput", kernels="reference")


def _open_native(model: Path, checkpoint: Checkpoint) -> Engine:
    from densepath.engines.native import NativeEngine, read_tensors

    spec, in_channels, tensors = read_tensors(model)
    return NativeEngine(
        *(spec, tensors),
        num_classes=checkpoint.num_classes,
        in_channels=in_channels,
        size=checkpoint.preprocess.size,
        mode="latency",
    )


def _kept_names(task: Task) -> list[str]:
    """The convolutions that stay in float32, each by its own name."""
    chosen = choose_layers(list_layers(task.checkpoint), task.keep_float)
    return list(dict.fromkeys(layer.name for layer in chosen))


def _folder(task: Task, name: str) -> Path:
    """A new folder for what is made on the way."""
    folder = task.scratch / name
    folder.mkdir()
    return folder


FORMS = {
    form.format: form
    for form in (
        Form(
            *("native", ("server",), lambda: native.METHODS),
            packages=(),
            write=_write_native,
            open=_open_native,
        ),
        Form(
            *("openvino", ("server",), lambda: openvino.METHODS),
            packages=(("openvino", "openvino"), ("nncf", "openvino")),
            write=_write_openvino,
            open=_open_openvino,
        ),
        Form(
            *("onnx", ("server",), lambda: onnxruntime.METHODS),
            packages=(("onnx", "onnx"), ("onnxscript", "onnx"), ("onnxruntime", "onnx")),
            write=_write_onnx,
            open=_open_onnx,
        ),
        Form(
            *("executorch", ("edge",), lambda: executorch.METHODS),
            packages=(("executorch", "edge"), ("torchao", "edge")),
            write=_write_executorch,
            open=_open_executorch,
        ),
        Form(
            *("litert", ("edge", "npu"), lambda: litert.METHODS),
            packages=(
                *(("litert_torch", "edge"), ("ai_edge_quantizer", "edge")),
                ("ai_edge_litert", "edge"),
            ),
            write=_write_litert,
            open=_open_litert,
            open_as_npu=_open_litert_as_npu,
        ),
    )
}

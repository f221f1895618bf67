"""`densepath.quantize`: a float network becomes an INT8 Bundle, whole and measured, or nothing.

On the line: Checkpoint → Bundle, as the export, but with images that ranges are measured on. Every
form is written by every method, run on images that were held out, and kept by the best one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from densepath.bundle.bundle import Bundle, check_target, write_bundle
from densepath.bundle.formats import Int8, Purpose, named, runtimes_of
from densepath.choices import CALIBRATION_IMAGES, HELD_OUT_IMAGES
from densepath.engines.engine import Logits
from densepath.engines.litert import Kernels
from densepath.engines.opening import Opening, open_runtime
from densepath.errors import ParityError
from densepath.exporting.describe import Parts, describe
from densepath.exporting.onnx import check_opset
from densepath.files import write_json, write_text
from densepath.names import several
from densepath.quantize.calibration import Calibration, draw_calibration
from densepath.quantize.figure import draw_sensitivity
from densepath.quantize.forms import choose_forms, choose_methods
from densepath.quantize.layers import choose_layers
from densepath.quantize.operators import count_operators
from densepath.quantize.report import FormReport, QuantizationReport
from densepath.quantize.scoring import Evaluate, Score, engine_logits, float_logits, score
from densepath.quantize.sensitivity import Sensitivity, measure_sensitivity, worst_layers
from densepath.quantize.task import Task
from densepath.quantize.user_functions import UserFunctions, load_user_functions
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint

# Of the layers, those that `keep_float="auto"` leaves in float32.
AUTO_SHARE = 0.03
# Below this no network answers as the float one does: something is broken.
LEAST_SNR_DB = 0.0

Say: TypeAlias = Callable[[str], None]
KeepFloat: TypeAlias = Sequence[str] | Literal["auto"]


def quantize(
    subject: str | Path | Checkpoint,
    output: str | Path,
    *,
    data: str | Path,
    num_images: int = CALIBRATION_IMAGES,
    num_held_out: int = HELD_OUT_IMAGES,
    purpose: Purpose = "server",
    to: Sequence[str] | None = None,
    method: str = "auto",
    keep_float: KeepFloat = (),
    sensitivity: bool = False,
    functions: str | Path | None = None,
    weights: str | Path | None = None,
    reading: Mapping[str, Any] | None = None,
    opset: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    say: Say = lambda step: None,
) -> Bundle:
    """The INT8 bundle of a network in the folder `output`.

    Args:
        subject: a checkpoint, or what `open_checkpoint` takes: a run folder, a published name, a
            bundle with the format torch, a file of another system.
        output: a new folder; with `overwrite` it may be an old bundle.
        data: images like those to come: a data set (its training split), or a folder, zip archive
            or list of images.
        num_images: that the ranges of activations are measured on.
        num_held_out: others, that methods are chosen by.
        purpose: `server`, `edge` or `npu`.
        to: the formats; by default all for the purpose.
        method: of making ranges; `auto` tries all and keeps the best.
        keep_float: names of layers, or of modules around them, that stay in float32; `auto` for the
            most sensitive ones.
        sensitivity: measure what 8 bits do to each layer, and draw it.
        functions: a Python file with a function `preprocess` or `evaluate`, see
            `user_functions.py`.
        weights: the file of a foreign subject's tensors, as `import_weights` takes it.
        reading: fields of DataOptions, such as a table's columns; with any of them `data` is a
            data set.
        opset: ONNX's set of operators, as in the export.
        seed: draws the images.
        overwrite: a bundle that stands at `output` is replaced.
        say: is told of each step.

    Raises:
        UsageError: an impossible argument.
        CheckpointError, UnknownNameError, WeightsUnavailableError: no such subject, form or layer.
        MissingPackageError: what a form needs is not installed.
        DataError: the images cannot be read.
        ParityError: a form's answers have nothing to do with the network's.
        OutputError: the bundle cannot be written.
    """
    check_target(Path(output), overwrite=overwrite)
    forms = choose_forms(purpose, to and several(to))
    opset = check_opset(opset, list(forms))
    methods = {name: choose_methods(name, form, method) for name, form in forms.items()}
    own = load_user_functions(functions) if functions is not None else UserFunctions()
    checkpoint = open_checkpoint(subject, weights=weights)
    if keep_float != "auto":
        keep_float = several(keep_float)
        choose_layers(checkpoint.spec, keep_float)
    say("reading images")
    calibration, held_out = draw_calibration(
        data,
        checkpoint.preprocess,
        num_images=num_images,
        num_held_out=num_held_out,
        seed=seed,
        prepare=own.preprocess,
        reading=reading,
    )
    judged_on = held_out or calibration
    measured: list[Sensitivity] = []
    if sensitivity or keep_float == "auto":
        measured = measure_sensitivity(checkpoint, judged_on, say=say)
    kept = worst_layers(measured, AUTO_SHARE) if keep_float == "auto" else list(keep_float)
    say("computing the reference")
    expected = float_logits(checkpoint, judged_on)
    with (
        tempfile.TemporaryDirectory(prefix="densepath-") as scratch,
        write_bundle(output, overwrite=overwrite) as (folder, seal),
    ):
        task = Task(checkpoint, calibration, tuple(kept), Path(scratch), opset)
        judge = _Judge(checkpoint, judged_on, expected, own.evaluate, purpose)
        parts: Parts = {}
        reports = []
        for name, form in forms.items():
            report, parts[name] = _make(name, form, task, methods[name], judge, folder, say)
            reports.append(report)
        whole = QuantizationReport(
            checkpoint.spec.name,
            purpose,
            calibration,
            judged_on,
            seed,
            kept,
            float_bytes=_size_of(checkpoint),
            forms=reports,
            sensitivity=measured,
        )
        _write_report(whole, folder)
        say("hashing the files")
        seal(
            describe(
                subject,
                checkpoint,
                folder,
                parts,
                precision="int8",
                quantization=whole.to_dict(),
            )
        )
    return Bundle.open(output)


class _Judge:
    """Runs a form on the images that were held out."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        images: Calibration,
        expected: Logits,
        evaluate: Evaluate | None,
        purpose: Purpose,
    ) -> None:
        self._checkpoint, self._images = checkpoint, images
        self._expected, self._evaluate = expected, evaluate
        self._purpose = purpose

    def kernels(self, form: Int8) -> Kernels | None:
        """The kernels of LiteRT that the form is run by; None where another runtime has it."""
        if form.open_as_npu is None:
            return None
        return "reference" if self._purpose == "npu" else "optimised"

    def score(self, format: str, form: Int8, model: Path) -> Score:
        """The form's score, on the runtime that `auto` takes for it, or with an NPU's integers."""
        checkpoint = self._checkpoint
        opening = Opening(
            model,
            checkpoint.preprocess,
            checkpoint.in_channels,
            checkpoint.num_classes,
            size=checkpoint.preprocess.size,
            precision="int8",
            mode="latency",
        )
        row = next(runtimes_of(format, "int8"))
        if form.open_as_npu is not None and self._purpose == "npu":
            row = replace(row, open=form.open_as_npu)
        engine = open_runtime(row, opening)
        try:
            found = engine_logits(engine, self._images)
        finally:
            engine.close()
        return score(found, self._expected, names=self._images.names, evaluate=self._evaluate)


def _make(
    format: str,
    form: Int8,
    task: Task,
    methods: Sequence[str],
    judge: _Judge,
    folder: Path,
    say: Say,
) -> tuple[FormReport, dict[str, str]]:
    """Write the form by its best method into `folder`; gives its report and the parts' names.

    Raises:
        ParityError: no method's answers are like the network's.
    """
    say(f"quantising {format}")
    scores: dict[str, Score] = {}
    made: dict[str, tuple[Path, dict[str, str]]] = {}
    for name, files, parts in named(form.write)(task, methods):
        say(f"running {format}, {name}")
        scores[name] = judge.score(format, form, files / parts["model"])
        made[name] = (files, parts)
        best = max(scores, key=lambda one: scores[one].order)
        for worse in set(made) - {best}:
            shutil.rmtree(made.pop(worse)[0])
        say(f"quantising {format}")
    if not scores[best].snr_db > LEAST_SNR_DB:
        raise ParityError(
            f"the INT8 {format} does not answer as the network: its best method, {best}, has "
            f"a signal-to-noise ratio of {scores[best].snr_db:.1f} dB. Calibrate with images like "
            "those to come, or keep layers in float32: --keep-float auto. No bundle was written."
        )
    files, parts = made[best]
    operators = count_operators(format, files / parts["model"])
    size_bytes = 0
    for file in sorted(files.iterdir()):
        if not file.name.startswith("preprocess"):
            size_bytes += file.stat().st_size
        shutil.move(file, folder / file.name)
    kernels = judge.kernels(form)
    return FormReport(format, best, scores, operators, size_bytes, kernels), parts


def _write_report(report: QuantizationReport, folder: Path) -> None:
    """Write the report, and the picture of the layers, into `folder`."""
    write_text(folder / "quantization.md", report.to_markdown())
    write_json(folder / "quantization.json", report.to_dict())
    if report.sensitivity:
        picture = folder / "sensitivity.png"
        draw_sensitivity(report.sensitivity, report.keep_float, report.model, picture)


def _size_of(checkpoint: Checkpoint) -> int:
    """The bytes of its weights in float32."""
    return sum(4 * tensor.numel() for tensor in checkpoint.tensors.values())

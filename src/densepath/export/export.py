"""`densepath.export`: a Checkpoint becomes a Bundle, whole and verified, or nothing at all.

On the line: Checkpoint → Bundle. The files of each format are written beside the target, each is
run on real images and compared with the checkpoint's own network (`parity.py`), and only then does
the folder take its name.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from densepath.bundle.bundle import Bundle, check_target, write_bundle
from densepath.errors import MissingPackageError, UnknownNameError, UsageError, check_count
from densepath.export.describe import describe, input_shape
from densepath.export.measure import measure_parity
from densepath.export.onnx import OPSET, check_opset
from densepath.export.parity import Parity, check_parity
from densepath.export.parity_images import collect_images
from densepath.export.program import export_program
from densepath.extras import find_missing, note_left_out
from densepath.files import write_json, write_text
from densepath.names import several
from densepath.outputs import check_folder
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Format = Literal["onnx", "openvino", "torch", "aoti"]
FORMATS: tuple[Format, ...] = get_args(Format)
DEFAULT_FORMATS: tuple[Format, ...] = ("onnx", "openvino", "torch")
DEFAULT_BATCH_SIZES = (1, 4, 8)
# What a format is written and run with, beyond densepath's own; the extra has the format's name.
PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
}
Say: TypeAlias = Callable[[str], None]


def export(
    subject: str | Path | Checkpoint,
    output: str | Path,
    *,
    to: Sequence[Format] | None = None,
    size: int | tuple[int, int] | None = None,
    dynamic_size: bool = False,
    opset: int | None = None,
    images: Sequence[str | Path] | None = None,
    num_images: int = 50,
    batch_sizes: Sequence[int] = DEFAULT_BATCH_SIZES,
    overwrite: bool = False,
    failed: str | Path | None = None,
    say: Say = lambda step: None,
) -> Bundle:
    """The bundle of a checkpoint in the folder `output`, its parity measured on real images.

    Args:
        subject: a checkpoint, or what `open_checkpoint` takes.
        output: a new folder; with `overwrite` it may be an old bundle.
        to: the formats; by default those of `DEFAULT_FORMATS` whose packages are installed.
        size: side of the images in pixels, or height and width; the checkpoint's by default.
        dynamic_size: the graphs take images of any size; `size` is what preprocessing makes.
        opset: ONNX's set of operators, of `onnx.OPSETS`; 20 by default.
        images: files, folders or zip archives to compare answers on; by default photographs that
            come with scikit-learn.
        num_images: how many of them at most, taken evenly.
        batch_sizes: each format is run with each.
        overwrite: a bundle that stands at `output` is replaced.
        failed: a folder for the report of a comparison that breaks a bound.
        say: is told of each step.

    Raises:
        UsageError: an impossible argument.
        CheckpointError, UnknownNameError, WeightsUnavailableError: no such subject.
        MissingPackageError: what a format needs is not installed.
        DataError: the images cannot be read.
        ParityError: a format answers otherwise than the checkpoint.
        OutputError: the bundle cannot be written.
    """
    formats = choose_formats(None if to is None else several(to))
    _check_numbers(num_images, batch_sizes)
    check_target(Path(output), overwrite=overwrite)
    if failed is not None:
        check_folder(failed)
    check_packages(formats)
    opset = check_opset(opset, formats)
    checkpoint = open_checkpoint(subject)
    if size is not None:
        checkpoint = _at_size(checkpoint, size)
    with (
        collect_images(images and several(images), num_images) as chosen,
        write_bundle(output, overwrite=overwrite) as (folder, seal),
    ):
        parts = write_formats(
            checkpoint, folder, formats, dynamic_size=dynamic_size, opset=opset, say=say
        )
        parity = measure_parity(
            *(checkpoint, folder, parts, chosen, batch_sizes), dynamic_size=dynamic_size, say=say
        )
        write_text(folder / "parity.md", parity.to_markdown())
        write_json(folder / "parity.json", parity.to_dict())
        _check(parity, None if failed is None else Path(failed))
        say("hashing the files")
        seal(
            describe(
                subject,
                checkpoint,
                folder,
                parts,
                parity=parity.summary(),
                dynamic_size=dynamic_size,
            )
        )
    return Bundle.open(output)


def check_formats(formats: Sequence[str]) -> list[Format]:
    """The formats, each once, in the order of `FORMATS`.

    Raises:
        UnknownNameError: one is none of these.
        UsageError: none was named.
    """
    for name in formats:
        if name not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)
    if not formats:
        raise UsageError(f"no format was named; choices: {', '.join(FORMATS)}.")
    return [name for name in FORMATS if name in formats]


def choose_formats(to: Sequence[Format] | None) -> list[Format]:
    """The formats that are named, or the default ones that this machine can write.

    Those that it cannot are said once, with the command that changes it.

    Raises:
        UnknownNameError: one is none of `FORMATS`.
        UsageError: none was named.
    """
    if to is not None:
        return check_formats(to)
    chosen = [name for name in DEFAULT_FORMATS if not missing_packages([name])]
    left_out = [name for name in DEFAULT_FORMATS if name not in chosen]
    if left_out:
        note_left_out("written", chosen, left_out, missing_packages(left_out))
    return chosen


def missing_packages(formats: Iterable[Format]) -> dict[str, str]:
    """What the formats need and is not installed, each with the extra that brings it."""
    needed = [(package, name) for name in formats for package in PACKAGES.get(name, ())]
    return find_missing(needed)


def check_packages(formats: Sequence[Format]) -> None:
    """Returns when what the formats need is there, before anything takes its time.

    Raises:
        MissingPackageError: packages are not installed; it names them all.
        EngineError: there is no C++ compiler.
    """
    missing = missing_packages(formats)
    if missing:
        raise MissingPackageError.of(missing)
    if "aoti" in formats:
        from densepath.export.aoti import check_compiler

        check_compiler()


def write_formats(
    checkpoint: Checkpoint,
    folder: Path,
    formats: Sequence[Format],
    *,
    dynamic_size: bool = False,
    opset: int = OPSET,
    say: Say = lambda step: None,
) -> dict[str, dict[str, str]]:
    """The files of these formats are in `folder`; the names of the parts, a format each.

    Raises:
        MissingPackageError: what a format needs is not installed.
        EngineError: the package of AOTInductor cannot be compiled here.
    """
    program: ExportedProgram | None = None
    if set(formats) - {"torch"}:
        say("tracing the network")
        size = checkpoint.preprocess.size
        program = export_program(checkpoint, size, dynamic_size=dynamic_size)
    parts: dict[str, dict[str, str]] = {}
    for name in formats:
        say(f"writing {name}")
        parts[name] = _write_format(name, checkpoint, program, folder, dynamic_size, opset)
    return parts


def _write_format(
    name: Format,
    checkpoint: Checkpoint,
    program: ExportedProgram | None,
    folder: Path,
    dynamic_size: bool,
    opset: int,
) -> dict[str, str]:
    """One format's files; each runtime is imported only here."""
    if name == "torch":
        # As large as its images are many, and it names a folder of this machine.
        replace(checkpoint, trained_on=None).save(folder / "model.safetensors")
        return {"model": "model.safetensors"}
    assert program is not None
    if name == "onnx":
        from densepath.export.onnx import write_onnx

        return write_onnx(program, checkpoint.preprocess, folder, opset)
    if name == "openvino":
        from densepath.export.openvino import write_openvino

        shape = input_shape(checkpoint, dynamic_size)
        return write_openvino(program, checkpoint.preprocess, folder, shape)
    from densepath.export.aoti import write_aoti

    write_aoti(program, folder / "model.pt2")
    return {"model": "model.pt2", "machine": platform.machine(), "system": platform.system()}


def _check_numbers(num_images: int, batch_sizes: Sequence[int]) -> None:
    """Returns when images and batches are at least one each."""
    check_count("num_images", num_images)
    if not batch_sizes:
        raise UsageError("batch sizes []: name at least one, each 1 or more.")
    for size in batch_sizes:
        check_count("each of the batch sizes", size)


def _at_size(checkpoint: Checkpoint, size: int | tuple[int, int]) -> Checkpoint:
    """The checkpoint with another input size."""
    sides = checkpoint.spec.check_size(size)
    return replace(checkpoint, preprocess=checkpoint.preprocess.at_size(sides))


def _check(parity: Parity, failed: Path | None) -> None:
    """Returns when no bound is broken; else the report goes to `failed`, if that is named."""
    if failed is not None and parity.broken():
        write_text(failed / "parity.md", parity.to_markdown())
        write_json(failed / "parity.json", parity.to_dict())
    check_parity(parity)

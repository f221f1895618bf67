"""`densepath.export`: a Checkpoint becomes a Bundle, whole and verified, or nothing at all.

On the line: Checkpoint → Bundle. The files of each format are written beside the target, each is
run on real images and compared with the checkpoint's own network (`parity.py`), and only then does
the folder take its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from densepath.bundle.bundle import Bundle, check_target, write_bundle
from densepath.bundle.formats import FORMATS, exported, exported_by_default, named
from densepath.bundle.other_formats import unknown_format
from densepath.choices import PARITY_BATCH_SIZES, PARITY_IMAGES
from densepath.errors import MissingPackageError, UsageError, check_count
from densepath.exporting.describe import describe
from densepath.exporting.job import Job, Say
from densepath.exporting.measure import measure_parity
from densepath.exporting.onnx import OPSET, check_opset
from densepath.exporting.parity import Parity, check_parity
from densepath.exporting.parity_images import collect_images
from densepath.extras import find_missing, note_left_out
from densepath.files import write_json, write_text
from densepath.names import several
from densepath.outputs import check_folder
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint


def export(
    subject: str | Path | Checkpoint,
    output: str | Path,
    *,
    to: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
    dynamic_size: bool = False,
    opset: int | None = None,
    images: Sequence[str | Path] | None = None,
    num_images: int = PARITY_IMAGES,
    batch_sizes: Sequence[int] = PARITY_BATCH_SIZES,
    overwrite: bool = False,
    failed: str | Path | None = None,
    say: Say = lambda step: None,
) -> Bundle:
    """The bundle of a checkpoint in the folder `output`, its parity measured on real images.

    Args:
        subject: a checkpoint, or what `open_checkpoint` takes.
        output: a new folder; with `overwrite` it may be an old bundle.
        to: the formats; by default onnx, openvino and torch, where their packages are installed.
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
    by_value = checkpoint.preprocess.read_as.by_value
    with (
        collect_images(images and several(images), num_images, values=by_value) as chosen,
        write_bundle(output, overwrite=overwrite) as (folder, seal),
    ):
        parts = write_formats(
            checkpoint, folder, formats, dynamic_size=dynamic_size, opset=opset, say=say
        )
        parity = measure_parity(
            checkpoint, folder, parts, chosen, batch_sizes, dynamic_size=dynamic_size, say=say
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


def check_formats(formats: Sequence[str]) -> list[str]:
    """The formats, each once, in the table's order.

    Raises:
        UsageError: one is none of these, or none was named.
    """
    choices = exported()
    for name in formats:
        if name not in choices:
            raise unknown_format("export", name)
    if not formats:
        raise UsageError(f"no format was named; choices: {', '.join(choices)}.")
    return [name for name in choices if name in formats]


def choose_formats(to: Sequence[str] | None) -> list[str]:
    """The formats that are named, or the default ones that this machine can write.

    Those that it cannot are said once, with the command that changes it.

    Raises:
        UsageError: one is none that `export` writes.
        UsageError: none was named.
    """
    if to is not None:
        return check_formats(to)
    wanted = exported_by_default()
    chosen = [name for name in wanted if not missing_packages([name])]
    left_out = [name for name in wanted if name not in chosen]
    if left_out:
        note_left_out("written", chosen, left_out, missing_packages(left_out))
    return chosen


def missing_packages(formats: Iterable[str]) -> dict[str, str]:
    """What the formats need and is not installed, each with the extra that brings it."""
    return find_missing(needed for name in formats for needed in FORMATS[name].packages)


def check_packages(formats: Sequence[str]) -> None:
    """Raise unless what the formats need is there, before anything takes its time.

    Raises:
        MissingPackageError: packages are not installed; it names them all.
        EngineError: there is no C++ compiler.
    """
    missing = missing_packages(formats)
    if missing:
        raise MissingPackageError.of(missing)
    for name in formats:
        check = FORMATS[name].check
        if check is not None:
            named(check)()


def write_formats(
    checkpoint: Checkpoint,
    folder: Path,
    formats: Sequence[str],
    *,
    dynamic_size: bool = False,
    opset: int = OPSET,
    say: Say = lambda step: None,
) -> dict[str, dict[str, str]]:
    """Write the files of these formats into `folder`; gives each format's names of its parts.

    Raises:
        MissingPackageError: what a format needs is not installed.
        EngineError: the package of AOTInductor cannot be compiled here.
    """
    job = Job(checkpoint, folder, dynamic_size, opset, say)
    parts: dict[str, dict[str, str]] = {}
    for name in formats:
        say(f"writing {name}")
        parts[name] = named(FORMATS[name].write or "")(job)
    return parts


def _check_numbers(num_images: int, batch_sizes: Sequence[int]) -> None:
    """Raise unless images and batches are at least one each."""
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
    """Raise if a bound is broken, after writing the report to `failed`, if that is named."""
    if failed is not None and parity.broken():
        write_text(failed / "parity.md", parity.to_markdown())
        write_json(failed / "parity.json", parity.to_dict())
    check_parity(parity)

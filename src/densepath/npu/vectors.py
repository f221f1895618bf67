"""`write_vectors`: images as a board gets them, and the bytes it must answer with.

On the line: the simulator gives the answers; a board's firmware, or whoever tests one, reads the
files. A vector is two of them: `0000_input.bin` and `0000_output.bin`; `vectors.json` lists all.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.errors import DataError, EngineError, OutputError
from densepath.files import sha256, write_json, write_text
from densepath.folders import contents, write_folder
from densepath.names import readable
from densepath.npu.c_source import vectors_header, vectors_source
from densepath.npu.program import Program
from densepath.npu.simulate import OperatorOutput, read_pixels, simulate_integers
from densepath.outputs import check_folder
from densepath.predict.answers import answer
from densepath.wording import counted, first_of

INDEX, FORMAT, VERSION = "vectors.json", "densepath-npu-vectors", 1
HEADER, SOURCE = "vectors.h", "vectors.S"
# Images that are simulated in one process.
BATCH = 32
_VECTOR = re.compile(r"\d{4,}_(input|output)\.bin")


@dataclass(frozen=True)
class Vectors:
    """What was written.

    Attributes:
        folder: of the files.
        index: as `vectors.json` has it.
        unreadable: the images that have no vector, each with the reason.
    """

    folder: Path
    index: dict[str, Any]
    unreadable: list[str]

    def __len__(self) -> int:
        return len(self.index["vectors"])


def write_vectors(
    program: Program,
    images: Sequence[str | Path],
    folder: str | Path,
    *,
    check: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda step: None,
) -> Vectors:
    """The inputs of a program for these images, and its outputs, in `folder`.

    Args:
        program: compiled.
        images: files; a `.bin` file has the input's bytes already.
        folder: a new one; with `overwrite` it may have vectors.
        check: compare the outputs with those of TensorFlow Lite Micro's interpreter first.
        overwrite: replace the vectors that are there.
        say: is told each step.

    Raises:
        DataError: no image can be read.
        MissingPackageError: what runs the program is not installed.
        EngineError: the simulator fails, or TensorFlow Lite Micro gives other bytes.
        OutputError: the files cannot be written, or something else is in the folder.
    """
    folder = Path(folder)
    check_vectors(folder, overwrite=overwrite)
    names, pixels, unreadable = _read(program, images)
    outputs = _simulate(program, pixels, names, check=check, say=say)
    index = _describe(program, pixels, outputs, names)
    say("writing the vectors")
    with write_folder(folder, last=(INDEX,)) as (made, put):
        _write(made, index, pixels, outputs.values)
        _keep_others(folder, made)
        put()
    return Vectors(folder, index, unreadable)


def check_vectors(folder: Path, *, overwrite: bool) -> None:
    """Returns when vectors may be written to `folder`: nothing, an empty folder, old vectors.

    Raises:
        OutputError: something else stands there, vectors that may not be overwritten, or nothing
            can be written there.
    """
    check_folder(folder)
    has_vectors = (folder / INDEX).is_file()
    if folder.is_dir() and not has_vectors and contents(folder):
        raise OutputError(f"{folder} is something else than test vectors; name a new folder.")
    if has_vectors and not overwrite:
        raise OutputError(f"{folder} has test vectors already; --overwrite replaces them.")


def _read(
    program: Program, images: Sequence[str | Path]
) -> tuple[list[str], NDArray[np.uint8], list[str]]:
    """The names and pixels [N, H, W, C] of what can be read, and what cannot.

    Raises:
        DataError: nothing can.
    """
    preprocess, names, pixels, unreadable = program.preprocess, [], [], []
    for image in images:
        try:
            pixels.append(read_pixels(Path(image), preprocess))
        except DataError as error:
            unreadable.append(str(error))
        else:
            names.append(readable(str(image)))
    if not pixels:
        raise DataError(f"no image could be read: {first_of(unreadable) or 'none was named'}")
    return names, np.concatenate(pixels), unreadable


def _simulate(
    program: Program,
    pixels: NDArray[np.uint8],
    names: Sequence[str],
    *,
    check: bool,
    say: Callable[[str], None],
) -> OperatorOutput:
    """The outputs [N, classes].

    Raises:
        EngineError: TensorFlow Lite Micro gives other bytes.
    """
    batches = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
    say(f"simulating {counted(len(pixels), 'image')}")
    made = [simulate_integers(program, batch) for batch in batches]
    values = np.concatenate([one.values for one in made]).reshape(len(pixels), -1)
    if check:
        say(f"running {counted(len(pixels), 'image')} by TensorFlow Lite Micro")
        found = [simulate_integers(program, batch, kernels="tflm").values for batch in batches]
        theirs = np.concatenate(found).reshape(values.shape)
        differing = [n for n, a, b in zip(names, values, theirs, strict=True) if (a != b).any()]
        if differing:
            raise EngineError(
                f"TensorFlow Lite Micro gives other bytes for {len(differing)} of "
                f"{counted(len(names), 'image')}: {first_of(differing)}. Nothing was written."
            )
    return OperatorOutput(made[0].name, values, made[0].scale, made[0].zero_point)


def _describe(
    program: Program, pixels: NDArray[np.uint8], outputs: OperatorOutput, names: Sequence[str]
) -> dict[str, Any]:
    """What `vectors.json` says."""
    best = answer(
        outputs.reals(),
        list(names),
        program.labels,
        top_k=1,
        multi_label=program.multi_label,
        temperature=program.description.temperature,
    )
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": program.description.model,
        "target": program.description.target.name,
        "program_sha256": sha256(program.compiled),
        "input": {"type": str(pixels.dtype), "shape": [1, *pixels.shape[1:]]},
        "output": {
            "type": str(outputs.values.dtype),
            "shape": [1, outputs.values.shape[1]],
            "scale": outputs.scale,
            "zero_point": outputs.zero_point,
        },
        "vectors": [
            {
                "image": one.path,
                "input": f"{number:04d}_input.bin",
                "output": f"{number:04d}_output.bin",
                "class_id": one.class_ids[0],
                "label": one.labels[0],
                "score": one.scores[0],
            }
            for number, one in enumerate(best)
        ],
    }


def _write(
    folder: Path, index: dict[str, Any], pixels: NDArray[np.uint8], outputs: NDArray[Any]
) -> None:
    """`folder` has the vectors, their sources and the index."""
    listed = index["vectors"]
    for vector, source, expected in zip(listed, pixels, outputs, strict=True):
        for name, values in (("input", source), ("output", expected)):
            (folder / vector[name]).write_bytes(values.tobytes())
    write_text(folder / HEADER, vectors_header(len(listed)))
    files = [[one[name] for one in listed] for name in ("input", "output")]
    write_text(folder / SOURCE, vectors_source(*files))
    write_json(folder / INDEX, index)


def _keep_others(old: Path, new: Path) -> None:
    """What stands in the old folder and is no part of test vectors stands in the new one, too."""
    for path in contents(old) if old.is_dir() else ():
        if path.name in (INDEX, HEADER, SOURCE) or _VECTOR.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)

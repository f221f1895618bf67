"""`densepath npu vectors`: what a board gets and must answer, to test one with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densepath.cli import options, outputs
from densepath.cli.console import NAMED_FAILURES, note, note_unreadable, print_json
from densepath.cli.progress import show_steps
from densepath.wording import counted


def vectors(
    program: options.ProgramFolder,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Images, folders (all images below them), lists (.txt), globs, or .bin files of "
            "the input's bytes.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", parser=outputs.path, help="The folder of the vectors, a new one."
        ),
    ],
    num_images: Annotated[
        int, typer.Option(min=1, help="How many images at most, the first ones.")
    ] = 20,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compare with TensorFlow Lite Micro's interpreter before writing."
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Write test vectors of a program: input bytes, the bytes that a board must answer, an index.

    Example: densepath npu vectors pets-u65 photos/ -o vectors --check
    """
    import itertools

    from densepath.images.find import find_images, name_of
    from densepath.images.image_files import PassedOver
    from densepath.npu.program import Program
    from densepath.npu.vectors import check_vectors, write_vectors

    check_vectors(output, overwrite=overwrite)
    opened = Program.open(program)
    passed_over, by_value = PassedOver(), opened.preprocess.read_as.by_value
    found = map(name_of, find_images(images, passed_over=passed_over, values=by_value))
    chosen = list(itertools.islice(found, num_images))
    more = next(found, None) is not None
    with show_steps("reading the images") as say:
        made = write_vectors(opened, chosen, output, check=check, overwrite=overwrite, say=say)
    if passed_over:
        note(str(passed_over))
    note_unreadable(made.unreadable[:NAMED_FAILURES], len(made.unreadable))
    if json:
        print_json({"output": str(made.folder), **made.index, "unreadable": made.unreadable})
    if check:
        note(
            "TensorFlow Lite Micro's interpreter gives the same bytes (for model.tflite, which was "
            "compiled: on a PC it has no NPU)"
        )
    note(
        f"{counted(len(made), 'vector')} in {made.folder}"
        + (f", of the first {num_images} images; --num-images takes more" if more else "")
    )

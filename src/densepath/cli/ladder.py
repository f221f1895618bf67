"""`densepath ladder`: a network's forms from float to NPU, on the same labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densepath.choices import SIMULATED_IMAGES, OnError
from densepath.cli import options, outputs
from densepath.cli.console import note, print_json, stdout
from densepath.cli.data_options import DataSettings, read_data_fields
from densepath.cli.progress import show_steps

NAMES = ("form", "engine", "precision")


def ladder(
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="SUBJECT...",
            help="Checkpoints, run folders, bundles and NPU programs of one network; the first "
            "one is what the others are compared with.",
        ),
    ],
    data: Annotated[str, typer.Option(help="A labelled data set.", metavar="DATA")],
    split: options.SplitOf = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="So many of them, taken evenly; all by default."),
    ] = None,
    simulated: Annotated[
        int, typer.Option(min=1, help="Of these, those that an NPU's simulator answers.")
    ] = SIMULATED_IMAGES,
    on_error: Annotated[
        OnError, typer.Option(help="An unreadable image: leave it out and count it, or stop there.")
    ] = "fail",
    missing_classes: options.Missing = "refuse",
    settings: DataSettings = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            parser=outputs.path,
            help="A folder for ladder.md, .json and .png.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare a network's forms: top-1, top-5, agreement, signal to noise, size and latency.

    Example: densepath ladder runs/pets bundles/pets-int8 --data pets -o ladder
    """
    from densepath.evaluation.ladder import measure_ladder
    from densepath.files import write_json, write_text
    from densepath.outputs import check_folder

    if output is not None:
        check_folder(output)
    with show_steps("opening the first form") as say:
        made = measure_ladder(
            subjects,
            data,
            split=split,
            num_images=images,
            num_simulated=simulated,
            reading=read_data_fields(settings),
            missing_classes=missing_classes,
            on_error=on_error,
            say=say,
        )
        if output is not None:
            from densepath.evaluation.ladder_figure import draw_ladder

            write_text(output / "ladder.md", made.to_markdown())
            write_json(output / "ladder.json", made.to_dict())
            drawn = draw_ladder(made, output / "ladder.png") is None
    if json:
        print_json(made.to_dict())
        return
    from rich.table import Table

    from densepath.wording import printable

    table = Table(box=None, pad_edge=False, header_style="bold")
    titles, rows = made.table()
    for title in titles:
        table.add_column(title, justify="left" if title in NAMES else "right")
    for row in rows:
        table.add_row(*map(printable, row))
    about = printable(str(made.overlap))
    stdout().print(about, markup=False, highlight=False, soft_wrap=True)
    stdout().print(table)
    if output is not None:
        picture = ", ladder.png" if drawn else ""
        note(f"written to {output}: ladder.md, ladder.json{picture}")

"""`densepath data`: what a data set is understood to be, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densepath.cli import options, outputs
from densepath.cli.console import note, print_json
from densepath.cli.data_options import DataSettings, read_data_options
from densepath.cli.preprocess_options import IntensityText, to_intensity
from densepath.descriptors import stream_name

TITLE_WIDTH = 60

data = typer.Typer(no_args_is_help=True, help="Look at a data set before it is trained on.")


@data.callback()
def _group() -> None:
    """Keeps `inspect` a verb of its own, though there is no other."""


@data.command()
def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="digits, cifar10, a folder of class folders, a list file, a table or an archive.",
        ),
    ],
    settings: DataSettings = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws what is held out, as in `train`.")] = 0,
    intensity: IntensityText = None,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=outputs.path,
            help="Draw samples of each class into this .png file or folder.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Say how a data set is understood: splits, classes, copies, and what is left out.

    Example: densepath data inspect flowers --output flowers.png
    """
    from densepath.data.dataset import SPLITS
    from densepath.data.inspect import inspect_splits
    from densepath.data.samples_figure import save_samples
    from densepath.data.splits import open_splits
    from densepath.wording import literal

    console = outputs.console_beside({"--output": output}, json=json)
    name, reading = read_data_options(source, settings, seed=seed)
    setting = to_intensity(intensity)
    splits = open_splits(name, intensity=setting, options=reading)
    found = inspect_splits(splits)
    if json:
        print_json(found.to_dict())
    else:
        console.print(found.to_text(), markup=False, highlight=False, soft_wrap=True)
    if output is None:
        return
    split = next(split for split in SPLITS if split in found.images)
    title = f"{literal(name, TITLE_WIDTH)}: {split} images of each class"
    written, reasons = save_samples(splits.of(split), title, output)
    for path in written:
        note(f"samples of each class in {stream_name(path)}")
    if reasons:
        raise typer.Exit(1)

"""`densepath quantize`: a trained network becomes an INT8 Bundle for servers, phones or an NPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densepath.bundle.formats import Purpose, quantised
from densepath.choices import CALIBRATION_IMAGES, HELD_OUT_IMAGES
from densepath.cli import options
from densepath.cli.console import note, print_json, stdout
from densepath.cli.data_options import DataSettings, read_data_fields
from densepath.cli.progress import show_steps
from densepath.wording import first_of, percent

if TYPE_CHECKING:
    from densepath.bundle.bundle import Bundle


def quantize(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="A run folder, a checkpoint file, a published name, a bundle with torch, or a "
            "file of another system, as X.pdmodel.",
        ),
    ],
    output: options.BundleFolder,
    data: Annotated[
        str,
        typer.Option(
            help="Images like those to come: a data set, folder, zip archive or list.",
            metavar="DATA",
        ),
    ],
    images: Annotated[
        int, typer.Option(min=1, help="How many of them ranges are measured on.")
    ] = CALIBRATION_IMAGES,
    held_out: Annotated[
        int, typer.Option(min=0, help="How many others the methods are compared on.")
    ] = HELD_OUT_IMAGES,
    purpose: Annotated[
        Purpose, typer.Option("--for", help="What it is for; says which formats are written.")
    ] = "server",
    to: Annotated[
        str | None,
        typer.Option(
            help=f"Formats in place of those, commas between: {', '.join(quantised())}.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="Of making ranges: auto tries all, or a format's: minmax, mse, …"),
    ] = "auto",
    keep_float: Annotated[
        str | None,
        typer.Option(
            metavar="auto|NAMES",
            help="Modules that stay in float32, commas between; auto: the most sensitive ones.",
            show_default=False,
        ),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Measure and draw what 8 bits do to each layer.")
    ] = False,
    functions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.py",
            help="Your own preprocess(image) or evaluate(logits, names). The file is executed.",
            show_default=False,
        ),
    ] = None,
    weights: options.TensorsFile = None,
    settings: DataSettings = None,
    opset: options.Opset = None,
    seed: Annotated[int, typer.Option(help="Draws the images.")] = 0,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Quantise a network to INT8 with calibration images, and say how its answers compare.

    Every format is made by each of its methods, run on images that were held out, and kept by
    the best one.

    Example: densepath quantize runs/pets --data pets/train -o bundles/pets-int8
    """
    from densepath.quantize.quantize import quantize as quantize_network

    kept = options.split_names(keep_float or "")
    with show_steps("opening the checkpoint") as say:
        bundle = quantize_network(
            subject,
            output,
            data=data,
            num_images=images,
            num_held_out=held_out,
            purpose=purpose,
            to=None if to is None else options.split_names(to),
            method=method,
            keep_float="auto" if kept == ["auto"] else kept,
            sensitivity=sensitivity,
            functions=functions,
            weights=weights,
            reading=read_data_fields(settings),
            opset=opset,
            seed=seed,
            overwrite=overwrite,
            say=say,
        )
    _report(bundle, json=json)


def _report(bundle: Bundle, *, json: bool) -> None:
    """Print what the bundle holds, and how its answers compare."""
    manifest = bundle.manifest
    said = manifest.quantization or {}
    for line in said["calibration"].get("notes", ()):
        note(line)
    if json:
        print_json(
            {
                "output": str(bundle.folder),
                "model": manifest.model["name"],
                "keep_float": said["keep_float"],
                "formats": said["formats"],
            }
        )
        return
    _print_forms(said)
    kept = first_of(said["keep_float"])
    note(
        f"{bundle.folder}: {manifest.model['name']} in INT8 as {', '.join(manifest.formats)}"
        + (f", {kept} in float32" if kept else "")
        + f"; report in {bundle.folder / 'quantization.md'}"
    )


def _print_forms(said: dict) -> None:
    """Print the formats and their scores as a table."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("format", "method"):
        table.add_column(title)
    for title in ("agreement", "SNR, dB", "in INT8", "size, MB"):
        table.add_column(title, justify="right")
    for name, form in said["formats"].items():
        score, operators = form["tried"][form["method"]], form["operators"]
        ratio = score["snr_db"]
        table.add_row(
            name,
            form["method"],
            percent(score["agreement"]),
            "exact" if ratio is None else f"{ratio:.1f}",
            "" if operators is None else percent(operators["share"]),
            f"{form['size_bytes'] / 1e6:.2f}",
        )
    console = stdout()
    judged, calibrated = said["judged_on"], said["calibration"]
    line = f"{judged['num_images']} images; ranges from {calibrated['images']}"
    kernels = {form["kernels"] for form in said["formats"].values()} - {None}
    if kernels:
        line += f"; litert by LiteRT's {kernels.pop()} kernels"
    console.print(f"compared with the float network on {line}", markup=False, soft_wrap=True)
    console.print(table)

"""`densepath export`: a checkpoint becomes a Bundle that answers anywhere as it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from densepath.bundle.formats import exported, exported_by_default
from densepath.cli import outputs
from densepath.cli.console import note, print_json, stderr, stdout
from densepath.errors import UsageError
from densepath.wording import percent

if TYPE_CHECKING:
    from densepath.bundle.bundle import Bundle

To: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--to",
        help=f"Formats, commas between: {', '.join(exported())}. [default: "
        f"{', '.join(exported_by_default())}, where their packages are installed]",
        show_default=False,
    ),
]
Output: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--output", "-o", parser=outputs.path, help="The folder of the bundle, a new one."
    ),
]
Size: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Side of the network's input in pixels; the checkpoint's by default."),
]
DynamicSize: TypeAlias = Annotated[
    bool, typer.Option("--dynamic-size", help="The graphs take images of any size.")
]
Opset: TypeAlias = Annotated[
    int | None,
    typer.Option(
        metavar="18..25",
        help="ONNX's set of operators: a lower one for older runtimes. [default: 20]",
        show_default=False,
    ),
]
ImagesOption: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--images",
        metavar="PATH",
        help="Images, folders, zips or lists (.txt) to compare answers on, several times if "
        "need be; by default photographs that come with scikit-learn.",
        show_default=False,
    ),
]
NumImages: TypeAlias = Annotated[
    int, typer.Option("--num-images", min=1, help="How many of them at most, taken evenly.")
]
BatchSizes: TypeAlias = Annotated[
    str, typer.Option(help="Each format is run with each of these, commas between.")
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace a bundle that stands there.")
]
Failed: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--keep-failed",
        metavar="DIR",
        parser=outputs.path,
        help="Where the report of a failed comparison is left.",
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def export(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="A published name, a checkpoint file, a run folder or a bundle with torch.",
        ),
    ],
    output: Output,
    to: To = None,
    size: Size = None,
    dynamic_size: DynamicSize = False,
    opset: Opset = None,
    images: ImagesOption = None,
    num_images: NumImages = 50,
    batch_sizes: BatchSizes = "1,4,8",
    overwrite: Overwrite = False,
    keep_failed: Failed = None,
    json: Json = False,
) -> None:
    """Write a bundle: the network in several formats, its preprocessing, names and hashes.

    Each format is run on real images and compared with the checkpoint, from image file to
    five best classes; when a bound is broken, no bundle is written.

    Example: densepath export runs/digits -o bundles/digits
    """
    from densepath.exporting.export import export as export_bundle

    with progress() as say:
        bundle = export_bundle(
            subject,
            output,
            to=None if to is None else split_names(to),
            size=size,
            dynamic_size=dynamic_size,
            opset=opset,
            images=images,
            num_images=num_images,
            batch_sizes=split_numbers(batch_sizes),
            overwrite=overwrite,
            failed=keep_failed,
            say=say,
        )
    report(bundle, json=json)


def split_names(text: str) -> list[str]:
    """The names between the commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def split_numbers(text: str) -> list[int]:
    """The whole numbers between the commas.

    Raises:
        UsageError: one is none.
    """
    try:
        return [int(number) for number in split_names(text)]
    except ValueError:
        raise UsageError(f"batch sizes {text!r}: name whole numbers, as in 1,4,8.") from None


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yields what shows a step on standard error, with the time that it takes."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    console = stderr()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("opening the checkpoint")
        yield lambda step: bar.reset(task, description=step)


def report(bundle: Bundle, *, json: bool) -> None:
    """What the bundle holds, and how its parity came out."""
    manifest = bundle.manifest
    size_bytes = sum(file.size_bytes for file in manifest.files.values())
    if json:
        print_json(
            {
                "output": str(bundle.folder),
                "model": manifest.model["name"],
                "formats": list(manifest.formats),
                "size_bytes": size_bytes,
                "parity": manifest.parity,
            }
        )
        return
    _print_parity(bundle)
    formats = ", ".join(manifest.formats)
    note(
        f"{bundle.folder}: {manifest.model['name']} as {formats}, {size_bytes / 1e6:.1f} MB; "
        f"report in {bundle.folder / 'parity.md'}"
    )


def _print_parity(bundle: Bundle) -> None:
    """The worst figures of each format, over engines and batch sizes, as a table."""
    from rich.table import Table

    parity = bundle.manifest.parity or {}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("format", "resized by"):
        table.add_column(title)
    for title in ("Δlogit / largest", "top-1", "ties", "top-5", "Δscore", "Δpixels"):
        table.add_column(title, justify="right")
    for name, worst in parity["formats"].items():
        for resizer in ("Pillow", "graph"):
            if resizer in worst:
                table.add_row(name, resizer, *_cells(worst[resizer], worst, resizer))
    console = stdout()
    console.print(f"parity on {parity['images']}", markup=False, highlight=False, soft_wrap=True)
    console.print(table)


def _cells(row: dict, worst: dict, resizer: str) -> list[str]:
    """The figures of a row as text."""
    pixels = percent(worst["pixels"]["share"], 3) if resizer == "graph" else ""
    return [
        *(f"{row['relative']:.1e}", percent(row["top1"]), str(row["ties"])),
        *(percent(row["top5"]), f"{row['score']:.1e}", pixels),
    ]

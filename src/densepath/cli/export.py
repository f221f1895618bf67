"""`densepath export`: a checkpoint becomes a Bundle that answers anywhere as it does."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from densepath.bundle.formats import exported, exported_by_default
from densepath.choices import PARITY_IMAGES
from densepath.cli import options
from densepath.cli.bundle_report import report_bundle
from densepath.cli.progress import show_steps

To: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--to",
        help=f"Formats, commas between: {', '.join(exported())}. [default: "
        f"{', '.join(exported_by_default())}, where their packages are installed]",
        show_default=False,
    ),
]


def export(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="A published name, a checkpoint file, a run folder, a bundle with torch, or a "
            "file of another system.",
        ),
    ],
    output: options.BundleFolder,
    to: To = None,
    size: options.Size = None,
    dynamic_size: options.DynamicSize = False,
    opset: options.Opset = None,
    images: options.ParityImages = None,
    num_images: options.NumImages = PARITY_IMAGES,
    batch_sizes: options.BatchSizes = options.BATCH_SIZES,
    overwrite: options.Overwrite = False,
    keep_failed: options.KeepFailed = None,
    json: options.Json = False,
) -> None:
    """Write a bundle: the network in several formats, its preprocessing, names and hashes.

    Each format is run on real images and compared with the checkpoint, from image file to
    five best classes; when a bound is broken, no bundle is written.

    Example: densepath export runs/digits -o bundles/digits
    """
    from densepath.exporting.export import export as export_bundle

    with show_steps("opening the checkpoint") as say:
        bundle = export_bundle(
            subject,
            output,
            to=None if to is None else options.split_names(to),
            size=size,
            dynamic_size=dynamic_size,
            opset=opset,
            images=images,
            num_images=num_images,
            batch_sizes=options.split_numbers(batch_sizes),
            overwrite=overwrite,
            failed=keep_failed,
            say=say,
        )
    report_bundle(bundle, json=json)

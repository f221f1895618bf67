"""`densepath convert`: a weights file of another system becomes a Bundle in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densepath.cli import export as exporting
from densepath.cli import preprocess_options as options
from densepath.cli.console import note


def convert(
    file: Annotated[
        Path,
        typer.Argument(help="A .pdparams, .ckpt, .pth or .safetensors file.", metavar="FILE"),
    ],
    output: exporting.Output,
    model: Annotated[
        str | None,
        typer.Option(
            help="The catalogue's model that the file is of; by default its name says.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str, typer.Option(help="Formats, commas between: onnx, openvino, torch, aoti.")
    ] = "onnx",
    source: Annotated[
        str | None,
        typer.Option(help="Published weights whose preprocessing it has, as paddle/DPN92."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Text file of class names, a `name` or `number name` a line."),
    ] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="Each class is a yes or no of its own.")
    ] = False,
    size: options.Size = None,
    resize_short: options.ResizeShort = None,
    crop_pct: options.CropPct = None,
    interpolation: options.Interpolation = None,
    mean: options.Mean = None,
    std: options.Std = None,
    dynamic_size: exporting.DynamicSize = False,
    opset: exporting.Opset = None,
    images: exporting.ImagesOption = None,
    num_images: exporting.NumImages = 50,
    batch_sizes: exporting.BatchSizes = "1,4,8",
    overwrite: exporting.Overwrite = False,
    keep_failed: exporting.Failed = None,
    json: exporting.Json = False,
) -> None:
    """Convert weights of PaddleClas, MindCV, timm or torchvision to ONNX or another format.

    None of these systems needs to be installed, and nothing in the file is executed.

    Example: densepath convert DenseNet121_pretrained.pdparams --to onnx -o bundles/densenet121
    """
    from densepath.data.label_names import read_label_names
    from densepath.exporting.convert import convert as convert_file

    changes = options.read_changes(size, resize_short, crop_pct, interpolation, mean, std)
    with exporting.progress() as say:
        bundle = convert_file(
            file,
            output,
            model=model,
            source=source,
            labels=read_label_names(labels) if labels else None,
            multi_label=multi_label,
            to=exporting.split_names(to),
            preprocess=changes,
            dynamic_size=dynamic_size,
            opset=opset,
            images=images,
            num_images=num_images,
            batch_sizes=exporting.split_numbers(batch_sizes),
            overwrite=overwrite,
            failed=keep_failed,
            say=say,
        )
    manifest = bundle.manifest
    for said in manifest.source["provenance"]["notes"]:
        note(said)
    exporting.report(bundle, json=json)
    if not json:
        options.note_preprocess(manifest.preprocess, manifest.source["provenance"]["preprocess"])

"""`densepath convert`: a weights file of another system becomes a Bundle in one step."""

from __future__ import annotations

from typing import Annotated

import typer

from densepath.bundle.formats import exported
from densepath.choices import PARITY_IMAGES
from densepath.cli import options
from densepath.cli import preprocess_options as preprocessing
from densepath.cli.bundle_report import report_bundle
from densepath.cli.console import note
from densepath.cli.progress import show_steps
from densepath.cli.weights_file import WeightsFile


def convert(
    file: WeightsFile,
    output: options.BundleFolder,
    model: options.ModelOf = None,
    weights: options.TensorsFile = None,
    to: Annotated[
        str, typer.Option(help=f"Formats, commas between: {', '.join(exported())}.")
    ] = "onnx",
    source: options.Source = None,
    labels: options.Labels = None,
    multi_label: options.MultiLabel = False,
    size: preprocessing.Size = None,
    resize_short: preprocessing.ResizeShort = None,
    crop_pct: preprocessing.CropPct = None,
    interpolation: preprocessing.Interpolation = None,
    mean: preprocessing.Mean = None,
    std: preprocessing.Std = None,
    intensity: preprocessing.IntensityText = None,
    dynamic_size: options.DynamicSize = False,
    opset: options.Opset = None,
    images: options.ParityImages = None,
    num_images: options.NumImages = PARITY_IMAGES,
    batch_sizes: options.BatchSizes = options.BATCH_SIZES,
    overwrite: options.Overwrite = False,
    keep_failed: options.KeepFailed = None,
    json: options.Json = False,
) -> None:
    """Convert weights of another system to ONNX or another format.

    No other system needs to be installed, and nothing in the file is executed.

    Example: densepath convert DenseNet121_pretrained.pdparams --to onnx -o bundles/densenet121
    """
    from densepath.data.label_names import read_label_names
    from densepath.exporting.convert import convert as convert_file

    changes = preprocessing.read_changes(
        size, resize_short, crop_pct, interpolation, mean, std, intensity
    )
    with show_steps("reading the weights") as say:
        bundle = convert_file(
            file,
            output,
            model=model,
            weights=weights,
            source=source,
            labels=read_label_names(labels) if labels else None,
            multi_label=multi_label,
            to=options.split_names(to),
            preprocess=changes,
            dynamic_size=dynamic_size,
            opset=opset,
            images=images,
            num_images=num_images,
            batch_sizes=options.split_numbers(batch_sizes),
            overwrite=overwrite,
            failed=keep_failed,
            say=say,
        )
    manifest = bundle.manifest
    for said in manifest.source["provenance"]["notes"]:
        note(said)
    report_bundle(bundle, json=json)
    if not json:
        preprocessing.note_preprocess(
            manifest.preprocess, manifest.source["provenance"]["preprocess"]
        )

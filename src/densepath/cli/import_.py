"""`densepath import`: a weights file of another system becomes a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densepath.cli import options, outputs
from densepath.cli import preprocess_options as preprocessing
from densepath.cli.console import note, print_json
from densepath.cli.weights_file import WeightsFile
from densepath.descriptors import stream_name
from densepath.errors import UsageError
from densepath.wording import counted


def import_(
    file: WeightsFile,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            parser=outputs.path,
            help="The checkpoint to write, a .safetensors file.",
        ),
    ],
    model: options.ModelOf = None,
    weights: options.TensorsFile = None,
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
    json: options.Json = False,
) -> None:
    """Convert weights of another system, found out by themselves; nothing in them is executed.

    Most weights files do not say how images reach their network: what is taken is printed, and
    the options change it.

    Example: densepath import DPN92_pretrained.pdparams -o dpn92.safetensors
    """
    from densepath.data.label_names import read_label_names
    from densepath.outputs import check_file, follow, is_stream
    from densepath.weights.import_file import import_weights

    check_file(output)
    if not is_stream(output) and follow(output).suffix != ".safetensors":
        raise UsageError(f"{output} must end in .safetensors: checkpoints are safetensors files.")
    outputs.console_beside({"--output": output}, json=json)
    names = read_label_names(labels) if labels else None
    checkpoint = import_weights(
        file,
        model,
        weights=weights,
        source=source,
        labels=names,
        multi_label=multi_label,
        preprocess=preprocessing.read_changes(
            size, resize_short, crop_pct, interpolation, mean, std, intensity
        ),
        say=note,
    )
    checkpoint.save(output)
    summary = {
        "output": str(output),
        "model": checkpoint.spec.name,
        "num_classes": checkpoint.num_classes,
        "in_channels": checkpoint.in_channels,
        "tensors": len(checkpoint.tensors),
        "preprocess": checkpoint.preprocess.to_dict(),
        "provenance": checkpoint.provenance,
    }
    if json:
        print_json(summary)
    else:
        note(
            f"{file.name}: {checkpoint.provenance['kind']}, {checkpoint.spec.name}, "
            f"{counted(checkpoint.num_classes, 'class')}"
        )
        note(
            f"{stream_name(output)}: {checkpoint.spec.name}, "
            f"{counted(checkpoint.num_classes, 'class')}, "
            f"{counted(len(checkpoint.tensors), 'tensor')} from {file.name}"
        )
        preprocessing.note_preprocess(checkpoint.preprocess, checkpoint.provenance["preprocess"])

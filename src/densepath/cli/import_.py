"""`densepath import`: a weights file of another system becomes a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densepath.cli import outputs
from densepath.cli import preprocess_options as options
from densepath.cli.console import note, print_json
from densepath.descriptors import stream_name
from densepath.errors import UsageError
from densepath.wording import counted


def import_(
    file: Annotated[
        Path,
        typer.Argument(help="A .pdparams, .ckpt, .pth or .safetensors file.", metavar="FILE"),
    ],
    model: Annotated[str, typer.Option(help="The catalogue's model that the file is of.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            parser=outputs.path,
            help="The checkpoint to write, a .safetensors file.",
        ),
    ],
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
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Convert weights of PaddleClas, MindCV, timm or torchvision; nothing in them is executed.

    A weights file does not say how images reach its network: what is taken is printed, and the
    options change it.

    Example: densepath import DPN92_pretrained.pdparams --model dpn92 -o dpn92.safetensors
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
        source=source,
        labels=names,
        multi_label=multi_label,
        preprocess=options.read_changes(size, resize_short, crop_pct, interpolation, mean, std),
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
            f"{stream_name(output)}: {checkpoint.spec.name}, "
            f"{counted(checkpoint.num_classes, 'class')}, "
            f"{counted(len(checkpoint.tensors), 'tensor')} from {file.name}"
        )
        options.note_preprocess(checkpoint.preprocess, checkpoint.provenance["preprocess"])

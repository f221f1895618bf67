"""Options that several verbs share: their choices and defaults are the library's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, get_args

import typer

from densepath import choices
from densepath.bundle.formats import RUNTIMES
from densepath.choices import MissingClasses, PrecisionRequest, Split
from densepath.cli import outputs
from densepath.errors import UsageError

if TYPE_CHECKING:
    EngineName: TypeAlias = str
    PoolingName: TypeAlias = str
else:
    EngineName = Literal[("auto", *RUNTIMES)]
    PoolingName = Literal[tuple(name.replace("_", "-") for name in get_args(choices.TestPooling))]

# How a network is run.
Size: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Side of the network's input in pixels; the subject's by default."),
]
CropPct: TypeAlias = Annotated[
    float | None, typer.Option(help="Share of the short side that the crop keeps; the subject's.")
]
Pooling: TypeAlias = Annotated[
    PoolingName, typer.Option(help="mean-max is for sizes above the training size.")
]
Tta: TypeAlias = Annotated[
    choices.TestAugmentation,
    typer.Option(
        "--tta", help="Test-time augmentation: the mean over 2, 5 or 10 views of each image."
    ),
]
Engine: TypeAlias = Annotated[
    EngineName, typer.Option(help="What runs the network; auto says what it chose and why.")
]
Precision: TypeAlias = Annotated[
    PrecisionRequest,
    typer.Option(
        help="The type of the arithmetic; auto is bfloat16 where the processor has it and the "
        "bundle's report shows the same answers, and says so."
    ),
]
Device: TypeAlias = Annotated[str, typer.Option(help="auto, cpu or cuda:N.")]
TopK: TypeAlias = Annotated[int, typer.Option(min=1, help="Classes in each answer.")]

# What a network is trained on.
TrainingData: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="digits, cifar10, a folder of class folders, a list file, a CSV or an archive. "
        "[default: digits]",
        show_default=False,
    ),
]

# What a network is measured on.
SplitOf: TypeAlias = Annotated[
    Split | None,
    typer.Option(
        help="The part of the data set. [default: test images, else those held out, else all]",
        show_default=False,
    ),
]
Missing: TypeAlias = Annotated[
    MissingClasses, typer.Option(help="A data set that lacks some of the network's classes.")
]

# Weights of another system.
ModelOf: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="The catalogue's model that the file is of; by default the one that its tensors fit.",
        show_default=False,
    ),
]
TensorsFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        "-w",
        help="The file with the tensors, where FILE is the network's description alone and the two "
        "are not called alike.",
    ),
]
Source: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Published weights whose preprocessing it has, as paddle/DPN92."),
]
Labels: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Text file of class names, a `name` or `number name` a line."),
]
MultiLabel: TypeAlias = Annotated[
    bool, typer.Option("--multi-label", help="Each class is a yes or no of its own.")
]

# How a bundle is written, and compared with its checkpoint.
BundleFolder: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--output", "-o", parser=outputs.path, help="The folder of the bundle, a new one."
    ),
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
ParityImages: TypeAlias = Annotated[
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
BATCH_SIZES = ",".join(map(str, choices.PARITY_BATCH_SIZES))
KeepFailed: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--keep-failed",
        metavar="DIR",
        parser=outputs.path,
        help="Where the report of a failed comparison is left.",
    ),
]

# What is written and printed.
ProgramFolder: TypeAlias = Annotated[
    Path, typer.Argument(metavar="PROGRAM", help="A folder that `npu compile` wrote.")
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace what stands there.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object.")]
JsonLines: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def to_pooling(name: PoolingName) -> choices.TestPooling:
    """The library's name of a pooling."""
    return "mean" if name == "mean" else "mean_max"


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

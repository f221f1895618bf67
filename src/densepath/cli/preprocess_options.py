"""The options of `import` and `convert` that say how images reach another system's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from densepath import choices
from densepath.cli.console import note
from densepath.errors import UsageError

if TYPE_CHECKING:
    from densepath.images.intensity import Intensity
    from densepath.images.preprocess import Preprocess
    from densepath.weights.preprocess_changes import PreprocessChanges

NONE = "none"


Size: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="N|HxW",
        help="Side of the network's input in pixels, or height and width, as 224x320.",
        show_default=False,
    ),
]
ResizeShort: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="N|none",
        help="The short side before the centre crop; none resizes straight to the size.",
        show_default=False,
    ),
]
CropPct: TypeAlias = Annotated[
    float | None,
    typer.Option(
        help="In its place, the share of the short side that the crop keeps.", show_default=False
    ),
]
Interpolation: TypeAlias = Annotated[
    choices.Interpolation | None,
    typer.Option(help="Pillow's bilinear or bicubic, or OpenCV's bilinear.", show_default=False),
]
Mean: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="X,X,X",
        help="Mean of values scaled to 0…1, one a channel or one for all.",
        show_default=False,
    ),
]
Std: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="X,X,X", help="Standard deviation, in the same way.", show_default=False),
]
IntensityText: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--intensity",
        metavar="KIND:A,B|none",
        help="Which values of 16-bit, DICOM and .npy files are black and white: range:LOW,HIGH, "
        "window:CENTRE,WIDTH, percentiles:LOW,HIGH of each image, or file, its own.",
        show_default=False,
    ),
]


def read_changes(
    size: str | None,
    resize_short: str | None,
    crop_pct: float | None,
    interpolation: choices.Interpolation | None,
    mean: str | None,
    std: str | None,
    intensity: str | None = None,
) -> PreprocessChanges:
    """What the options say of the preprocessing.

    Raises:
        UsageError: one of them is no number, or no intensity.
    """
    from densepath.weights.preprocess_changes import PreprocessChanges

    sides = None if size is None else _sides(size)
    short = None if resize_short in (None, NONE) else _whole("--resize-short", str(resize_short))
    return PreprocessChanges(
        size=sides if sides is None or len(sides) > 1 else sides[0],  # type: ignore[arg-type]
        resize_short="none" if resize_short == NONE else short,
        crop_share=crop_pct,
        interpolation=interpolation,
        mean=None if mean is None else _numbers("--mean", mean),
        std=None if std is None else _numbers("--std", std),
        intensity="none" if intensity == NONE else to_intensity(intensity),
    )


def to_intensity(text: str | None) -> Intensity | None:
    """The setting that the option says; None for `none` and where it is not given.

    Raises:
        UsageError: it is none.
    """
    from densepath.images.intensity import Intensity

    return None if text in (None, NONE) else Intensity.parse(str(text))


def note_preprocess(preprocess: Preprocess, origin: str) -> None:
    """Print the preprocessing, where it comes from, and, where it was guessed, what to do."""
    note(f"preprocessing: {preprocess.to_text()}")
    cure = ". Other values: --size, --resize-short, --crop-pct, --interpolation, --mean, --std"
    note(f"it is {origin}{cure if origin.startswith('guessed') else ''}")


def _sides(text: str) -> tuple[int, ...]:
    """The numbers of `224`, `224x320`, `224×320` or `224,320`.

    Raises:
        UsageError: they are none.
    """
    parts = text.lower().replace("×", "x").replace(",", "x").split("x")
    try:
        return tuple(map(int, parts))
    except ValueError:
        raise UsageError(
            f"--size is {text!r}; it must be a whole number of pixels, as 224, or height and "
            "width, as 224x320."
        ) from None


def _whole(option: str, text: str) -> int:
    """The whole number.

    Raises:
        UsageError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{option} is {text!r}; it must be a whole number of pixels.") from None


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers between commas or blanks.

    Raises:
        UsageError: one is none.
    """
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise UsageError(
            f"{option} is {text!r}; it must be numbers with commas between, as 0.485,0.456,0.406."
        ) from None

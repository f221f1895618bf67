"""The argument of the verbs that read another system's weights, with the endings of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from densepath.weights.origins import endings

WeightsFile: TypeAlias = Annotated[
    Path,
    typer.Argument(
        help=f"The file, or the folder, of another system: {', '.join(endings())}.", metavar="FILE"
    ),
]

"""What is asked of an engine."""

from __future__ import annotations

from dataclasses import dataclass

from densepath.bundle.formats import Precision
from densepath.engines.modes import Mode

AUTO = "auto"
# So many are worth compiling our kernels for.
MANY_IMAGES = 256


@dataclass(frozen=True)
class EngineRequest:
    """What is asked of an engine.

    Attributes:
        engine: a name of the table, or `auto`.
        mode: see `modes.py`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: the type of the arithmetic.
        size: height and width of the images, where they are not the subject's own.
        threads: CPU threads; by default one a usable core.
        mean_max: pooling by `mean_max`.
        explains: it must say where it looked.
        num_images: how many there are, where that is known.
    """

    engine: str = AUTO
    mode: Mode = "auto"
    device: str = "auto"
    precision: Precision = "float32"
    size: tuple[int, int] | None = None
    threads: int | None = None
    mean_max: bool = False
    explains: bool = False
    num_images: int | None = None

"""What is asked of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from densepath.bundle.formats import Precision
from densepath.engines.modes import Mode

AUTO: Literal["auto"] = "auto"
# What may be asked for: `auto` is a request, and no type of arithmetic.
AskedPrecision: TypeAlias = Precision | Literal["auto"]
# So many images are answered in less time than a slower opening costs.
FEW_IMAGES = 64
# So many are worth compiling our kernels for.
MANY_IMAGES = 256


@dataclass(frozen=True)
class EngineRequest:
    """What is asked of an engine.

    Attributes:
        engine: a name of the table, or `auto`.
        mode: see `modes.py`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: the type of the arithmetic; `auto` is bfloat16 where this processor has it,
            the bundle's report allows it and it was not measured to be slower, else float32.
        size: height and width of the images, where they are not the subject's own.
        threads: CPU threads; by default one a usable core.
        mean_max: pooling by `mean_max`.
        explains: it must say where it looked.
        num_images: how many there are, where that is known.
    """

    engine: str = AUTO
    mode: Mode = "auto"
    device: str = "auto"
    precision: AskedPrecision = AUTO
    size: tuple[int, int] | None = None
    threads: int | None = None
    mean_max: bool = False
    explains: bool = False
    num_images: int | None = None


def is_few(request: EngineRequest) -> bool:
    """Whether the answers take less time than opening an engine may."""
    return request.num_images is not None and request.num_images <= FEW_IMAGES

"""Pixels of more than 8 bits → 8 bits, or a refusal that says which values they are.

On the line: `decode.py` asks, once a file's pixels are there.
"""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow

from densepath.images.refusals import RefusedError

WHITE_16 = 65535
# Floats are of 0 to 1 or of 0 to 255; a resampling filter overshoots by a tenth. What lies
# between the two, or beyond, is neither.
OVERSHOOT = 0.1
LEAST_WHITE = 16


def eight_bits(picture: Pillow.Image) -> Pillow.Image:
    """Deep grayscale as mode L, a transparent value white; other modes as they are."""
    if picture.mode == "F":
        return Pillow.fromarray(_floats_to_eight_bits(np.asarray(picture)))
    if picture.mode.startswith("I"):
        deep = np.asarray(picture).astype(np.int64)
        if picture.mode == "I":
            _check_integers(int(deep.min()), int(deep.max()))
        if isinstance(picture.info.get("transparency"), int):
            deep = np.where(deep == picture.info["transparency"], WHITE_16, deep)
        return Pillow.fromarray((deep >> 8).astype(np.uint8))
    return picture


def _check_integers(least: int, most: int) -> None:
    """Raise unless integers of 32 bits are those of a 16-bit image, and more than darkness."""
    if least < 0 or most > WHITE_16 or 0 < most < 256:
        raise RefusedError(_not_eight_bits("integers", least, most))


def _floats_to_eight_bits(values: np.ndarray) -> np.ndarray:
    """uint8 of floats of 0 to 1 or of 0 to 255; others are refused."""
    if not np.isfinite(values).all():
        raise RefusedError("floating-point pixels that are not finite")
    least, most = float(values.min()), float(values.max())
    for white in (1, 255):
        if -OVERSHOOT * white <= least and most <= (1 + OVERSHOOT) * white:
            break
    else:
        raise RefusedError(_not_eight_bits("floats", least, most))
    if white == 255 and most < LEAST_WHITE:
        raise RefusedError(_not_eight_bits("floats", least, most))
    return np.rint(values * (255.0 / white)).clip(0, 255).astype(np.uint8)


def _not_eight_bits(numbers: str, least: float, most: float) -> str:
    """Why such an image is refused."""
    return (
        f"{numbers} with values from {least:,.6g} to {most:,.6g}: not an 8-bit image; scale them "
        "to 0…255 and save it as an 8-bit PNG (docs/data.md shows how)"
    )

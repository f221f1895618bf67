"""A decoded picture → mode RGB or L: upright, over white, of 8 bits.

On the line: between Pillow's decoders (`opened.py`) and the pixels of `decode.py`.
"""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow

from densepath.images.eight_bits import eight_bits
from densepath.images.preprocess import Image

TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
ORIENTATION = 0x0112  # EXIF 2.3, section 4.6.4, table 4.


def flatten(picture: Pillow.Image, channels: int) -> Pillow.Image:
    """The picture in mode RGB or L, by the rules above."""
    flat = over_white(eight_bits(upright(picture)))
    wanted = "L" if channels == 1 else "RGB"
    return flat if flat.mode == wanted else flat.convert(wanted)


def to_array(picture: Pillow.Image) -> Image:
    """uint8 [height, width, channels] of a picture of mode RGB or L."""
    array = np.asarray(picture)
    return array[:, :, None] if array.ndim == 2 else array


def upright(picture: Pillow.Image) -> Pillow.Image:
    """The picture turned as its EXIF orientation says; as it is when the EXIF is damaged."""
    try:
        if picture.getexif().get(ORIENTATION, 1) == 1:
            return picture  # exif_transpose would copy it.
        from PIL import ImageOps

        return ImageOps.exif_transpose(picture)
    except Exception:  # The pixels are whole: a damaged note about them is not worth a refusal.
        return picture


def over_white(picture: Pillow.Image) -> Pillow.Image:
    """The picture without transparency."""
    if picture.mode not in TRANSPARENT_MODES and "transparency" not in picture.info:
        return picture
    shown = picture.convert("RGBA")
    white = Pillow.new("RGBA", shown.size, (255, 255, 255, 255))
    return Pillow.alpha_composite(white, shown).convert("RGB")

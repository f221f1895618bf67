"""RandAugment and colour jitter on one uint8 image, with Pillow.

Source: Cubuk et al., arXiv:1909.13719; ranges of the operations as in their table 6 and in
timm's `auto_augment.py` for magnitudes 0 to 10.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image as Pillow
from PIL import ImageEnhance, ImageOps

from densepath.images.preprocess import Image

FILL_GRAY = 128
LARGEST_MAGNITUDE = 10.0

# An operation takes a picture, a level in 0…1 and a sign; most need only one of the two.
Operation = Callable[[Pillow.Image, float, int], Pillow.Image]


def _affine(picture: Pillow.Image, coefficients: tuple[float, ...]) -> Pillow.Image:
    """The picture as an affine map moves it, over gray; coefficients as Pillow takes them."""
    fill = (FILL_GRAY,) * len(picture.getbands())
    return picture.transform(
        picture.size,
        Pillow.Transform.AFFINE,
        coefficients,
        Pillow.Resampling.BILINEAR,
        fillcolor=fill if len(fill) > 1 else FILL_GRAY,
    )


def _rotate(picture: Pillow.Image, level: float, sign: int) -> Pillow.Image:
    """The picture turned by up to 30°, over gray."""
    fill = (FILL_GRAY,) * len(picture.getbands())
    return picture.rotate(
        sign * 30 * level,
        Pillow.Resampling.BILINEAR,
        fillcolor=fill if len(fill) > 1 else FILL_GRAY,
    )


OPERATIONS: dict[str, Operation] = {
    "identity": lambda p, level, sign: p,
    "autocontrast": lambda p, level, sign: ImageOps.autocontrast(p),
    "equalize": lambda p, level, sign: ImageOps.equalize(p),
    "rotate": _rotate,
    "posterize": lambda p, level, sign: ImageOps.posterize(p, 8 - round(4 * level)),
    "solarize": lambda p, level, sign: ImageOps.solarize(p, round(256 * (1 - level))),
    "color": lambda p, level, sign: ImageEnhance.Color(p).enhance(1 + sign * 0.9 * level),
    "contrast": lambda p, level, sign: ImageEnhance.Contrast(p).enhance(1 + sign * 0.9 * level),
    "brightness": lambda p, level, sign: ImageEnhance.Brightness(p).enhance(1 + sign * 0.9 * level),
    "sharpness": lambda p, level, sign: ImageEnhance.Sharpness(p).enhance(1 + sign * 0.9 * level),
    "shear_x": lambda p, level, sign: _affine(p, (1, sign * 0.3 * level, 0, 0, 1, 0)),
    "shear_y": lambda p, level, sign: _affine(p, (1, 0, 0, sign * 0.3 * level, 1, 0)),
    "translate_x": lambda p, level, sign: _affine(
        p, (1, 0, sign * 0.45 * level * p.size[0], 0, 1, 0)
    ),
    "translate_y": lambda p, level, sign: _affine(
        p, (1, 0, 0, 0, 1, sign * 0.45 * level * p.size[1])
    ),
}


def rand_augment(image: Image, num_ops: int, magnitude: float, rng: np.random.Generator) -> Image:
    """`num_ops` operations drawn with replacement, all of `magnitude` in 0…10.

    uint8 HWC with 1 or 3 channels → the same shape.
    """
    names = list(OPERATIONS)
    picture = _to_picture(image)
    for choice, coin in zip(
        rng.integers(len(names), size=num_ops), rng.random(num_ops), strict=True
    ):
        operation = OPERATIONS[names[choice]]
        picture = operation(picture, magnitude / LARGEST_MAGNITUDE, 1 if coin < 0.5 else -1)
    return _to_array(picture)


def color_jitter(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Brightness, contrast and saturation times U(1 − strength, 1 + strength), in random order.

    Source: torchvision `transforms.ColorJitter` without hue, MindCV's default of 0.4.
    """
    picture = _to_picture(image)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, len(enhancers))
    for i in rng.permutation(len(enhancers)):
        picture = enhancers[i](picture).enhance(float(factors[i]))
    return _to_array(picture)


def _to_picture(image: Image) -> Pillow.Image:
    """uint8 HWC with 1 or 3 channels as a Pillow picture."""
    return Pillow.fromarray(np.ascontiguousarray(image if image.shape[2] == 3 else image[:, :, 0]))


def _to_array(picture: Pillow.Image) -> Image:
    """A Pillow picture as uint8 HWC."""
    array = np.asarray(picture)
    return array if array.ndim == 3 else array[:, :, None]

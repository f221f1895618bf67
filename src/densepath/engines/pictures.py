"""An Explanation as a picture: the image beside itself with the heat laid over it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from densepath.engines.predictor import Explanation
from densepath.files import write_atomically
from densepath.predictions import shorten
from densepath.preprocess import Image

PANEL = 448
MARGIN = 16
CAPTION = 80
INK, PAPER, FAINT = (24, 28, 36), (255, 255, 255), (104, 112, 124)
HEAT_OPACITY = 0.55
# Below this many pixels a side, an enlarged image shows its pixels as squares.
SMALL = 64


def explanation_name(explanation: Explanation, index: int) -> str:
    """A file name for the picture of answer `index`: no two alike, safe on every system.

    `000017-tench.png` for the 17th image (from 0) when it is called `photos/tench.jpg`.
    """
    stem = Path(explanation.prediction.path).stem
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")[:60]
    return f"{index:06d}-{safe}.png" if safe else f"{index:06d}.png"


def save_explanation(explanation: Explanation, path: str | Path) -> None:
    """The file `path` holds the picture as PNG.

    Raises:
        OutputError: it cannot be written.
    """
    with write_atomically(path) as temporary:
        draw_explanation(explanation).save(temporary, format="PNG")


def draw_explanation(explanation: Explanation) -> Pillow.Image:
    """Answer and score above two panels: what the network saw, and where it looked."""
    assert explanation.image is not None
    assert explanation.heat is not None
    seen = enlarge(explanation.image, PANEL)
    heated = lay_over(seen, explanation.heat)
    prediction = explanation.prediction
    size = (2 * seen.width + 3 * MARGIN, seen.height + CAPTION + MARGIN)
    picture = Pillow.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(picture)
    title = f"{shorten(prediction.labels[0], 44)}   {prediction.scores[0] * 100:.1f} %"
    pen.text((MARGIN, 12), title, INK, ImageFont.load_default(28))
    name = shorten(Path(prediction.path).name, 80)
    pen.text((MARGIN, 50), name, FAINT, ImageFont.load_default(18))
    picture.paste(seen, (MARGIN, CAPTION))
    picture.paste(heated, (2 * MARGIN + seen.width, CAPTION))
    return picture


def enlarge(image: Image, side: int) -> Pillow.Image:
    """The image as RGB with a long side of at least `side`; small images keep square pixels."""
    layers = image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1].repeat(3, axis=2)
    picture = Pillow.fromarray(np.ascontiguousarray(layers))
    factor = side / max(picture.size)
    if factor <= 1:
        return picture
    target = (round(picture.width * factor), round(picture.height * factor))
    small = max(picture.size) <= SMALL
    return picture.resize(target, Pillow.Resampling.NEAREST if small else Pillow.Resampling.BICUBIC)


def lay_over(picture: Pillow.Image, heat: NDArray[np.float32]) -> Pillow.Image:
    """The picture, more covered with colour where the heat map [H', W'] of 0 to 1 is higher."""
    import matplotlib

    scaled = Pillow.fromarray(heat.astype(np.float32)).resize(
        picture.size, Pillow.Resampling.BICUBIC
    )
    warm = np.asarray(scaled).clip(0, 1)
    colour = matplotlib.colormaps["turbo"](warm)[:, :, :3] * 255
    # Cold places keep a part of the colour, so that the map reads as a whole.
    opacity = HEAT_OPACITY * (0.35 + 0.65 * warm[:, :, None])
    mixed = np.asarray(picture) * (1 - opacity) + colour * opacity
    return Pillow.fromarray(mixed.round().astype(np.uint8))

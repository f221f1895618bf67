"""An Explanation as a picture: the image beside itself with the heat laid over it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from densepath.drawing.picture import FAINT, INK, colour, text_panel, try_to_write
from densepath.images.preprocess import Image
from densepath.predict.predictor import Explanation
from densepath.wording import literal, percent

PANEL = 448
MARGIN = 16
CAPTION = 112
PAPER = (255, 255, 255)
# Heights of letters in pixels, and how many columns of them a picture's or a panel's width holds.
TITLE, NAME, HEADING = 26, 16, 15
TITLE_COLUMNS, NAME_COLUMNS, HEADING_COLUMNS = 44, 84, 28
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


def save_explanation(explanation: Explanation, path: str | Path) -> str | None:
    """Write the picture as PNG to the file `path`; on failure give the reason, and log the first.

    The answer itself is never lost with its picture.
    """

    def write(temporary: Path) -> None:
        draw_explanation(explanation).save(temporary, format="PNG")

    return try_to_write(path, write, key=("explanations", str(Path(path).parent)))


def draw_explanation(explanation: Explanation) -> Pillow.Image:
    """Answer and file above two panels: what the network saw, and where it looked for a class."""
    assert explanation.image is not None
    assert explanation.heat is not None
    seen = enlarge(explanation.image, PANEL)
    heated = lay_over(seen, explanation.heat)
    width = 2 * max(seen.width, PANEL) + 3 * MARGIN
    right = width // 2 + MARGIN // 2
    picture = Pillow.new("RGB", (width, seen.height + CAPTION + MARGIN), PAPER)
    picture.paste(Pillow.fromarray(text_panel(_caption(explanation, right), width, CAPTION)))
    picture.paste(seen, (MARGIN, CAPTION))
    picture.paste(heated, (right, CAPTION))
    return picture


def _caption(explanation: Explanation, right: int) -> list[tuple[int, int, int, str, str]]:
    """The lines above the panels, the right one of which begins at this pixel."""
    prediction, about = explanation.prediction, explanation.explained
    best = f"{literal(prediction.labels[0], TITLE_COLUMNS)}   {percent(prediction.scores[0])}"
    looked = f"where it looked for {literal(about.label, HEADING_COLUMNS)}"
    if about.class_id != prediction.class_ids[0]:
        looked += f" ({percent(about.score)})"
    return [
        (MARGIN, 10, TITLE, INK, best),
        (MARGIN, 50, NAME, FAINT, literal(Path(prediction.path).name, NAME_COLUMNS)),
        (MARGIN, 84, HEADING, INK, "what the network saw"),
        (right, 84, HEADING, INK, looked),
    ]


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
    scaled = Pillow.fromarray(heat.astype(np.float32)).resize(
        picture.size, Pillow.Resampling.BICUBIC
    )
    warm = np.asarray(scaled).clip(0, 1)
    heated = 255 * colour(warm, "turbo")
    # Cold places keep a part of the colour, so that the map reads as a whole.
    opacity = HEAT_OPACITY * (0.35 + 0.65 * warm[:, :, None])
    mixed = np.asarray(picture) * (1 - opacity) + heated * opacity
    return Pillow.fromarray(mixed.round().astype(np.uint8))

"""The one way to matplotlib: a picture is written, or a note says why not; nothing else changes.

No pyplot and none of its global state; a user's matplotlibrc, an unwritable home and matplotlib's
own warnings stay without effect. Names are drawn as they stand: no `$` begins a formula.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from densepath.caches import share_cache
from densepath.drawing.fonts import use_fonts
from densepath.errors import OutputError
from densepath.files import write_atomically
from densepath.notes import say_once
from densepath.wording import columns, fitting, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

share_cache()  # before anybody imports matplotlib

DPI = 200
TITLE_POINTS, CAPTION_POINTS = 12, 8
INK, FAINT, LINE = "#1c2330", "#6b7482", "#e5e7eb"
BLUE, GREEN, RED, ORANGE, VIOLET = "#2166ac", "#1a7f43", "#c0392b", "#dd8452", "#8172b2"
# Settings that say where to draw, not how.
PLACES = ("backend", "backend_fallback", "interactive", "toolbar", "datapath")
_one_at_a_time = threading.RLock()


def save_picture(path: str | Path, draw: Callable[[], Figure], *, dpi: int = DPI) -> str | None:
    """Draw and write the PNG file `path`; on failure give the reason, as `try_to_write` does."""

    def write(temporary: Path) -> None:
        figure = draw()
        use_fonts(figure)
        figure.savefig(temporary, format="png", dpi=dpi, facecolor="white")

    return try_to_write(path, write)


def picture_bytes(draw: Callable[[], Figure], *, dpi: int = 100) -> bytes:
    """The figure as a PNG file in memory."""
    file = io.BytesIO()
    with plain_matplotlib():
        figure = draw()
        use_fonts(figure)
        figure.savefig(file, format="png", dpi=dpi, facecolor="white")
    return file.getvalue()


def try_to_write(
    path: str | Path, write: Callable[[Path], None], *, key: Hashable = None
) -> str | None:
    """Write the picture `path` by `write`, by a temporary file; gives the reason on failure.

    Raises nothing for any reason that lies in fonts, values, memory or the disk: what a picture
    shows stands in files of its own, which must not be lost with it. The reason is logged, once
    for each `key` where there is one.
    """
    path, older = Path(path), ""
    try:
        with plain_matplotlib(), write_atomically(path) as temporary:
            write(temporary)
    except Exception as error:
        with suppress(OSError):
            older = "; the one that stands there is older" * path.is_file()
        note = f"no picture {printable(str(path))}: {_reason(error)}{older}"
        say_once(note, key=key)
        return note
    return None


def _reason(error: Exception) -> str:
    """What failed, on one line."""
    cause = error.__cause__ if isinstance(error, OutputError) else error
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    if isinstance(cause, MemoryError):
        return "not enough memory"
    first = printable(str(error).strip().split("\n")[0])
    return f"{first} ({type(error).__name__})"


def new_figure(width: float, height: float, title: str, *caption: str, gap: float = 0.06) -> Figure:
    """A figure of this many inches, to be filled; what it shows stands above and below.

    Args:
        width, height: in inches, with title and caption.
        title: above, at the left; wrapped where it is wider than the figure.
        caption: paragraphs below, in small grey letters: what the reader needs to read it.
        gap: inches between its parts.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=gap, w_pad=gap)
    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(
        _wrapped(title, width, TITLE_POINTS, em=0.64),
        x=0.01,
        ha="left",
        fontsize=TITLE_POINTS,
        fontweight="bold",
        color=INK,
    )
    paragraphs = [_wrapped(text, width, CAPTION_POINTS, em=0.52) for text in caption if text]
    if paragraphs:
        figure.supxlabel(
            "\n".join(paragraphs),
            x=0.01,
            ha="left",
            fontsize=CAPTION_POINTS,
            color=FAINT,
            linespacing=1.4,
        )
    return figure


def explain_colours(axes: Axes, colours: Iterable[tuple[str, str]]) -> None:
    """Draw a key above the axes: (name, colour) of each kind of bar."""
    from matplotlib.patches import Patch

    axes.legend(
        handles=[Patch(color=colour, label=name) for name, colour in colours],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        frameon=False,
        fontsize=8.5,
    )


def _wrapped(text: str, width: float, points: float, *, em: float) -> str:
    """The text in lines that fit into so many inches; a column is `em` of the letters' size."""
    most = max(int(72 * width / (em * points)), 20)
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and columns(f"{lines[-1]} {word}") <= most:
            lines[-1] += f" {word}"
            continue
        while columns(word) > most:
            lines.append(fitting(word, most))
            word = word[len(lines[-1]) :]
        lines.append(word)
    return "\n".join(line for line in lines if line)


@contextmanager
def plain_matplotlib() -> Iterator[None]:
    """Give matplotlib its own defaults within the block; it reads no formulas, and says nothing."""
    with _one_at_a_time, quiet_matplotlib():
        import matplotlib

        defaults = matplotlib.rcParamsDefault
        settings = {name: defaults[name] for name in defaults if name not in PLACES}
        with matplotlib.rc_context({**settings, "text.parse_math": False}):
            yield


@contextmanager
def quiet_matplotlib() -> Iterator[None]:
    """Silence matplotlib within the block; missing characters are ours to tell."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def text_panel(
    lines: Sequence[tuple[int, int, int, str, str]], width: int, height: int
) -> NDArray[np.uint8]:
    """Text on white as an image, uint8 [height, width, 3].

    Args:
        lines: left edge, top edge and height of letters in pixels, colour, text.
        width, height: of the image in pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dots = 100
    with plain_matplotlib():
        figure = Figure(figsize=(width / dots, height / dots), dpi=dots, facecolor="white")
        for left, top, size, ink, text in lines:
            x, y = left / width, 1 - top / height
            figure.text(x, y, text, fontsize=72 * size / dots, color=ink, va="top")
        use_fonts(figure)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())
    return np.ascontiguousarray(pixels[:height, :width, :3])


def colour(values: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Values of 0 to 1, of any shape, as red, green and blue of 0 to 1 in a last axis."""
    with quiet_matplotlib():
        import matplotlib

        return matplotlib.colormaps[name](values)[..., :3]

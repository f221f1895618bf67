"""A picture of what 8 bits cost, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from densepath.drawing.picture import BLUE, INK, RED, explain_colours, new_figure, save_picture
from densepath.quantize.layers import lies_in
from densepath.quantize.sensitivity import Sensitivity
from densepath.wording import literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 8
NAME = 48
DPI = 110


def draw_sensitivity(
    found: Sequence[Sensitivity], kept: Collection[str], model: str, path: Path
) -> str | None:
    """Draw a bar a layer into `path` (.png); gives the reason if it cannot be.

    Args:
        found: the layers in the order of the network.
        kept: the names of modules that stay in float32, with all that lies in them.
        model: the network's name.
        path: of the picture.
    """
    return save_picture(path, lambda: _draw(found, kept, model), dpi=DPI)


def _draw(found: Sequence[Sensitivity], kept: Collection[str], model: str) -> Figure:
    """A bar a layer; the worst are named, those kept in float coloured."""
    in_float = [any(lies_in(one.name, name) for name in kept) for one in found]
    caption = (
        "Each bar: one layer rounded to 8 bits, alone, and the signal-to-noise ratio of the "
        "network's answers (logits) that is left. The lower the bar, the more that layer suffers; "
        "20 dB less is ten times the error."
    )
    title = f"{literal(model, 60)}: what 8 bits do to each layer"
    figure = new_figure(12, 5.4, title, caption)
    axes = figure.add_subplot()
    _draw_bars(axes, [one.snr_db for one in found], in_float)
    _name_worst(axes, found)
    counts = (("in INT8", BLUE, in_float.count(False)), ("kept in float32", RED, sum(in_float)))
    explain_colours(
        axes, [(f"{name}: {number}", colour) for name, colour, number in counts if number]
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_bars(axes: Axes, ratios: Sequence[float], in_float: Sequence[bool]) -> None:
    """Draw a bar a layer, in the colour of what becomes of it."""
    from matplotlib.ticker import MaxNLocator

    finite = [ratio for ratio in ratios if math.isfinite(ratio)] or [0.0, 1.0]
    bottom = max(0.0, min(finite) - 6)
    heights = [max(ratio, bottom) for ratio in ratios]
    colours = [RED if kept else BLUE for kept in in_float]
    axes.bar(range(1, len(ratios) + 1), heights, color=colours, width=0.85)
    axes.set_xlim(0, len(ratios) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylim(bottom, max(finite) + 0.06 * max(max(finite) - bottom, 1.0))
    axes.set_xlabel("layer, in the order of the network")
    axes.set_ylabel(f"signal to noise of the logits, dB{' (axis cut)' if bottom else ''}")


def _name_worst(axes: Axes, found: Sequence[Sensitivity]) -> None:
    """Name the most sensitive layers beside the bars, by number and name."""
    worst = sorted(range(len(found)), key=lambda place: found[place].snr_db)[:NAMED]
    lines = [f"{found[i].snr_db:5.1f} dB  {i + 1}: {literal(found[i].name, NAME)}" for i in worst]
    text = "\n".join(["most sensitive:", *lines])
    place = axes.text(1.01, 0.98, text, transform=axes.transAxes, va="top")
    place.set(fontsize=7.5, color=INK, linespacing=1.5)

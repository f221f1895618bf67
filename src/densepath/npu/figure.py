"""A program's layers as a picture: what each costs, what bounds it, and which operators it is."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from densepath.drawing.picture import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    RED,
    VIOLET,
    explain_colours,
    new_figure,
    save_picture,
)
from densepath.npu.profile import Profile
from densepath.wording import literal, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"compute": BLUE, "SRAM": ORANGE, "DRAM": RED, "flash": VIOLET, "CPU": GREEN}
# Of the columns that stand for layers whose time nobody knows.
PALE = 0.25
MOST_OPERATORS = 8
MOST_NAMED = 5
NAME, WIDE = 60, 90
DPI = 110


def draw_profile(made: Profile, path: Path) -> str | None:
    """`path` (.png) shows every layer's time by what bounds it, and how the time adds up.

    Gives the reason if it cannot be drawn or written.
    """
    return save_picture(path, lambda: _draw(made), dpi=DPI)


def _draw(made: Profile) -> Figure:
    """The layers above, the kinds of operators below."""
    described = made.program.description
    target = described.target
    title = (
        f"{literal(described.model, NAME)} on {literal(target.name, NAME)}: "
        f"{described.estimate.inference_ms:.2f} ms an image{' on the NPU' if made.on_cpu else ''}, "
        "estimated"
    )
    caption = (
        "Above: the time of each layer, in the colour of what it waits for (the multipliers, or a "
        "memory); grey: the time so far. Below: the share of all cycles by kind of operator. "
        f"{percent(made.utilisation())} of {target.macs_per_cycle} multipliers work."
    )
    if made.on_cpu:
        caption += f" Pale green, {made.not_counted}, whose time only a board tells."
    memory = literal(f"{target.system_config}, {target.memory_mode}", WIDE)
    figure = new_figure(13, 8, title, caption, f"Memory system and mode of Vela: {memory}.")
    top, bottom = figure.subplots(2, 1, height_ratios=(2.2, 1))
    _draw_layers(top, made)
    _draw_operators(bottom, made)
    return figure


def _draw_layers(axes: Axes, made: Profile) -> None:
    """A bar a layer, and the time so far as a line."""
    from matplotlib.ticker import MaxNLocator

    times = [made.milliseconds(layer) for layer in made.layers]
    numbers = range(1, len(times) + 1)
    colours = [COLOURS.get(layer.bound_by, INK) for layer in made.layers]
    axes.bar(numbers, times, color=colours, width=0.9)
    for number, layer in zip(numbers, made.layers, strict=True):
        if not layer.on_npu:
            axes.axvspan(number - 0.45, number + 0.45, color=GREEN, alpha=PALE, linewidth=0)
    axes.set_xlabel("layer, in the order they run")
    axes.set_ylabel("time, ms")
    axes.set_xlim(0, len(times) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    line = axes.twinx()
    sums = list(accumulate(times))
    line.plot(numbers, sums, color=FAINT, linewidth=1.4)
    line.set_ylabel("time so far, ms", color=FAINT)
    line.set_ylim(0, 1.05 * max(sums, default=0) or 1.0)
    meanings = [
        (f"{name}-bound: {percent(share, 0)} of the cycles", COLOURS.get(name, INK))
        for name, share in made.share_by("bound_by").items()
    ]
    if made.on_cpu:
        meanings.append(("on the CPU: not counted", GREEN))
    explain_colours(axes, meanings)
    for one in (axes, line):
        one.spines["top"].set_visible(False)


def _draw_operators(axes: Axes, made: Profile) -> None:
    """A bar a kind of operator, the costliest at the top."""
    shares = list(made.share_by("operator").items())[:MOST_OPERATORS]
    places = range(len(shares))
    axes.barh(places, [100 * share for _, share in shares], color=FAINT, height=0.7)
    axes.set_yticks(places, [literal(name, NAME) for name, _ in shares])
    axes.invert_yaxis()
    axes.set_xlabel("share of the cycles, %")
    for place, (_, share) in zip(places, shares, strict=True):
        axes.text(100 * share + 0.3, place, percent(share), va="center", fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    costliest = sorted(made.on_npu, key=lambda one: -one.cycles)[:MOST_NAMED]
    lines = [f"{made.milliseconds(one):.3f} ms  {literal(one.name, NAME)}" for one in costliest]
    said = axes.text(0.99, 0.04, "\n".join(["costliest layers:", *lines]), ha="right", va="bottom")
    said.set(transform=axes.transAxes, fontsize=7.5, color=INK, linespacing=1.5)

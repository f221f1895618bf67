"""A report's pictures: confusion matrix, reliability, the worst mistakes, per-class bars.

Drawn with matplotlib's Figure alone, without its global state, at twice the size of a page.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from densepath.files import write_atomically
from densepath.predictions import printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from densepath.evaluation.report import Mistake, Report

DPI = 200
INK, FAINT, BLUE, GREEN, RED = "#1c2330", "#8a93a3", "#2166ac", "#1a7f43", "#c0392b"
# From this many classes on, cells are too small for numbers, and then for names.
MOST_NUMBERED, MOST_NAMED = 20, 60
MOST_BARS = 40
GRID_COLUMNS = 4


def save_all(report: Report, folder: Path) -> list[tuple[str, str]]:
    """The pictures that the report has data for are in the folder: (file, title) of each."""
    made = []
    if report.confusion is not None:
        made.append(("confusion.png", "Confusion matrix", draw_confusion(report)))
    if report.reliability:
        made.append(("reliability.png", "Reliability", draw_reliability(report)))
    if report.mistakes:
        made.append(("mistakes.png", "Worst mistakes", draw_mistakes(report.mistakes)))
    made.append(("per_class.png", "Classes", draw_classes(report)))
    for file, _, figure in made:
        with write_atomically(folder / file) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")
    return [(file, title) for file, title, _ in made]


def draw_confusion(report: Report) -> Figure:
    """Shares of each true class (row), by answer (column)."""
    matrix = report.confusion
    assert matrix is not None
    classes = len(matrix)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(max(3.2 + 0.42 * classes, 5.0), 12.0)
    figure = _new_figure(side + 0.9, side)
    axes = figure.subplots()
    # Small shares are what one looks for: the square root makes them visible.
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    ticks = (0, 0.01, 0.05, 0.2, 0.5, 1)
    bar.set_ticks(np.sqrt(ticks).tolist(), labels=[f"{tick:.0%}" for tick in ticks])
    bar.outline.set_visible(False)
    axes.set(xlabel="answered", ylabel="true class")
    axes.set_title(f"Confusion: top-1 {report.figures['top1']:.2%} of {report.images:,} images")
    _name_classes(axes, report.labels)
    if classes <= MOST_NUMBERED:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if shares[row, column] > 0.35 else INK
                axes.text(
                    column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8
                )
    return figure


def draw_reliability(report: Report) -> Figure:
    """Accuracy against confidence, and below how many answers have that confidence."""
    from matplotlib.ticker import PercentFormatter

    figure = _new_figure(5.4, 6.2)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = [part for part in report.reliability if part.count]
    middles = [(part.low + part.high) / 2 for part in bins]
    width = 0.92 * (report.reliability[0].high - report.reliability[0].low)
    accuracies = np.array([part.accuracy for part in bins], float)
    confidences = np.array([part.confidence for part in bins], float)
    top.bar(middles, accuracies, width, color=BLUE, alpha=0.85, label="accuracy")
    gaps, lows = abs(accuracies - confidences), np.minimum(accuracies, confidences)
    outline = {"edgecolor": RED, "facecolor": (*_rgb(RED), 0.25), "linewidth": 1.0}
    top.bar(middles, gaps, width, bottom=lows, label="gap to the confidence", **outline)
    top.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle="--", label="calibrated")
    error = report.figures["calibration_error"]
    assert error is not None
    top.set_title(f"Reliability: expected calibration error {error:.2%}", pad=26)
    top.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    top.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=3, fontsize=8.5)
    top.yaxis.set_major_formatter(PercentFormatter(1))
    top.xaxis.set_major_formatter(PercentFormatter(1))
    bottom.bar(middles, [part.count for part in bins], width, color=FAINT)
    bottom.set(xlabel="confidence of the answer", ylabel="images", yscale="log")
    bottom.set_ylim(bottom=0.7)
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_mistakes(mistakes: list[Mistake]) -> Figure:
    """A grid of pictures with the true class and the wrong answer."""
    rows = -(-len(mistakes) // GRID_COLUMNS)
    columns = min(len(mistakes), GRID_COLUMNS)
    figure = _new_figure(2.45 * max(columns, 2), 2.95 * rows + 0.45)
    figure.suptitle("Worst mistakes", color=INK, fontsize=13)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, mistake in zip(grid, mistakes, strict=False):
        _draw_mistake(axes, mistake)
    return figure


def _draw_mistake(axes: Axes, mistake: Mistake) -> None:
    """One picture of the grid."""
    if mistake.image is not None:
        pixels = mistake.image[:, :, :3] if mistake.image.shape[2] >= 3 else mistake.image[:, :, 0]
        small = max(pixels.shape[:2]) <= 64
        axes.imshow(
            pixels,
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest" if small else "antialiased",
        )
    true, said = (shorten(printable(text), 22) for text in (mistake.label, mistake.predicted))
    axes.text(0, 1.115, f"is {true}", color=GREEN, transform=axes.transAxes, fontsize=9.5)
    text = f"said {said}, {mistake.score:.0%}"
    axes.text(0, 1.03, text, color=RED, transform=axes.transAxes, fontsize=9.5)


def draw_classes(report: Report) -> Figure:
    """F1 of each class as a bar, the weakest first; of many classes the weakest."""
    rows = [row for row in report.per_class if row["support"] and row["f1"] is not None]
    rows = sorted(rows, key=lambda row: row["f1"])[:MOST_BARS]
    figure = _new_figure(6.4, 1.2 + 0.27 * max(len(rows), 2))
    axes = figure.subplots()
    names = [shorten(printable(row["label"]), 30) for row in rows]
    positions = np.arange(len(rows))
    axes.barh(positions, [row["f1"] for row in rows], color=BLUE, alpha=0.85, height=0.72)
    axes.set_yticks(positions, names, fontsize=8.5)
    for position, row in enumerate(rows):
        text = f"{row['f1'] * 100:.1f} %, {row['support']:,} image{'s'[: row['support'] != 1]}"
        axes.text(row["f1"] + 0.01, position, text, va="center", color=INK, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.28), xlabel="F1")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.spines[["top", "right"]].set_visible(False)
    shown = "" if len(rows) == len(report.per_class) else f", the {len(rows)} lowest"
    axes.set_title(f"F1 of each class{shown}")
    return figure


def _rgb(colour: str) -> tuple[float, float, float]:
    """`#rrggbb` as three shares."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red / 255, green / 255, blue / 255


def _name_classes(axes: Axes, labels: list[str]) -> None:
    """Class names on both axes, as long as they can be read."""
    if len(labels) > MOST_NAMED:
        return
    names = [shorten(printable(label), 18) for label in labels]
    size = 9 if len(labels) <= 30 else 6
    turned = max(map(len, names)) > 3
    axes.set_xticks(
        range(len(names)),
        names,
        rotation=45 if turned else 0,
        ha="right" if turned else "center",
        rotation_mode="anchor" if turned else None,
        fontsize=size,
    )
    axes.set_yticks(range(len(names)), names, fontsize=size)


def _new_figure(width: float, height: float) -> Figure:
    """An empty figure of this many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")

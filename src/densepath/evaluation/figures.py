"""A report's pictures: confusion matrix, reliability, the worst mistakes, per-class bars.

Each says in its title and caption what it shows; `PICTURES` has it in words for the README, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from densepath.drawing.picture import BLUE, FAINT, GREEN, INK, RED, new_figure, save_picture
from densepath.evaluation.curve_figures import (
    Ranked,
    draw_calibration,
    draw_precision_recall,
    draw_roc,
)
from densepath.evaluation.mistake import Mistake
from densepath.metrics.metrics import Bin
from densepath.wording import counted, literal, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# From this many classes on, cells are too small for numbers, and then for names.
MOST_NUMBERED, MOST_NAMED = 20, 60
MOST_BARS = 40
GRID_COLUMNS = 4
NO_IMAGES, TOO_SURE, TOO_UNSURE = "#d9dce1", "#eba79f", "#f6c794"
# Columns of text that fit: a report's subject and data, names at axes, over a mistake.
WIDE, AXIS_NAME, BAR_NAME, CELL = 70, 18, 30, 24


class Drawn(Ranked, Protocol):
    """What is drawn of a Report; its own docstring says what each attribute is."""

    @property
    def labels(self) -> list[str]: ...
    @property
    def confusion(self) -> NDArray[np.int64] | None: ...
    @property
    def mistakes(self) -> list[Mistake]: ...


@dataclass(frozen=True)
class Picture:
    """A picture of a report.

    Attributes:
        file: its name in the report's folder.
        title: a heading.
        words: how to read it, in a sentence or two.
        draw: makes it.
        has_data: whether the report has something to draw.
    """

    file: str
    title: str
    words: str
    draw: Callable[[Drawn], Figure]
    has_data: Callable[[Drawn], bool]


def save_all(report: Drawn, folder: Path) -> list[Picture]:
    """The pictures that the report has data for are in the folder; gives those that are."""
    return [one for one in PICTURES if one.has_data(report) and _save(one, report, folder)]


def _save(picture: Picture, report: Drawn, folder: Path) -> bool:
    """Whether the picture is in the folder; a note says why not."""
    return save_picture(folder / picture.file, lambda: picture.draw(report)) is None


def draw_confusion(report: Drawn) -> Figure:
    """Shares of each true class (row), by answer (column)."""
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    matrix = report.confusion
    assert matrix is not None
    images = matrix.sum(1, keepdims=True)
    shares = np.where(images > 0, matrix / np.maximum(images, 1), np.nan)
    side = min(max(3.6 + 0.42 * len(matrix), 5.4), 12.0)
    title = f"Confusion: top-1 {_percent(report.figures['top1'], 2)}"
    caption = (
        "Rows: the true class. Columns: what the network answered. "
        + ("The number in a cell: images. " if len(matrix) <= MOST_NUMBERED else "")
        + "Colour: their share of the row, on a square-root scale so that rare mistakes are seen."
        + (" Grey rows: classes without images." if (images == 0).any() else "")
    )
    figure = new_figure(side + 0.9, side + 0.9, title, caption, _about(report))
    axes = figure.subplots()
    colours = colormaps["Blues"].copy()
    colours.set_bad(NO_IMAGES)
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap=colours, norm=norm, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    ticks = (0, 0.01, 0.05, 0.2, 0.5, 1)
    bar.set_ticks(ticks, labels=[_percent(tick) for tick in ticks])
    bar.set_label("share of the true class's images")
    bar.outline.set_visible(False)
    _name_classes(axes, report.labels)
    if len(matrix) <= MOST_NUMBERED:
        for (row, column), count in np.ndenumerate(matrix):
            ink = "white" if shares[row, column] > 0.35 else INK
            text = f"{count:,}" if count else ""
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)
    return figure


def draw_reliability(report: Drawn) -> Figure:
    """Accuracy against confidence, and below how many answers have that confidence."""
    from matplotlib.ticker import NullFormatter, PercentFormatter

    bins = [part for part in report.reliability if part.count]
    error = _percent(report.figures["calibration_error"], 2)
    several = report.confusion is None
    kind = "labels" if several else "images"
    caption = (
        "Each bar: the answers whose confidence (the score of the first class) lies there, and "
        "the share of them that is right. Of a calibrated network the blue bars end on the dashed "
        "line: of its answers with a confidence of 80 %, 80 % are right."
    )
    if several:
        caption = (
            "Each bar: the scores of all classes that lie there, and the share of them whose class "
            "the image has. Of a calibrated network the blue bars end on the dashed line: of the "
            "classes with a score of 80 %, 80 % are there."
        )
    title = f"Reliability: expected calibration error {error}"
    figure = new_figure(6.2, 7.2, title, caption, _about(report))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middles = [(part.low + part.high) / 2 for part in bins]
    width = 0.92 * (report.reliability[0].high - report.reliability[0].low)
    right = [part.accuracy or 0.0 for part in bins]
    label = "yeses" if several else "right answers"
    top.bar(middles, right, width, color=BLUE, alpha=0.85, label=label)
    _draw_gaps(top, bins, width)
    top.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle="--", label="calibrated", zorder=4)
    right_of = "share of yeses" if several else "share of right answers"
    top.set(ylabel=right_of, xlim=(0, 1), ylim=(0, 1.02))
    top.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=8.5)
    for axis in (top.xaxis, top.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    bottom.bar(middles, [part.count for part in bins], width, color=FAINT)
    of = "score of a class" if several else "confidence of the answer"
    bottom.set(xlabel=of, ylabel=f"{kind} (log scale)", yscale="log")
    bottom.set_ylim(bottom=0.7)
    bottom.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    bottom.yaxis.set_minor_formatter(NullFormatter())
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_gaps(axes: Axes, bins: Sequence[Bin], width: float) -> None:
    """What lies between accuracy and confidence, in a colour for each direction."""
    kinds = (
        (TOO_SURE, "overconfident: right less often", 1),
        (TOO_UNSURE, "underconfident: right more often", -1),
    )
    for colour, label, sign in kinds:
        gaps = [((part.confidence or 0.0) - (part.accuracy or 0.0), part) for part in bins]
        parts = [(abs(gap), part) for gap, part in gaps if sign * gap > 0]
        places = [(part.low + part.high) / 2 for _, part in parts]
        lows = [min(part.accuracy or 0.0, part.confidence or 0.0) for _, part in parts]
        heights = [gap for gap, _ in parts]
        axes.bar(places, heights, width, bottom=lows, color=colour, zorder=3)
        # Bars that are not there would stand in the legend in some other colour.
        axes.bar(0, 0, color=colour, label=label)


def draw_mistakes(report: Drawn) -> Figure:
    """A grid of images with the true class, the wrong answer and the file."""
    mistakes = report.mistakes
    rows, columns = -(-len(mistakes) // GRID_COLUMNS), min(max(len(mistakes), 2), GRID_COLUMNS)
    title = f"The {len(mistakes)} worst mistakes" if len(mistakes) > 1 else "The one mistake"
    caption = (
        "Wrong answers with the highest loss, the worst first, as the network saw them. Green: "
        "the true class. Red: the answer and its score. Grey: the file."
    )
    size = (2.5 * columns, 3.3 * rows + 1.2)
    figure = new_figure(*size, title, caption, _about(report), gap=0.16)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, mistake in zip(grid, mistakes, strict=False):
        _draw_mistake(axes, mistake)
    return figure


def _draw_mistake(axes: Axes, mistake: Mistake) -> None:
    """One image of the grid."""
    if mistake.image is not None:
        pixels = mistake.image[:, :, :3] if mistake.image.shape[2] >= 3 else mistake.image[:, :, 0]
        small = max(pixels.shape[:2]) <= 64
        smooth = "nearest" if small else "antialiased"
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation=smooth)
    lines = (
        ((0, 1), (0, 16), GREEN, 9, f"true: {literal(mistake.label, CELL)}"),
        ((0, 1), (0, 4), RED, 9, f"said: {_said(mistake)}"),
        ((0, 0), (0, -9), FAINT, 7, literal(Path(mistake.path).name, CELL + 11)),
    )
    for corner, shift, colour, size, text in lines:
        axes.annotate(
            text,
            corner,
            xytext=shift,
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            fontsize=size,
        )


def _said(mistake: Mistake) -> str:
    """The answer and its score."""
    return f"{literal(mistake.predicted, CELL - 6)}, {_percent(mistake.score)}"


def draw_classes(report: Drawn) -> Figure:
    """F1 of each class as a bar, the weakest first; of many classes the weakest."""
    known = [row for row in report.per_class if row["support"] and row["f1"] is not None]
    rows = sorted(known, key=lambda row: row["f1"])[:MOST_BARS]
    some = f", the {len(rows)} lowest of {len(known):,}" if len(rows) < len(known) else ""
    without = len(report.per_class) - len(known)
    caption = (
        "F1: the harmonic mean of precision (how many of the answers with this class are right) "
        "and recall (how many images of this class are found). The weakest class is at the top."
        + (f" Classes without images, which are not shown: {without:,}." if without else "")
    )
    height = 1.9 + 0.27 * max(len(rows), 2)
    figure = new_figure(7.2, height, f"F1 of each class{some}", caption, _about(report))
    axes = figure.subplots()
    places = np.arange(len(rows))
    axes.barh(places, [row["f1"] for row in rows], color=BLUE, alpha=0.85, height=0.72)
    axes.set_yticks(places, [literal(row["label"], BAR_NAME) for row in rows], fontsize=8.5)
    for place, row in enumerate(rows):
        images = counted(row["support"], "image")
        text = f"{_percent(row['f1'], 1)}, {images}"
        axes.text(row["f1"] + 0.01, place, text, va="center", color=INK, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.32), xlabel="F1")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, [_percent(tick) for tick in ticks])
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _name_classes(axes: Axes, labels: Sequence[str]) -> None:
    """Class names on both axes, as long as they can be read; numbers of them otherwise."""
    axes.set(xlabel="answered", ylabel="true class")
    if len(labels) > MOST_NAMED:
        numbered = "number, from 0: the columns of confusion.csv in their order"
        axes.set(xlabel=f"answered ({numbered})", ylabel="true class (number)")
        return
    names = [literal(label, AXIS_NAME) for label in labels]
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


def _about(report: Drawn) -> str:
    """What was measured on what."""
    subject, data = literal(report.subject, WIDE), literal(report.data, WIDE)
    return f"{subject} on {data}; images measured: {report.images:,}."


def _percent(share: float | None, digits: int = 0) -> str:
    """`98.33 %`."""
    return "undefined" if share is None else percent(share, digits)


PICTURES = (
    Picture(
        "confusion.png",
        "Confusion matrix",
        "A row is a true class, a column an answer: what lies off the diagonal was mistaken. The "
        "colour is the share of the row's images, on a square-root scale that makes rare mistakes "
        "visible; `confusion.csv` has the counts.",
        draw_confusion,
        lambda report: report.confusion is not None,
    ),
    Picture(
        "reliability.png",
        "Reliability",
        "Whether the scores mean what they say. A bar is the share of right answers among those "
        "of like confidence; red is what is missing to the confidence (overconfident), orange "
        "what is beyond it (underconfident). Below: how many answers have that confidence.",
        draw_reliability,
        lambda report: any(part.count for part in report.reliability),
    ),
    Picture(
        "mistakes.png",
        "Worst mistakes",
        "The wrong answers with the highest loss, as the network saw them: the true class in "
        "green, the answer and its score in red, the file in grey. Wrong labels show here first.",
        draw_mistakes,
        lambda report: bool(report.mistakes),
    ),
    Picture(
        "per_class.png",
        "Classes",
        "F1 of each class that has images, the weakest first: the harmonic mean of precision and "
        "recall, which `per_class.csv` has one by one.",
        draw_classes,
        lambda report: any(row["support"] for row in report.per_class),
    ),
    Picture(
        "roc.png",
        "ROC curves",
        "For each class which share of its images is found, against the share of all others that "
        "is taken for it, over all thresholds. The area below is the AUROC: 100 % where every "
        "image of the class scores above every other, 50 % by chance.",
        draw_roc,
        lambda report: bool(report.curves),
    ),
    Picture(
        "precision_recall.png",
        "Precision and recall",
        "For each class how many of the answers with it are right, against the share of its images "
        "that is found, over all thresholds. The area below is about the average precision.",
        draw_precision_recall,
        lambda report: bool(report.curves),
    ),
    Picture(
        "calibration.png",
        "Calibration before and after",
        "Scores against the share that is right, before the temperature was fitted on these images "
        "and after: on the dashed line scores mean what they say.",
        draw_calibration,
        lambda report: any(part.count for part in report.reliability_before),
    ),
)

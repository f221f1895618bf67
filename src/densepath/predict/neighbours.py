"""Which images look alike to the network: the nearest by their features, and a picture of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from densepath.drawing.picture import FAINT, INK, new_figure
from densepath.errors import UsageError, check_count
from densepath.images.preprocess import Image
from densepath.wording import literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEAREST = 5
MOST_QUERIES = 6
CHUNK = 256  # queries that are compared with all at once
NAME_COLUMNS = 20


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of each query.

    Attributes:
        queries: int64 [Q], rows of the features.
        nearest: int64 [Q, k], rows of the features, the nearest first; a query is not its own.
        distances: float32 [Q, k], 1 minus the cosine of the angle between the features: 0 alike,
            1 nothing in common.
    """

    queries: NDArray[np.int64]
    nearest: NDArray[np.int64]
    distances: NDArray[np.float32]


def find_neighbours(
    features: NDArray[np.float32],
    queries: Sequence[int] | None = None,
    *,
    k: int = NEAREST,
) -> Neighbours:
    """The `k` nearest of all images for each query, or fewer where there are no more.

    Args:
        features: [N, C], a row an image, as `predict --features` writes them.
        queries: rows; all by default.
        k: how many.

    Raises:
        UsageError: fewer than two images, no such row, or features that are no numbers.
    """
    check_count("k", k)
    count = len(features)
    if features.ndim != 2 or count < 2:
        raise UsageError(
            f"the features are {features.shape}; neighbours need those of two images at least, "
            "[images, channels]."
        )
    if not np.isfinite(features).all():
        raise UsageError("some features are no numbers, of damaged weights most likely.")
    rows = np.arange(count) if queries is None else np.asarray(queries, np.int64)
    if len(rows) and not 0 <= rows.min() <= rows.max() < count:
        raise UsageError(f"queries are rows from 0 to {count - 1}.")
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(lengths, np.finfo(np.float32).tiny)
    most = min(k, count - 1)
    nearest = np.empty((len(rows), most), np.int64)
    distances = np.empty((len(rows), most), np.float32)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        apart = 1 - unit[part] @ unit.T
        apart[np.arange(len(part)), part] = np.inf
        order = np.argsort(apart, axis=1, kind="stable")[:, :most]
        nearest[start : start + CHUNK] = order
        distances[start : start + CHUNK] = np.take_along_axis(apart, order, axis=1)
    return Neighbours(rows, nearest, np.maximum(distances, 0))


def spread_queries(count: int, most: int = MOST_QUERIES) -> list[int]:
    """At most so many of `count` rows, evenly."""
    return sorted({int(row) for row in np.linspace(0, count - 1, min(count, most)).round()})


def draw_neighbours(
    found: Neighbours,
    *,
    image_of: Callable[[int], Image],
    names: Sequence[str],
    labels: Sequence[str],
) -> Figure:
    """A row a query: the image, then its nearest with distance, answer and file.

    Args:
        found: at least one query.
        image_of: a row's image, uint8 HWC.
        names, labels: of each row, the file and the network's answer.
    """
    rows, columns = len(found.queries), 1 + found.nearest.shape[1]
    figure = new_figure(
        1.75 * columns,
        2.1 * rows + 0.9,
        f"Nearest neighbours of {rows} of {len(names):,} images",
        "Left the query, then the images whose features (the mean over the last map) point most "
        "nearly the same way, the nearest first. Distance: 1 minus the cosine of the angle; 0 is "
        "the same direction, 1 nothing in common. The class is the network's answer; green: the "
        "same as the query's.",
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, query, nearest, distances in zip(
        grid, found.queries, found.nearest, found.distances, strict=True
    ):
        _show(axes[0], image_of(query), "query", labels[query], names[query], INK)
        for place, row, distance in zip(axes[1:], nearest, distances, strict=True):
            colour = "#1a7f43" if labels[row] == labels[query] else FAINT
            _show(place, image_of(row), f"{distance:.3f}", labels[row], names[row], colour)
    return figure


def _show(axes: Axes, image: Image, title: str, label: str, name: str, colour: str) -> None:
    """Draw one image with what is said of it."""
    gray = image.shape[2] == 1
    axes.imshow(image[:, :, 0] if gray else image, cmap="gray" if gray else None)
    axes.set_title(f"{title}\n{literal(label, NAME_COLUMNS)}", fontsize=8, color=colour)
    axes.set_xlabel(literal(name, NAME_COLUMNS), fontsize=6.5, color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)

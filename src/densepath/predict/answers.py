"""Answers: logits become named, sorted classes, and these become JSON lines, CSV or a table.

On the line: every engine ends here, whatever the runtime; evaluation, the command line and the
servers write what is made here. Writers take answers one by one and keep none, nor does a buffer:
whoever reads a pipe has an answer when it is made.
"""

from __future__ import annotations

import base64
import csv
import json
import operator
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.choices import TOP_K, AnswerFormat
from densepath.errors import UnknownNameError, UsageError
from densepath.names import readable, to_json
from densepath.wording import percent, printable, shorten

Writer: TypeAlias = Callable[..., None]  # of predictions, a file and how many classes of each

SCORE_DIGITS = 6
LABEL_WIDTH = 32
SEPARATOR = "|"  # of several labels in a cell, as tables of images have them
NOT_A_NUMBER = "the network's answer is not a number"


@dataclass(frozen=True, slots=True)
class Prediction:
    """The best classes of one image, the likeliest first; or why it has none.

    Attributes:
        path: the image, as it was named.
        class_ids: the classes' positions among the logits.
        labels: their names.
        scores: their probabilities, 0 to 1: of one class among all, or, from a multi-label
            network, of each class by itself.
        error: why the image could not be answered; then the lists are empty.
        positive_ids: all classes whose scores are above their thresholds, the likeliest first,
            whether `class_ids` has them or not; None where no thresholds were chosen.
        positive_labels: their names.
    """

    path: str
    class_ids: list[int]
    labels: list[str]
    scores: list[float]
    error: str | None = None
    positive_ids: list[int] | None = None
    positive_labels: list[str] | None = None

    @classmethod
    def failed(cls, path: str, error: str) -> Prediction:
        """The answer for an image that could not be read."""
        return cls(path, [], [], [], error)

    def to_dict(self) -> dict[str, Any]:
        """`path, class_ids, labels, scores` (6 digits); for a failure `path, error`.

        With thresholds also `positive_ids, positive_labels`.
        A path that is no text is there as `readable` shows it, and its bytes as `path_base64`.
        """
        named = {"path": readable(self.path)}
        if named["path"] != self.path:
            named["path_base64"] = base64.b64encode(os.fsencode(self.path)).decode()
        if self.error is not None:
            return {**named, "error": readable(self.error)}
        values = {
            **named,
            "class_ids": self.class_ids,
            "labels": [readable(label) for label in self.labels],
            "scores": [round(score, SCORE_DIGITS) for score in self.scores],
        }
        if self.positive_ids is None:
            return values
        labels = [readable(label) for label in self.positive_labels or ()]
        return {**values, "positive_ids": self.positive_ids, "positive_labels": labels}


class ClassScore(NamedTuple):
    """A class and its probability for an image.

    Attributes:
        class_id: its position among the logits.
        label: its name.
        score: 0 to 1.
    """

    class_id: int
    label: str
    score: float


def find_class(labels: Sequence[str], wanted: str | int) -> int:
    """The position of a class that is named, or numbered from 0.

    A name goes before a number (of the digits, "3" is the class called so), the exact name before
    one that differs in capitals or in how its accents are encoded.

    Raises:
        UnknownNameError: no class is called so; says the nearest names.
        UsageError: several are, or the number is too high or below 0.
    """
    if isinstance(wanted, str):
        same = [place for place, label in enumerate(labels) if label == wanted]
        same = same or [i for i, label in enumerate(labels) if _folded(label) == _folded(wanted)]
        if len(same) > 1:
            raise UsageError(
                f"{len(same)} classes are called {wanted!r}; give one's number: "
                f"{', '.join(map(str, same))}."
            )
        if same:
            return same[0]
        if not re.fullmatch(r"-?[0-9]{1,9}", wanted):
            raise UnknownNameError("class", wanted, labels)
    number = operator.index(wanted) if not isinstance(wanted, str) else int(wanted)
    if not 0 <= number < len(labels):
        raise UsageError(
            f"there is no class {wanted}: the {len(labels):,} classes are numbered from 0 to "
            f"{len(labels) - 1}."
        )
    return number


def _folded(text: str) -> str:
    """The name without regard to capitals and encoding."""
    return unicodedata.normalize("NFC", text.strip()).casefold()


def probabilities(
    logits: NDArray[Any], *, multi_label: bool = False, temperature: float | None = None
) -> NDArray[np.float64]:
    """Logits [N, classes] → probabilities of the same shape: softmax, or sigmoid of each.

    They are divided by `temperature` before, where there is one.
    """
    values = np.asarray(logits, dtype=np.float64)
    if temperature is not None:
        values = values / temperature
    if multi_label:
        return np.exp(-np.logaddexp(0.0, -values))
    with np.errstate(invalid="ignore"):
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def answer(
    logits: NDArray[Any],
    paths: Sequence[str],
    labels: Sequence[str],
    *,
    top_k: int = TOP_K,
    multi_label: bool = False,
    thresholds: Sequence[float] | None = None,
    temperature: float | None = None,
) -> list[Prediction]:
    """One prediction for each row of logits [N, classes]; of equal scores the lower class first.

    Fewer than `top_k` classes: all of them. A row that holds NaN becomes a failure. With
    `thresholds`, one a class, each says which classes are above theirs.
    """
    shares = probabilities(logits, multi_label=multi_label, temperature=temperature)
    ranked = np.argsort(-shares, axis=1, kind="stable")
    order = ranked[:, :top_k]
    best = np.take_along_axis(shares, order, axis=1)
    whole = [bool(row.all()) for row in np.isfinite(shares)]
    positive = _positive(shares, ranked, thresholds)
    return [
        Prediction(path, ids, [labels[i] for i in ids], scores, None, *_named(yes, labels))
        if is_whole
        else Prediction.failed(path, NOT_A_NUMBER)
        for path, ids, scores, yes, is_whole in zip(
            paths, order.tolist(), best.tolist(), positive, whole, strict=True
        )
    ]


def _positive(
    shares: NDArray[np.float64], ranked: NDArray[np.int64], thresholds: Sequence[float] | None
) -> list[list[int] | None]:
    """Of each row the classes above their thresholds, in the order of `ranked`."""
    if thresholds is None:
        return [None] * len(shares)
    above = np.take_along_axis(shares > np.asarray(thresholds), ranked, axis=1)
    return [row[yes].tolist() for row, yes in zip(ranked, above, strict=True)]


def _named(
    ids: list[int] | None, labels: Sequence[str]
) -> tuple[list[int], list[str]] | tuple[None, None]:
    """The classes with their names; two times None where nothing was decided."""
    return (None, None) if ids is None else (ids, [labels[i] for i in ids])


def write_json_lines(
    predictions: Iterable[Prediction], file: TextIO, top_k: int, *, decides: bool = False
) -> None:
    """One JSON object a line, as `Prediction.to_dict` makes it."""
    for prediction in predictions:
        text = to_json(prediction.to_dict(), allow_nan=False)
        if not text.isprintable():
            # What would break a line, or a terminal, in a name: the whole line in ASCII.
            text = json.dumps(prediction.to_dict(), allow_nan=False)
        file.write(text + "\n")
        file.flush()


def write_csv(
    predictions: Iterable[Prediction], file: TextIO, top_k: int, *, decides: bool = False
) -> None:
    """One row an image: path, error, then class_id, label and score of each of the `top_k`.

    With `decides` a last column has the labels of all classes above their thresholds.
    """
    writer = csv.writer(file, lineterminator="\n")
    numbers = range(1, top_k + 1)
    titles = [f"{name}_{n}" for n in numbers for name in ("class_id", "label", "score")]
    writer.writerow(["path", "error", *titles, *["positive_labels"] * decides])
    for prediction in predictions:
        values = prediction.to_dict()
        ranked = zip(
            prediction.class_ids, values.get("labels", ()), values.get("scores", ()), strict=False
        )
        cells = [cell for triple in ranked for cell in triple]
        path = printable(prediction.path)
        blanks = [""] * (len(titles) - len(cells))
        positive = [SEPARATOR.join(values.get("positive_labels", ()))] if decides else []
        writer.writerow([path, readable(prediction.error or ""), *cells, *blanks, *positive])
        file.flush()


def write_table(
    predictions: Iterable[Prediction], file: TextIO, top_k: int, *, decides: bool = False
) -> None:
    """A line a class, the likeliest first; the image is named on the first of its lines.

    A score above its class's threshold has a star.
    """
    file.write(f"{'score':>7}  {'class':<{LABEL_WIDTH}}  image\n")
    for prediction in predictions:
        path = printable(prediction.path)
        if prediction.error is not None:
            file.write(f"{'':>7}  {'':<{LABEL_WIDTH}}  {path}: {printable(prediction.error)}\n")
        positive = set(prediction.positive_ids or ())
        for class_id, label, score in zip(
            prediction.class_ids, prediction.labels, prediction.scores, strict=True
        ):
            name = shorten(printable(label), LABEL_WIDTH)
            star = "*" if class_id in positive else " "
            line = f"{percent(score):>7}{star} {name:<{LABEL_WIDTH}}  {path}"
            file.write(line.rstrip() + "\n")
            path = ""
        file.flush()


WRITERS: dict[AnswerFormat, Writer] = {
    "table": write_table,
    "json": write_json_lines,
    "csv": write_csv,
}

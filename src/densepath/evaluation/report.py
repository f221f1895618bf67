"""The Report of an evaluation, and the folder that it becomes."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.evaluation import figures
from densepath.evaluation.figures import Picture
from densepath.evaluation.measured import Overlap
from densepath.evaluation.mistake import Mistake
from densepath.files import write_json, write_text
from densepath.metrics.metrics import Bin, Share, largest_confusions, top5_tells
from densepath.metrics.ranking import Curve
from densepath.wording import in_markdown, percent

MOST_CONFUSIONS = 10


@dataclass(frozen=True)
class Report:
    """How well a network does on a data set.

    Attributes:
        subject: what was evaluated.
        data: the data set in one sentence.
        labels: the class names, in the order of the logits.
        images: how many were answered.
        skipped: (path, reason) of those that could not be read.
        figures: single-label: `top1, top5, loss, macro_precision, macro_recall, macro_f1,
            calibration_error`; multi-label: `loss, exact_match, micro_f1, macro_f1, macro_auroc,
            mean_average_precision, threshold` (that of all classes). Where classes were ranked
            also `macro_auroc` and `mean_average_precision` with the ends of their intervals,
            `..._low` and `..._high`. Shares are 0 to 1; None where undefined.
        per_class: a row a class: `label, precision, recall, f1, support`; where classes were ranked
            `auroc, average_precision` with the ends of their intervals; `threshold` where each has
            its own, and `known` where not all labels are.
        confusion: int64 [classes, classes], rows true, columns answered; None: multi-label.
        reliability: the calibration bins: of the first class's score, or of a multi-label network
            of the scores of all classes.
        mistakes: the worst, the worst first.
        settings: size, crop, pooling and all else that the figures depend on.
        images_per_second: with reading and resizing.
        overlap: how many of the images the network was trained on; None where nobody asked.
        engine, precision: what computed the answers, and in which type; empty of a function.
        reliability_before: the bins before a temperature was fitted; empty where none was.
        curves: of the classes that were ranked.
    """

    subject: str
    data: str
    labels: list[str]
    images: int
    skipped: list[tuple[str, str]]
    figures: dict[str, Share]
    per_class: list[dict[str, Any]]
    confusion: NDArray[np.int64] | None
    reliability: list[Bin]
    mistakes: list[Mistake]
    settings: dict[str, Any]
    images_per_second: float
    overlap: Overlap | None = None
    engine: str = ""
    precision: str = ""
    reliability_before: list[Bin] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)

    def __repr__(self) -> str:
        """The subject, the data and the first figures in one line."""
        known = {name: value for name, value in self.figures.items() if value is not None}
        figures = ", ".join(f"{name} {value:.4g}" for name, value in list(known.items())[:3])
        return f"<Report: {self.subject} on {self.data}, {self.images:,} images: {figures}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the confusion matrix has its own file."""
        return {
            **(self.overlap.to_dict() if self.overlap is not None else {}),
            "subject": self.subject,
            "data": self.data,
            "engine": self.engine,
            "precision": self.precision,
            "images": self.images,
            "skipped": [{"path": path, "error": reason} for path, reason in self.skipped],
            **self.figures,
            "settings": self.settings,
            "images_per_second": round(self.images_per_second, 2),
            "reliability": [dataclasses.asdict(part) for part in self.reliability],
            "mistakes": [mistake.to_dict() for mistake in self.mistakes],
            "per_class": self.per_class,
        }

    def shown_figures(self) -> dict[str, str]:
        """The figures for people: without top-5 where it is 100 % by its nature."""
        left_out = [] if top5_tells(len(self.labels)) else ["top5"]
        made = {}
        for name, value in self.figures.items():
            low, high = (self.figures.get(f"{name}_{end}") for end in ("low", "high"))
            between = "" if low is None or high is None else f" ({shown(name, low)} to "
            made[name] = shown(name, value) + (between and f"{between}{shown(name, high)})")
            left_out += [f"{name}_{end}" for end in ("low", "high")]
        return {name: text for name, text in made.items() if name not in left_out}

    def answered_by(self) -> str:
        """The engine and its precision."""
        return f"{self.engine} in {self.precision}"

    def save(self, folder: str | Path) -> Path:
        """The folder holds report.json, README.md, the tables as CSV and the figures as PNG.

        A picture that cannot be drawn is left out, with a note in the log.

        Raises:
            OutputError: one of the others cannot be written.
        """
        self.write(folder)
        return Path(folder)

    def write(self, folder: str | Path) -> tuple[int, int]:
        """As `save`; (pictures that were drawn, pictures that there are figures for)."""
        folder = Path(folder)
        write_json(folder / "report.json", self.to_dict())
        write_text(folder / "per_class.csv", to_csv(_header(self.per_class), self.per_class))
        if self.confusion is not None:
            write_text(folder / "confusion.csv", self._confusion_csv())
        pictures = figures.save_all(self, folder)
        write_text(folder / "README.md", self._readme(pictures))
        return len(pictures), sum(one.has_data(self) for one in figures.PICTURES)

    def _confusion_csv(self) -> str:
        """The confusion matrix: a row a true class, a column an answered class."""
        assert self.confusion is not None
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["true", *self.labels])
        # By position: two classes may have one name, as ImageNet's cranes.
        rows = zip(self.labels, self.confusion.tolist(), strict=True)
        writer.writerows([label, *counts] for label, counts in rows)
        return text.getvalue()

    def _readme(self, pictures: Sequence[Picture]) -> str:
        """The report in words, with its pictures."""
        lines = [f"# {in_markdown(self.subject)} on {in_markdown(self.data)}", ""]
        lines += [in_markdown(str(self.overlap)), ""] if self.overlap is not None else []
        lines += [f"Answered by {self.answered_by()}.", ""] if self.engine else []
        lines += ["| figure | value |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in self.shown_figures().items()]
        lines += [f"| images | {self.images:,} |", f"| could not be read | {len(self.skipped):,} |"]
        lines.append("")
        for name, value in self.settings.items():
            lines.append(f"- {name}: {in_markdown(value) if isinstance(value, str) else value}")
        lines.append("")
        for one in pictures:
            lines += [f"## {one.title}", "", one.words, "", f"![{one.title}]({one.file})", ""]
            lines += self._confusion_table() if one.file == "confusion.png" else []
        lines += ["Files: `report.json`, `per_class.csv`, `confusion.csv` (rows: the true class)."]
        if self.confusion is None:
            lines[-1] = "Files: `report.json`, `per_class.csv`."
        return "\n".join(lines) + "\n"

    def _confusion_table(self) -> list[str]:
        """The pairs of classes that are mistaken most often."""
        assert self.confusion is not None
        pairs = largest_confusions(self.confusion, MOST_CONFUSIONS)
        if not pairs:
            return []
        lines = ["Mistaken most often:", "", "| true class | answered | images | of the class |"]
        lines.append("|---|---|--:|--:|")
        for row, column, count in pairs:
            true, said = in_markdown(self.labels[row]), in_markdown(self.labels[column])
            share = count / int(self.confusion[row].sum())
            lines.append(f"| {true} | {said} | {count:,} | {percent(share)} |")
        return [*lines, ""]


def to_csv(header: Sequence[str], rows: Any) -> str:
    """CSV text of rows that are dictionaries; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([row[name] for name in header] for row in rows)
    return text.getvalue()


def _header(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of the rows."""
    return list(rows[0]) if rows else []


def shown(name: str, value: Share) -> str:
    """A figure for people: shares in per cent, losses as they are."""
    if value is None:
        return "undefined"
    return f"{value:.4f}" if name in ("loss", "threshold") else percent(value, 2)

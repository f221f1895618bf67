"""Does an exported network answer as the checkpoint does? The figures, the bounds, the report.

On the line: `measure.py` fills it, `export` refuses to write a bundle when a bound is broken, and
the bundle carries it as `parity.md` and `parity.json`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densepath.bundle import speeds
from densepath.bundle.bfloat16 import BEST, FIELD, BFloat16Report, to_parity
from densepath.bundle.speeds import Speeds
from densepath.errors import ParityError
from densepath.predict.answers import probabilities
from densepath.wording import first_of, percent

Resizer = Literal["Pillow", "graph"]
# max |Δlogit| over max |logit|. The same input: float32 on other kernels leaves about 1e-6. The
# bundle's own preprocessing: the image may differ by 1 of 255 here and there, and logits follow.
LOGIT_BOUNDS: dict[Resizer, float] = {"Pillow": 1e-3, "graph": 2e-2}
# Of the values of all resized images: the share that may differ at all, and by more than 1 of 255.
# Runtimes round the halves that Pillow's fixed point makes otherwise; see docs/export.md.
SHARE_BOUND, SHARE_BEYOND_BOUND = 0.1, 1e-3
NAMES_SHOWN = 10


@dataclass(frozen=True)
class EngineRow:
    """One engine on all images.

    Attributes:
        format, engine: of the bundle, and what ran it.
        preprocess: `Pillow`, or `graph` for the bundle's own.
        size: height × width of the network's input.
        batch_size: images of one run.
        max_difference: the largest |Δlogit|.
        relative: that, over the largest |logit| of the reference.
        top1: the share of the images whose best class is the reference's; ties count as agreeing.
        ties: images with another best class that is, in the reference, nearer to the best one than
            the bound.
        top5: the share of the images whose five best classes are the reference's, in its order.
        score: the largest |Δscore|, of scores as they are answered.
    """

    format: str
    engine: str
    preprocess: Resizer
    size: str
    batch_size: int
    max_difference: float
    relative: float
    top1: float
    ties: int
    top5: float
    score: float

    @property
    def broken(self) -> list[str]:
        """Each bound that does not hold, in a sentence."""
        where = f"{self.format} on {self.engine}, {self.size} pixels, batch {self.batch_size}"
        if self.preprocess == "graph":
            where += ", with the bundle's preprocess graph"
        said, bound = [], LOGIT_BOUNDS[self.preprocess]
        if not self.relative <= bound:  # NaN too
            said.append(
                f"{where}: max |Δlogit| is {self.relative:.1e} of the largest logit, the bound is "
                f"{bound:.0e}"
            )
        if not self.top1 >= 1:
            said.append(f"{where}: the best class is the same on {percent(self.top1)}, not on all")
        return said


@dataclass(frozen=True)
class PixelRow:
    """A preprocess graph's resized images against Pillow's.

    Attributes:
        share: of the values that differ.
        share_beyond_one: of the values that differ by more than 1.
        largest: difference, of 255.
    """

    format: str
    share: float
    share_beyond_one: float
    largest: int

    @property
    def broken(self) -> list[str]:
        """Each bound that does not hold, in a sentence."""
        where, said = f"the preprocess graph of {self.format}", []
        if self.share > SHARE_BOUND:
            bound = f"the bound is {percent(SHARE_BOUND, 0)}"
            said.append(
                f"{where}: {percent(self.share)} of the values differ from Pillow's, {bound}"
            )
        if self.share_beyond_one > SHARE_BEYOND_BOUND:
            said.append(
                f"{where}: {percent(self.share_beyond_one, 2)} of the values differ from "
                f"Pillow's by more than 1 of 255, the bound is {percent(SHARE_BEYOND_BOUND)}"
            )
        return said


@dataclass(frozen=True)
class Parity:
    """What was compared, on which images, and how it came out.

    Attributes:
        model: the network's name.
        images: what the images are, for a person.
        names: the images that were compared.
        num_best: the different best classes among the reference's answers: of one alone, top-1
            says little.
        rows, pixels: the figures.
        unreadable: the images that could not be read, with the reason.
        bfloat16: engines in that precision, by name, that could be tried.
        speeds: how fast the engines were, where there are several.
    """

    model: str
    images: str
    names: list[str]
    num_best: int
    rows: list[EngineRow]
    pixels: list[PixelRow]
    unreadable: list[str] = field(default_factory=list)
    bfloat16: dict[str, BFloat16Report] = field(default_factory=dict)
    speeds: Speeds | None = None

    def broken(self) -> list[str]:
        """Each bound that does not hold, in a sentence."""
        by_logits = [said for row in self.rows for said in row.broken]
        return by_logits + [said for row in self.pixels for said in row.broken]

    def summary(self) -> dict[str, Any]:
        """What a manifest keeps: for each format the worst of its rows."""
        formats = dict.fromkeys(row.format for row in self.rows)
        return {
            "images": self.images,
            "num_images": len(self.names),
            "num_best": self.num_best,
            "bounds": {
                "relative": LOGIT_BOUNDS,
                "differing_share": SHARE_BOUND,
                "beyond_one_share": SHARE_BEYOND_BOUND,
            },
            "formats": {name: self._summarise(name) for name in formats},
            **self._measured(),
        }

    def _measured(self) -> dict[str, Any]:
        """What `auto` goes by."""
        times = {speeds.FIELD: self.speeds.to_dict()} if self.speeds else {}
        return {**to_parity(self.bfloat16), **times}

    def _summarise(self, format: str) -> dict[str, Any]:
        """The worst figures of a format, for each way of resizing."""
        worst: dict[str, Any] = {}
        for resizer in LOGIT_BOUNDS:
            rows = [r for r in self.rows if (r.format, r.preprocess) == (format, resizer)]
            if rows:
                worst[resizer] = {
                    "max_difference": max(row.max_difference for row in rows),
                    "relative": max(row.relative for row in rows),
                    "top1": min(row.top1 for row in rows),
                    "ties": max(row.ties for row in rows),
                    "top5": min(row.top5 for row in rows),
                    "score": max(row.score for row in rows),
                }
        for row in self.pixels:
            if row.format == format:
                worst["pixels"] = {k: v for k, v in asdict(row).items() if k != "format"}
        return worst

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a figure that is not finite is None."""
        values = {**asdict(self), "broken": self.broken(), FIELD: None, **self._measured()}
        for row in values["rows"]:
            for name, value in row.items():
                if isinstance(value, float) and not math.isfinite(value):
                    row[name] = None
        return values

    def to_markdown(self) -> str:
        """The report for a person."""
        return "\n".join([*self._opening(), *self._tables(), *self._closing()]).rstrip() + "\n"

    def _opening(self) -> list[str]:
        """What was compared with what."""
        return [
            f"# Parity of {self.model}",
            "",
            f"Compared on {self.images}; the best classes are {self.num_best} different ones.",
            "The reference is the checkpoint's network in PyTorch, float32, not rewritten, on",
            "images resized by Pillow (`densepath.Preprocess`). Rows resized by the graph go from",
            "the image file to the answer by what the bundle holds.",
            "",
        ]

    def _tables(self) -> list[str]:
        """The figures."""
        lines = [
            "| format | engine | resized by | size | batch | max abs Δlogit | over the largest "
            "| top-1 | ties | top-5 | max abs Δscore |",
            "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {row.format} | {row.engine} | {row.preprocess} | {row.size} "
            f"| {row.batch_size} | {row.max_difference:.1e} | {row.relative:.1e} "
            f"| {percent(row.top1)} | {row.ties} | {percent(row.top5)} | {row.score:.1e} |"
            for row in self.rows
        ]
        if self.pixels:
            lines += [
                "",
                "| preprocess graph | values that differ | by more than 1 of 255 | at most by |",
                "|---|--:|--:|--:|",
            ]
        lines += [
            f"| {row.format} | {percent(row.share, 4)} | {percent(row.share_beyond_one, 4)} "
            f"| {row.largest} |"
            for row in self.pixels
        ]
        return lines

    def _closing(self) -> list[str]:
        """Bounds, images, and what is wrong."""
        same, own = (f"{LOGIT_BOUNDS[resizer]:.0e}" for resizer in ("Pillow", "graph"))
        lines = [
            "",
            f"Bounds: Δlogit over the largest logit {same}, resized by the graph {own}; top-1 on",
            "all images, but for ties: images with another best class that is, in the reference,",
            f"nearer to the best one than that bound; at most {percent(SHARE_BOUND, 0)} of the",
            f"resized values differ, and at most {percent(SHARE_BEYOND_BOUND)} by more",
            "than 1 of 255. Top-5 means the same classes in the same order.",
            "",
            f"Images: {first_of(self.names, NAMES_SHOWN)}.",
            *(line for name in self.bfloat16 for line in self.bfloat16[name].to_markdown(name)),
            *(self.speeds.to_markdown() if self.speeds else ()),
        ]
        if self.unreadable:
            lines += [
                "",
                f"Not compared, for they cannot be read: {first_of(self.unreadable, NAMES_SHOWN)}.",
            ]
        broken = self.broken()
        verdict = [f"BROKEN: {line}." for line in broken] or ["All bounds hold."]
        return [*lines, "", *verdict]


def compare(
    found: NDArray[np.float32],
    expected: NDArray[np.float32],
    *,
    multi_label: bool,
    temperature: float | None = None,
    bound: float,
) -> dict[str, Any]:
    """The figures of an `EngineRow` from logits [N, classes]; `bound` is that of the logits."""
    difference = float(np.abs(found - expected).max())
    size = float(np.abs(expected).max())
    # Logits that are all zero have no scale: only the same ones will do.
    relative = difference / size if size else difference and float("inf")
    taken = found.argmax(1)
    best = taken == expected.argmax(1)
    behind = expected.max(1) - np.take_along_axis(expected, taken[:, None], 1)[:, 0]
    ties = (behind <= bound * size) & ~best
    ranks = [np.argsort(-logits, axis=1, kind="stable")[:, :BEST] for logits in (found, expected)]
    scores = score_differences(found, expected, multi_label=multi_label, temperature=temperature)
    return {
        "max_difference": difference,
        "relative": relative,
        "top1": float((best | ties).mean()),
        "ties": int(ties.sum()),
        "top5": float((ranks[0] == ranks[1]).all(1).mean()),
        "score": float(scores.max()),
    }


def score_differences(
    found: NDArray[np.float32],
    expected: NDArray[np.float32],
    *,
    multi_label: bool,
    temperature: float | None,
) -> NDArray[np.float64]:
    """The largest |Δscore| of each image [N] from logits [N, classes]."""
    scores = [
        probabilities(logits, multi_label=multi_label, temperature=temperature)
        for logits in (found, expected)
    ]
    return np.abs(scores[0] - scores[1]).max(1)


def check_parity(parity: Parity) -> None:
    """Returns when all bounds hold.

    Raises:
        ParityError: one does not; the message says which, and the value.
    """
    broken = parity.broken()
    if broken:
        more = f" ({len(broken) - 1} more are broken.)" if len(broken) > 1 else ""
        raise ParityError(
            f"the exported {parity.model} does not answer as its checkpoint: {broken[0]}.{more} "
            "No bundle was written."
        )

"""What a bundle says of bfloat16 on each engine, and whether that is enough to take it unasked.

On the line: `export` measures it on real images and keeps it in the manifest, as `bfloat16` of
`parity`, which is of our kernels, and `bfloat16_others`, by engine. `engines/precision.py` reads
both, the C++ program (`bundle.cpp`) the first. Nothing here imports torch or numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from densepath.wording import counted, percent

FIELD, OTHERS = "bfloat16", "bfloat16_others"
# The engine of our kernels. They round alike on any processor, but that with AMX 3×3 convolutions
# do, too; what others round depends on the processor.
OURS = "native"
LEAST_SAME_FIVE = 0.99
# The best classes that are compared. Of so many or fewer they say nothing, nor where an image has
# several.
BEST = 5
# There no score may be further than this from the reference's, on as many images.
MOST_SCORE = 0.02
# Two logits are a tie where they are nearer to each other than this share of the largest: one step
# of bfloat16, which has 8 bits.
TIE = 2.0**-8


@dataclass(frozen=True)
class BFloat16Report:
    """An engine in bfloat16 beside the checkpoint's network in float32, on the same inputs.

    Attributes:
        num_images: that were compared.
        top1: the share of them whose best class is the reference's; ties count as agreeing.
        ties: images with another best class that is a tie with the best one in the reference.
        top5: the share whose five best classes are the reference's, in any order; `by_score`, whose
            scores are all within `MOST_SCORE` of the reference's.
        max_difference: the largest |Δlogit|; None where it is not finite.
        relative: that, over the largest |logit| of the reference.
        score: the largest |Δscore|.
        amx: our kernels went through AMX: the report holds without it, too, where less is rounded.
        by_score: the network has few classes, or several an image.
    """

    num_images: int
    top1: float
    ties: int
    top5: float
    max_difference: float | None
    relative: float | None
    score: float | None
    amx: bool = False
    by_score: bool = False

    @classmethod
    def of(cls, parity: Mapping[str, Any] | None, engine: str = OURS) -> BFloat16Report | None:
        """The report in a manifest's `parity`; None where there is none, as in older bundles."""
        values = (parity or {}).get(FIELD if engine == OURS else OTHERS)
        if engine != OURS and isinstance(values, Mapping):
            values = values.get(engine)
        if not isinstance(values, Mapping) or {*values, *_FLAGS} != set(cls.__annotations__):
            return None
        if not all(isinstance(values.get(flag, False), bool) for flag in _FLAGS):
            return None
        needed = [values["num_images"], values["top1"], values["ties"], values["top5"]]
        if not all(isinstance(value, int | float) for value in needed):
            return None
        if not isinstance(values["max_difference"], int | float | None):
            return None
        return cls(**values)

    @property
    def is_enough(self) -> bool:
        """Whether `--precision auto` may take bfloat16."""
        if self.num_images <= 0 or self.max_difference is None or not isfinite(self.max_difference):
            return False
        return self.top1 >= 1 and self.top5 >= LEAST_SAME_FIVE

    def __str__(self) -> str:
        """The two shares that decide."""
        ties = f" ({counted(self.ties, 'tie')})" if self.ties else ""
        images = counted(self.num_images, "image")
        others = f"every score within {MOST_SCORE}" if self.by_score else "the five best"
        return (
            f"the best class is the same on {self._all_but(self.top1)} of {images}{ties}, "
            f"{others} on {self._all_but(self.top5)}"
        )

    def _all_but(self, share: float) -> str:
        """The share of the images, exactly: a rounded one may look like enough."""
        others = round((1 - share) * self.num_images)
        return f"all but {others:,}" if others else "all"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of the flags those that are so."""
        return {
            name: None if isinstance(value, float) and not isfinite(value) else value
            for name, value in asdict(self).items()
            if name not in _FLAGS or value
        }

    def to_markdown(self, engine: str = OURS) -> list[str]:
        """The lines of `parity.md`."""
        verdict = "may take" if self.is_enough else "does not take"
        figures = [f"max abs Δlogit {self.max_difference:.1e}"] if self.max_difference else []
        figures += [f"{self.relative:.1e} of the largest"] if self.relative else []
        return [
            "",
            f"In bfloat16, {on_engine(engine)}: {'; '.join([str(self), *figures])}.",
            f"So `--precision auto` {verdict} it {where_taken(engine)}: that",
            f"takes the same best class on all images, but for ties, and {self._others()}",
            f"{percent(LEAST_SAME_FIVE, 0)}.",
        ]

    def _others(self) -> str:
        """What has to be so on most images."""
        what = f"scores within {MOST_SCORE}" if self.by_score else "the same five"
        return f"{what} on at least"


# Written where they are so.
_FLAGS = ("amx", "by_score")


def is_judged_by_score(num_classes: int, *, multi_label: bool) -> bool:
    """Whether the five best classes of such a network say nothing."""
    return multi_label or num_classes <= BEST


def reports_in(parity: Mapping[str, Any] | None) -> dict[str, BFloat16Report]:
    """The reports in a manifest's `parity`, by engine, that of our kernels first."""
    others = (parity or {}).get(OTHERS)
    names = [OURS, *(others if isinstance(others, Mapping) else ())]
    found = {name: BFloat16Report.of(parity, name) for name in names}
    return {name: report for name, report in found.items() if report is not None}


def to_parity(reports: Mapping[str, BFloat16Report]) -> dict[str, Any]:
    """The fields of `parity` that keep reports by engine."""
    values = {name: report.to_dict() for name, report in reports.items()}
    ours = {FIELD: values.pop(OURS)} if OURS in values else {}
    return {**ours, **({OTHERS: values} if values else {})}


def on_engine(engine: str) -> str:
    """`on our kernels`, `on openvino`."""
    return "on our kernels" if engine == OURS else f"on {engine}"


def where_taken(engine: str) -> str:
    """On which machines `auto` takes an engine in bfloat16 whose report is enough."""
    if engine == OURS:
        return "where the processor has instructions for it"
    return "on machines of the kind that it was measured on, if it was the fastest there"

"""What a bundle says of bfloat16 on our kernels, and whether that is enough to take it unasked.

On the line: `export` measures it on real images and keeps it in the manifest, as `bfloat16` of
`parity`; `engines/precision.py` and the C++ program (`bundle.cpp`) read it. Nothing here imports
torch or numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from densepath.wording import counted, percent

FIELD = "bfloat16"
LEAST_SAME_FIVE = 0.99
# Two logits are a tie where they are nearer to each other than this share of the largest: one step
# of bfloat16, which has 8 bits.
TIE = 2.0**-8


@dataclass(frozen=True)
class BFloat16Report:
    """Our kernels in bfloat16 beside the checkpoint's network in float32, on the same inputs.

    Attributes:
        num_images: that were compared.
        top1: the share of them whose best class is the reference's; ties count as agreeing.
        ties: images with another best class whose two best logits are a tie in the reference.
        top5: the share whose five best classes are the reference's, in any order.
        max_difference: the largest |Δlogit|; None where it is not finite.
        relative: that, over the largest |logit| of the reference.
        score: the largest |Δscore|.
    """

    num_images: int
    top1: float
    ties: int
    top5: float
    max_difference: float | None
    relative: float | None
    score: float | None

    @classmethod
    def of(cls, parity: Mapping[str, Any] | None) -> BFloat16Report | None:
        """The report in a manifest's `parity`; None where there is none, as in older bundles."""
        values = (parity or {}).get(FIELD)
        if not isinstance(values, Mapping) or set(values) != set(cls.__annotations__):
            return None
        needed = [values["num_images"], values["top1"], values["ties"], values["top5"]]
        if not all(isinstance(value, int | float) for value in needed):
            return None
        return cls(**values)

    @property
    def is_enough(self) -> bool:
        """Whether `--precision auto` may take bfloat16."""
        return self.num_images > 0 and self.top1 >= 1 and self.top5 >= LEAST_SAME_FIVE

    def __str__(self) -> str:
        """The two shares that decide."""
        ties = f" ({counted(self.ties, 'tie')})" if self.ties else ""
        images = counted(self.num_images, "image")
        return (
            f"the best class is the same on {self._all_but(self.top1)} of {images}{ties}, "
            f"the five best on {self._all_but(self.top5)}"
        )

    def _all_but(self, share: float) -> str:
        """The share of the images, exactly: a rounded one may look like enough."""
        others = round((1 - share) * self.num_images)
        return f"all but {others:,}" if others else "all"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            name: None if isinstance(value, float) and not isfinite(value) else value
            for name, value in asdict(self).items()
        }

    def to_markdown(self) -> list[str]:
        """The lines of `parity.md`."""
        verdict = "takes" if self.is_enough else "does not take"
        figures = [f"max abs Δlogit {self.max_difference:.1e}"] if self.max_difference else []
        figures += [f"{self.relative:.1e} of the largest"] if self.relative else []
        return [
            "",
            f"In bfloat16, on our kernels: {'; '.join([str(self), *figures])}.",
            f"So `--precision auto` {verdict} it where the processor has instructions for it: that",
            "takes the same best class on all images, but for ties, and the same five on at least",
            f"{percent(LEAST_SAME_FIVE, 0)}.",
        ]

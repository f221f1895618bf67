"""A wrong answer of a network, for the report and its picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from densepath.images.preprocess import Image


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that the network was sure of.

    `image` is uint8 HWC as the network saw it; `score` is the probability of `predicted`.
    """

    path: str
    label: str
    predicted: str
    score: float
    loss: float
    image: Image | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the image."""
        return {
            "path": self.path,
            "label": self.label,
            "predicted": self.predicted,
            "score": round(self.score, 6),
            "loss": round(self.loss, 6),
        }

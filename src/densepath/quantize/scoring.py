"""How near an INT8 network's answers are to the float network's, on the same images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from densepath.engines.engine import Engine, Logits
from densepath.quantize.calibration import Calibration
from densepath.weights.checkpoint import Checkpoint

BATCH = 8
# A user's own measure: logits [N, classes] and the images' names → a number, more is better.
Evaluate: TypeAlias = Callable[[Logits, list[str]], float]


@dataclass(frozen=True)
class Score:
    """Answers beside the float network's.

    Attributes:
        agreement: the share of images with the same best class.
        snr_db: power of the float logits over that of the difference, in decibels.
        own: by the user's own measure, where there is one.
    """

    agreement: float
    snr_db: float
    own: float | None = None

    @property
    def order(self) -> tuple[float, ...]:
        """The figures to choose by, more is better: the user's measure, then the ratio."""
        own = () if self.own is None else (self.own,)
        return (*own, self.snr_db)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; equal logits have no finite ratio, and None."""
        values = asdict(self)
        return {**values, "snr_db": self.snr_db if math.isfinite(self.snr_db) else None}


def score(
    found: Logits, expected: Logits, *, names: list[str], evaluate: Evaluate | None = None
) -> Score:
    """The score of logits [N, classes]."""
    same = float((found.argmax(1) == expected.argmax(1)).mean())
    own = None if evaluate is None else float(evaluate(found, names))
    return Score(same, signal_to_noise(found, expected), own)


def signal_to_noise(found: Logits, expected: Logits) -> float:
    """In decibels; infinite where they are equal, and −infinite where one is not a number."""
    if not np.isfinite(found).all():
        return -math.inf
    noise = float(((found - expected).astype(np.float64) ** 2).sum())
    signal = float((expected.astype(np.float64) ** 2).sum())
    return 10 * math.log10(max(signal, 1e-30) / noise) if noise else math.inf


def float_logits(checkpoint: Checkpoint, images: Calibration) -> Logits:
    """The float network's logits [N, classes], by PyTorch."""
    model = checkpoint.to_model()
    with torch.inference_mode():
        parts = [model(torch.from_numpy(batch)).numpy() for batch in images.batches(BATCH)]
    return np.concatenate(parts)


def engine_logits(engine: Engine, images: Calibration) -> Logits:
    """An engine's logits [N, classes]."""
    starts = range(0, len(images), BATCH)
    return np.concatenate([engine.run(images.images[start:][:BATCH]) for start in starts])

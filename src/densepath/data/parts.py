"""What a source itself divides its images into, before anything is held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from densepath.data.dataset import Dataset

Part = Literal["whole", "train", "validation", "test"]
WHOLE: Part = "whole"


@dataclass
class Parts:
    """The parts of a source, each read when it is asked for.

    Attributes:
        openers: either `whole` alone, of a source without splits, or the splits that it has.
        rules: for each of them where it comes from, in words.
        notes: what was ignored, guessed or is doubtful; reading a part may add to it.
        mixed: whether some are sources of their own, whose classes may have other numbers.
    """

    openers: dict[Part, Callable[[], Dataset]]
    rules: dict[Part, str]
    notes: list[str] = field(default_factory=list)
    mixed: bool = False

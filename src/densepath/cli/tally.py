"""What came of the images of `densepath predict`: counted as they pass, told at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from densepath.cli.console import NAMED_FAILURES, note, note_unreadable
from densepath.cli.progress import show_pace
from densepath.errors import DataError, OutputError
from densepath.wording import counted

if TYPE_CHECKING:
    from densepath.predict.answers import Prediction


@dataclass
class AnswerTally:
    """Counts answers as they pass, and the first failures by name.

    `seen`: the answers, and with them the failures, are before the person's eyes.
    """

    stop_at_failure: bool
    seen: bool = False
    answered: int = 0
    failed: int = 0
    drawn: int = 0
    undrawn: int = 0
    named: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def counting(self, predictions: Iterator[Prediction], *, show: bool) -> Iterator[Prediction]:
        """The predictions, with a progress line on standard error if `show`.

        Raises:
            DataError: one is a failure and the user wants to stop there.
        """
        start = time.monotonic()
        with show_pace("reading the first images", shown=show and sys.stderr.isatty()) as say:
            for prediction in predictions:
                self._count(prediction)
                self.seconds = time.monotonic() - start
                say(self.pace())
                yield prediction

    def _count(self, prediction: Prediction) -> None:
        """Count one more answer."""
        if prediction.error is None:
            self.answered += 1
            return
        self.failed += 1
        if self.stop_at_failure:
            raise DataError(
                f"{prediction.path}: {prediction.error}. --on-error skip goes on after such "
                "images and answers with their error."
            )
        if len(self.named) < NAMED_FAILURES:
            self.named.append(f"{prediction.path}: {prediction.error}")

    def pace(self) -> str:
        """How many, and how fast."""
        total = self.answered + self.failed
        return f"{counted(total, 'image')}, {total / max(self.seconds, 1e-9):.1f} images/s"

    def report(self, pictures: Path | None) -> None:
        """Print what happened on standard error.

        Raises:
            DataError: nothing was answered.
            OutputError: not one of the pictures could be made.
        """
        if not self.seen:
            note_unreadable(self.named, self.failed)
        if not self.answered:
            raise DataError(f"no image was answered; {self.failed:,} could not be read.")
        unread = f"; {self.failed:,} could not be read" if self.failed else ""
        note(f"{self.pace()}; {self.answered:,} answered{unread}")
        if pictures is None:
            return
        if not self.drawn:
            what = "the picture" if self.undrawn == 1 else f"none of the {self.undrawn:,} pictures"
            could = "could not" if self.undrawn == 1 else "could"
            raise OutputError(f"{what} {could} be made; see above.")
        missing = f"; {self.undrawn:,} could not be made" if self.undrawn else ""
        note(f"{counted(self.drawn, 'picture')} in {pictures}{missing}")

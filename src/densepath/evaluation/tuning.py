"""Thresholds and a temperature, chosen on labelled images and put into the checkpoint.

On the line: `evaluate` answers the images first; what is chosen here goes into the report of the
same images, and into the file that `save_tuned` writes, from which it travels on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densepath.errors import UsageError
from densepath.metrics import metrics
from densepath.metrics.answers import Answers
from densepath.metrics.metrics import Bin
from densepath.metrics.temperature import HIGHEST, LOWEST, at_temperature, fit_temperature
from densepath.metrics.thresholds import Rule, choose_thresholds
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.checkpoint_file import is_checkpoint
from densepath.weights.subject import checkpoint_in
from densepath.wording import counted, first_of

NEAR_END = 1.01  # a temperature within 1 % of what is tried at most


@dataclass(frozen=True)
class Wanted:
    """What is to be chosen.

    Attributes:
        rule: how thresholds are; None: they are not.
        calibrate: whether a temperature is fitted.
    """

    rule: Rule | None = None
    calibrate: bool = False

    def __bool__(self) -> bool:
        """Whether anything is."""
        return self.rule is not None or self.calibrate


@dataclass(frozen=True)
class Tuned:
    """What was chosen.

    Attributes:
        thresholds, temperature: as a Checkpoint has them; None where not asked for.
        before: the calibration's bins before the temperature.
        about: for reports and the checkpoint's provenance: how it was chosen, with which figures.
        notes: what a person should know, a sentence each.
    """

    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None
    before: list[Bin] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_wanted(wanted: Wanted, *, multi_label: bool) -> None:
    """Raise unless that can be chosen for the network.

    Raises:
        UsageError: thresholds of classes that exclude each other.
    """
    if wanted.rule is not None and not multi_label:
        raise UsageError(
            "thresholds are chosen for multi-label networks; of classes that exclude each other "
            "the likeliest is the answer. Its scores can be calibrated."
        )


def tune(
    answers: Answers, labels: list[str], wanted: Wanted, *, temperature: float | None
) -> tuple[Answers, Tuned]:
    """The answers as they will be, and what was chosen.

    Args:
        answers: with their logits, which the network's own temperature has divided.
        labels: the class names.
        wanted: what is to be chosen.
        temperature: that one; None of a network without.
    """
    tuned = Tuned()
    if wanted.calibrate:
        answers, tuned = _calibrate(answers, temperature)
    if wanted.rule is None:
        return answers, tuned
    known, truth = answers.known_labels, answers.targets.astype(bool)
    chosen = choose_thresholds(answers.scores, truth, known, wanted.rule)
    notes = list(tuned.notes)
    for classes, said in (
        (chosen.undecided, "without both a yes and a no here keep 0.5"),
        (chosen.unreached, f"do not reach {wanted.rule} and have the highest precision there is"),
    ):
        if classes:
            named = first_of([labels[c] for c in classes])
            notes.append(f"{counted(len(classes), 'class')} {said}: {named}.")
    about = {**tuned.about, "thresholds": {"rule": str(wanted.rule)}}
    return answers, dataclasses.replace(
        tuned, thresholds=chosen.thresholds, about=about, notes=tuple(notes)
    )


def _calibrate(answers: Answers, temperature: float | None) -> tuple[Answers, Tuned]:
    """The answers at the best temperature, which is in `Tuned` the network's own times it."""
    factor = fit_temperature(answers)
    before = metrics.reliability(answers)
    after = at_temperature(answers, factor)
    made = factor * (temperature or 1.0)
    about = {
        "temperature": made,
        "loss_before": metrics.mean_loss(answers),
        "loss_after": metrics.mean_loss(after),
        "calibration_error_before": metrics.calibration_error(before),
        "calibration_error_after": metrics.calibration_error(metrics.reliability(after)),
    }
    ends = not LOWEST * NEAR_END < factor < HIGHEST / NEAR_END
    notes = ("the temperature is at the end of what is tried: too few images to fit it.",)
    return after, Tuned(None, made, before, {"calibration": about}, notes if ends else ())


def check_target(subject: str | Path | Checkpoint, output: Path | None) -> Path:
    """Where a tuned checkpoint goes: `output`, or the file that the subject is or has.

    Raises:
        UsageError: the subject is no file of weights, and no `output` is named.
    """
    if output is not None:
        return output
    if not isinstance(subject, Checkpoint) and (path := Path(subject)).exists():
        file = checkpoint_in(path) if path.is_dir() else path
        if file.is_file() and is_checkpoint(file):
            return file
    named = "a checkpoint in memory" if isinstance(subject, Checkpoint) else str(subject)
    raise UsageError(
        f"{named} is no file or run folder that thresholds and a temperature could be written "
        "into; name a new file to save the checkpoint in (save_checkpoint), such as x.safetensors."
    )


def save_tuned(checkpoint: Checkpoint, tuned: Tuned, chosen_on: dict[str, Any], path: Path) -> None:
    """Write the checkpoint with what was chosen into the file `path`, which is replaced whole.

    `chosen_on` says on which images, and goes into its provenance.

    Raises:
        OutputError: it cannot be written.
    """
    changes: dict[str, Any] = {}
    if tuned.thresholds is not None:
        changes["thresholds"] = tuned.thresholds
    if tuned.temperature is not None:
        changes["temperature"] = tuned.temperature
    said = {name: {**about, **chosen_on} for name, about in tuned.about.items()}
    provenance = {**checkpoint.provenance, **said}
    dataclasses.replace(checkpoint, provenance=provenance, **changes).save(path)

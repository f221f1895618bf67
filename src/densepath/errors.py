"""Every error that densepath raises for something a user can mend.

    DensepathError                exit code 1
    ├── UsageError                exit code 2; also a ValueError
    │   ├── UnknownNameError      a name outside the valid choices; says the nearest ones
    │   └── RecipeError           a recipe that cannot be read or does not hold together
    ├── DataError
    │   ├── ImageError            one image that cannot be read; has `path` and `reason`
    │   ├── DatasetError          a data set that cannot be read
    │   └── LabelMismatchError    classes of a data set and of a checkpoint differ
    ├── WeightsError
    │   ├── UnsafeFileError       a weights file that asks for code to be run
    │   ├── KeyMismatchError      tensors missing, unexpected or of the wrong shape
    │   ├── WeightsUnavailableError  published weights that are neither cached nor reachable
    │   └── CheckpointError       a checkpoint or run folder that cannot be read
    ├── TrainingError
    │   └── DivergedError         the loss became NaN, infinite or grew without bound
    ├── BundleError               a bundle that cannot be opened or is not what it says
    ├── ParityError               an exported network that answers otherwise than the checkpoint
    ├── EngineError               an engine that cannot be made ready on this machine
    ├── OutputError               a file or folder that cannot be written
    └── MissingPackageError       an optional package is not installed; says how to install it

A message says what was wrong, the value, the valid choices and the cure. Only the command
line turns an error into text on standard error and an exit code.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from densepath.extras import command_for

MOST_CHOICES = 40


class DensepathError(Exception):
    """The root of all errors a user can mend."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Survives the way back from another process, whatever it was made of."""
        return _remade, (type(self), self.args, dict(self.__dict__))


class UsageError(DensepathError, ValueError):
    """A wrong argument, option or name."""

    exit_code = 2


class UnknownNameError(UsageError):
    """`value` is none of `choices`; the message names the nearest and lists them.

    Where there are too many to list, `near` are the nearest and `cure` stands in the list's place.
    """

    def __init__(
        self,
        kind: str,
        value: object,
        choices: Iterable[str],
        *,
        near: Iterable[str] | None = None,
        cure: str | None = None,
    ) -> None:
        self.kind, self.value, self.choices = kind, value, sorted(choices)
        if near is None:
            near = difflib.get_close_matches(str(value), self.choices, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        if cure is None:
            shown = ", ".join(self.choices[:MOST_CHOICES])
            left = len(self.choices) - MOST_CHOICES
            cure = f"Choices: {shown}" + (f" and {left:,} more" if left > 0 else "")
        super().__init__(f"unknown {kind} {value!r}.{hint} {cure}.")


class RecipeError(UsageError):
    """A recipe that cannot be read, or whose fields do not hold together."""


class DataError(DensepathError):
    """Images, labels or data sets."""


class ImageError(DataError):
    """One image that cannot be read; `path` names it and `reason` says why."""

    def __init__(self, path: object, reason: str) -> None:
        self.path, self.reason = str(path), reason
        super().__init__(f"{self.path}: {reason}")


class DatasetError(DataError):
    """A data set that cannot be read."""


class LabelMismatchError(DataError):
    """The classes of a data set and of a checkpoint differ."""


class WeightsError(DensepathError):
    """Weights files, checkpoints and published weights."""


class UnsafeFileError(WeightsError):
    """A weights file that asks for code to be run."""


class KeyMismatchError(WeightsError):
    """Tensors missing, unexpected or of the wrong shape."""


class WeightsUnavailableError(WeightsError):
    """Published weights that are neither in the cache nor reachable."""


class CheckpointError(WeightsError):
    """A checkpoint or run folder that cannot be read."""


class TrainingError(DensepathError):
    """A training run that cannot go on."""


class DivergedError(TrainingError):
    """The loss became NaN, infinite or grew without bound."""


class BundleError(DensepathError):
    """A bundle that cannot be opened, or whose files are not what its manifest says."""


class ParityError(DensepathError):
    """An exported network that answers otherwise than the checkpoint it was made of."""


class EngineError(DensepathError):
    """An engine that cannot be made ready on this machine, or that failed."""


class OutputError(DensepathError):
    """A file or folder that cannot be written."""


class MissingPackageError(DensepathError):
    """Optional packages are not installed; `extra` is the extra of densepath that brings the first.

    `missing` has all of them, each with its extra: one command brings them together.
    """

    def __init__(self, package: str, extra: str, others: Mapping[str, str] | None = None) -> None:
        self.package, self.extra = package, extra
        self.missing = {package: extra, **(others or {})}
        super().__init__(package, extra, others)

    def __str__(self) -> str:
        """The message, which reads the package's metadata: only when somebody is told."""
        names = ", ".join(map(repr, self.missing))
        alone = len(self.missing) == 1
        return (
            f"this needs the package{'' if alone else 's'} {names}, which "
            f"{'is' if alone else 'are'} not installed. "
            f"Install {'it' if alone else 'them'} with: {command_for(self.missing)}"
        )

    @classmethod
    def of(cls, missing: Mapping[str, str]) -> MissingPackageError:
        """The error for these packages, each with its extra; at least one."""
        (package, extra), *others = missing.items()
        return cls(package, extra, dict(others))


def _remade(kind: type[DensepathError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    """The error that another process had."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def check_count(name: str, value: object, *, least: int = 1) -> int:
    """The value, which counts something.

    Raises:
        UsageError: it is no whole number, or below `least`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UsageError(f"{name} is {value!r}; it must be a whole number.")
    if (count := operator.index(value)) < least:
        raise UsageError(f"{name} is {count}; it must be at least {least}.")
    return count

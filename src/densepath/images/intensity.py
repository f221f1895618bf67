"""Which of a file's values are black and white: the setting of `Preprocess` for deep images.

Files of a trade have 12 or 16 bits, or floats; a network's images have 8. The setting says how the
one becomes the other when a file is read, and travels with the weights: everything behind reading
goes on in uint8. `values.py` applies it; `deploy/cpp/src/intensity.cpp` is its twin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from densepath.choices import IntensityKind
from densepath.errors import UnknownNameError, UsageError

KINDS: tuple[IntensityKind, ...] = get_args(IntensityKind)
FORMS = "file, range:LOW,HIGH, window:CENTRE,WIDTH, percentiles:LOW,HIGH"
FIELDS = ("kind", "values")


@dataclass(frozen=True)
class Intensity:
    """Which of a file's values become 0, which 255; between them is a straight line of 256 steps.

    Attributes:
        kind: `range`, the two values themselves; `window`, the centre and width of DICOM's linear
            window; `percentiles`, those of each image's own values; `file`, as the file says: a
            DICOM's window, else the full range of the file's type.
        values: the two numbers; none for `file`.
    """

    kind: IntensityKind
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raise UsageError where no image could be read so."""
        if self.kind not in KINDS:
            raise UnknownNameError("kind of intensity", self.kind, KINDS)
        wanted = 0 if self.kind == "file" else 2
        if len(self.values) != wanted or not all(map(_is_number, self.values)):
            raise UsageError(
                f"intensity {self.kind} has the values {self.values!r}; it takes "
                f"{'none' if wanted == 0 else 'two numbers'}. Forms: {FORMS}."
            )
        object.__setattr__(self, "values", tuple(map(float, self.values)))
        if self.kind == "window" and self.values[1] < 1:
            raise UsageError(f"the window's width is {self.values[1]:g}; it must be at least 1.")
        if self.kind in ("range", "percentiles") and not self.values[0] < self.values[1]:
            raise UsageError(
                f"intensity {self.to_text()}: the first number must be less than the second."
            )
        if self.kind == "percentiles" and not (self.values[0] >= 0 and self.values[1] <= 100):
            raise UsageError(f"intensity {self.to_text()}: percentiles are of 0 to 100.")

    @classmethod
    def parse(cls, text: str) -> Intensity:
        """The setting that `to_text` writes, and a person: `window:40,400`.

        Raises:
            UsageError: it is none.
        """
        kind, colon, rest = text.strip().partition(":")
        try:
            values = tuple(float(one) for one in rest.split(",")) if colon else ()
        except ValueError:
            raise UsageError(f"intensity is {text!r}; forms: {FORMS}.") from None
        return cls(kind.strip(), values)  # type: ignore[arg-type]

    def to_text(self) -> str:
        """`window:40,400`; `parse` reads it."""
        numbers = ",".join(_short(value) for value in self.values)
        return f"{self.kind}:{numbers}" if numbers else self.kind

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return {"kind": self.kind, "values": list(self.values)}

    @classmethod
    def from_dict(cls, values: Any) -> Intensity:
        """The setting that `to_dict` wrote.

        Raises:
            UsageError: a field is missing, unknown or impossible.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"intensity is {values!r}; it must have {' and '.join(FIELDS)}.")
        for name in values:
            if name not in FIELDS:
                raise UnknownNameError("field of intensity", name, FIELDS)
        numbers = values.get("values", [])
        if not isinstance(numbers, list | tuple) or not isinstance(values.get("kind"), str):
            raise UsageError("intensity must have a kind, a text, and values, a list of numbers.")
        return cls(values["kind"], tuple(numbers))

    @property
    def span(self) -> tuple[float, float] | None:
        """The values of black and white, where they are the same for every file.

        Source of the window: DICOM PS3.3, C.11.2.1.2.1, the linear function.
        """
        if self.kind == "range":
            return self.values[0], self.values[1]
        if self.kind == "window":
            return linear_window(*self.values)
        return None


def linear_window(centre: float, width: float) -> tuple[float, float]:
    """The values of black and white by DICOM's function LINEAR (PS3.3, C.11.2.1.2.1)."""
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def _is_number(value: object) -> bool:
    """Whether it is a finite number, and no flag."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value)  # type: ignore[arg-type]


def _short(value: float) -> str:
    """A number as short as it can be read back: `40`, `0.5`."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)

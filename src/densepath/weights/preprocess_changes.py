"""What a user knows of the preprocessing of another system's weights, over what is guessed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from densepath.errors import UsageError
from densepath.images.intensity import Intensity
from densepath.images.preprocess import Interpolation, Preprocess
from densepath.models.spec import to_sides

# A mean or deviation above it is of values up to 255; timm's Inception weights have 0.5.
LARGEST_STATISTIC = 2.0


@dataclass(frozen=True)
class PreprocessChanges:
    """What a user knows of a preprocessing; None, for each, leaves it as it is.

    Attributes:
        size: side of the input in pixels, or height and width.
        resize_short: the short side before the crop; `none` resizes straight to the size.
        crop_share: in its place, the share of the short side that the crop keeps.
        interpolation: see `Preprocess`.
        mean, std: of values scaled to 0…1, one a channel or one for all.
        intensity: which values of a deep file are black and white; `none` reads them as photos.
    """

    size: int | tuple[int, int] | None = None
    resize_short: int | Literal["none"] | None = None
    crop_share: float | None = None
    interpolation: Interpolation | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    intensity: Intensity | Literal["none"] | None = None

    def apply(self, guessed: Preprocess, origin: str) -> tuple[Preprocess, str]:
        """`guessed` with these changes, and `origin`, which says where it is from, with them.

        Raises:
            UsageError: a value that no preprocessing can have, or two that exclude each other.
        """
        if self.resize_short is not None and self.crop_share is not None:
            raise UsageError("resize_short and crop_share (--crop-pct) say the same: give one.")
        changed: dict[str, Any] = {}
        for name in ("mean", "std"):
            if (given := getattr(self, name)) is not None:
                changed[name] = _a_channel(name, given, guessed.channels)
        if self.interpolation is not None:
            changed["interpolation"] = self.interpolation
        if self.intensity is not None:
            changed["intensity"] = None if self.intensity == "none" else self.intensity
        made = dataclasses.replace(guessed, **changed)
        if self.resize_short is not None:
            short = None if self.resize_short == "none" else self.resize_short
            size = made.size if self.size is None else to_sides(self.size)
            made = dataclasses.replace(made, size=size, resize_short=short)
        elif self.size is not None or self.crop_share is not None:
            size = made.size if self.size is None else to_sides(self.size)
            made = made.at_size(size, self.crop_share)
        given_names = [
            f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None
        ]
        return made, origin + (f"; {', '.join(given_names)} as given" if given_names else "")


AS_GUESSED = PreprocessChanges()


def _a_channel(name: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value a channel.

    Raises:
        UsageError: another number of values, one that is no number, or values of 0 to 255.
    """
    given = tuple(values) if isinstance(values, tuple | list) else (values,)
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in given):
        raise UsageError(f"{name} is {values!r}; it must be numbers, as 0.485 0.456 0.406.")
    if len(given) not in (1, channels):
        raise UsageError(f"{name} has {len(given)} values for {channels} channels: one a channel.")
    if max(map(abs, given)) > LARGEST_STATISTIC:
        scaled = ", ".join(f"{one / 255:.4g}" for one in given)
        raise UsageError(
            f"{name} is {', '.join(map(str, given))}, of values up to 255. Here values are scaled "
            f"to 0…1 first: give {scaled}."
        )
    return given * channels if len(given) == 1 else given

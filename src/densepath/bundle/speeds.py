"""How long each engine took for a bundle's images where it was made: what `auto` goes by there.

On the line: `export` measures it and keeps it in the manifest, as `speeds` of `parity`;
`engines/measured.py` reads it on machines of the same kind. Nothing here imports torch or numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from densepath.wording import counted

FIELD = "speeds"
OPTIONAL = {"seconds_bfloat16"}
# Turns on a machine with other work differ by so much: an engine that is not faster by more than
# that does not take the place of another.
NOISE = 0.05


@dataclass(frozen=True)
class Speeds:
    """Engines in each precision, each with all cores on a batch, in turns.

    Attributes:
        machine: what kind it was, see `engines/machine.py`.
        batch_size: images of one run.
        seconds: of a run in float32, the median, by engine.
        seconds_bfloat16: the same in bfloat16; empty where the processor has none, and in older
            bundles.
    """

    machine: str
    batch_size: int
    seconds: dict[str, float]
    seconds_bfloat16: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, parity: Mapping[str, Any] | None) -> Speeds | None:
        """The speeds in a manifest's `parity`; None where there are none, as in older bundles."""
        values = (parity or {}).get(FIELD)
        if not isinstance(values, Mapping) or set(values) | OPTIONAL != set(cls.__annotations__):
            return None
        seconds, lower = values["seconds"], values.get("seconds_bfloat16", {})
        if not (_are_times(seconds) and _are_times(lower)):
            return None
        if not isinstance(values["batch_size"], int):
            return None
        return cls(str(values["machine"]), values["batch_size"], dict(seconds), dict(lower))

    def times(self, precision: str) -> dict[str, float]:
        """The seconds in a precision by engine, the fastest first; none for INT8."""
        found = {"float32": self.seconds, "bfloat16": self.seconds_bfloat16}.get(precision, {})
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def best_first(self, preferred: str, precision: str) -> list[str]:
        """The engines, the fastest first; or `preferred`, where it is as fast within the noise."""
        times = self.times(precision)
        names = list(times)
        if preferred in times and times[preferred] <= times[names[0]] * (1 + NOISE):
            names.insert(0, names.pop(names.index(preferred)))
        return names

    def describe(self, *precisions: str) -> str:
        """Each engine's time in these precisions, the fastest first."""
        times = [
            (seconds, f"{name} in bfloat16" if precision == "bfloat16" else name)
            for precision in precisions
            for name, seconds in self.times(precision).items()
        ]
        listed = ", ".join(f"{name} {seconds * 1e3:.3g} ms" for seconds, name in sorted(times))
        return f"{listed} for {counted(self.batch_size, 'image')}"

    def __str__(self) -> str:
        """Each engine's times, the fastest first."""
        return self.describe("float32", "bfloat16")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; without bfloat16 those of older bundles."""
        return {k: v for k, v in asdict(self).items() if v or k not in OPTIONAL}

    def to_markdown(self) -> list[str]:
        """The lines of `parity.md`."""
        both = " and bfloat16" if self.seconds_bfloat16 else ""
        goes = "and `--precision auto` go" if self.seconds_bfloat16 else "goes"
        return [
            "",
            f"Measured in turns, in float32{both}: {self}.",
            f"`--engine auto` {goes} by that on machines of this kind:",
            f"{self.machine}.",
        ]


def _are_times(values: object) -> bool:
    """Whether it is a table of seconds."""
    return isinstance(values, Mapping) and all(
        isinstance(one, int | float) and one > 0 for one in values.values()
    )

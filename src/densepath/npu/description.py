"""`program.json` ⇄ `Description`: what a compiled program says of itself, closed and checked.

On the line: `compile.py` writes it, sealed as a bundle's manifest is (`bundle/sealed.py`); whatever
runs, profiles or builds a program reads it first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from densepath.bundle import fields
from densepath.bundle.sealed import Kind, read_document
from densepath.errors import BundleError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.names import to_json
from densepath.npu.estimate import Estimate
from densepath.npu.layout import MEMORY_NAMES, Layout
from densepath.npu.targets import Target, target_names

VERSION = 1
PROGRAM = Kind(
    name="program",
    title="a compiled program",
    description="program.json",
    word="description",
    format="densepath-npu-program",
    version_field="version",
    version=VERSION,
    maker="densepath npu compile",
    remake="compile it",
)
COMPILED, SOURCE, LAYERS = "program_vela.tflite", "model.tflite", "layers.csv"


@dataclass(frozen=True)
class CompiledFor:
    """The NPU and the memory system that a program was compiled for; see `Target`."""

    name: str
    macs_per_cycle: int
    system_config: str
    memory_mode: str
    clock_hz: float

    @classmethod
    def of(cls, target: Target) -> CompiledFor:
        """What is kept of a target; its SRAM is in the estimate."""
        return cls(
            name=target.name,
            macs_per_cycle=target.macs_per_cycle,
            system_config=target.system_config,
            memory_mode=target.memory_mode,
            clock_hz=target.clock_hz,
        )


@dataclass(frozen=True)
class OperatorPlacement:
    """Where a program's operators run.

    Attributes:
        npu: the number of those on the NPU.
        cpu: those on the CPU, each by its kind and name.
        share: of all operators, those on the NPU.
        reasons: why others are on the CPU, as Vela says it.
    """

    npu: int
    cpu: list[str]
    share: float
    reasons: list[str]


@dataclass(frozen=True)
class Description:
    """What a program's folder holds.

    Attributes:
        model: the network's name.
        target: that it was compiled for.
        tools: the versions of what made it.
        labels: the name of each class, in the order of the logits.
        multi_label: every class is a yes or no of its own.
        preprocess: the way from an image to the input.
        operators: where they run.
        estimate: what an image costs, as Vela counts it.
        layout: what lies where on a board.
        files: the SHA-256 of each file that nobody is to change.
        seal: the file beside it that has this description's own hash; None of programs that were
            written before there was one.
        thresholds: what each class's score must be above for a yes, where they were chosen.
        temperature: what logits are divided by before they become scores, where it was fitted.
    """

    model: str
    target: CompiledFor
    tools: dict[str, str]
    labels: list[str]
    multi_label: bool
    preprocess: Preprocess
    operators: OperatorPlacement
    estimate: Estimate
    layout: Layout
    files: dict[str, str]
    seal: str | None = PROGRAM.seal
    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None

    @property
    def title(self) -> str:
        """`densenet121 for ethos-u55-128`."""
        return f"{self.model} for {self.target.name}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON document's members."""
        values = {"format": PROGRAM.format, "version": VERSION, **asdict(self)}
        values["preprocess"] = self.preprocess.to_dict()
        values["estimate"] = self.estimate.to_dict()
        values["layout"] = self.layout.to_dict()
        for name in _OPTIONAL:
            if values[name] is None:
                del values[name]
        return values

    def to_text(self) -> str:
        """The JSON document."""
        return to_json(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str, name: str) -> Description:
        """The description that `to_text` wrote; `name` is the folder, for messages.

        Raises:
            BundleError: not JSON, another format or version, or a field that is missing, unknown or
                impossible.
        """
        values = read_document(text, PROGRAM, name)
        try:
            members = {**dict.fromkeys(_OPTIONAL), **values}
            fields.closed(members, "the description", {"format", "version", *_FIELDS})
            made = cls(**{name: check(members[name], name) for name, check in _FIELDS.items()})
            fields.check_decisions(made.thresholds, len(made.labels), multi_label=made.multi_label)
            return made
        except (fields.WrongFieldError, UsageError) as error:
            raise BundleError(f"{name}: {PROGRAM.description}: {error}") from error


def _target(value: Any, field: str) -> CompiledFor:
    """The target, one that there is."""
    target = fields.described(CompiledFor, value, field)
    fields.one_of(target.name, f"{field}.name", tuple(target_names()))
    return target


def _operators(value: Any, field: str) -> OperatorPlacement:
    """Where the operators run."""
    return fields.described(OperatorPlacement, value, field)


def _estimate(value: Any, field: str) -> Estimate:
    """The estimate, which fits where its own numbers say so."""
    members = dict(fields.mapping(value, field))
    fits = fields.flag(members.pop("fits", None), f"{field}.fits")
    estimate = fields.described(Estimate, members, field)
    fields.closed(estimate.memory_bytes, f"{field}.memory_bytes", set(MEMORY_NAMES.values()))
    if fits != estimate.fits:
        needed, there = estimate.memory_bytes["sram"], estimate.sram_limit_bytes
        raise fields.WrongFieldError(
            f"{field}.fits is {fits}, and it needs {needed:,} of {there:,} bytes of SRAM"
        )
    return estimate


def _layout(value: Any, field: str) -> Layout:
    """What lies where."""
    return fields.described(Layout, value, field)


def _files(value: Any, field: str) -> dict[str, str]:
    """The hashes, those of what is read here among them."""
    files = {}
    for name, digest in fields.mapping(value, field).items():
        where = f"{field}.{name!r}"
        files[fields.file_name(name, where)] = fields.file_hash(digest, where)
    missing = [name for name in (SOURCE, COMPILED, LAYERS) if name not in files]
    if missing:
        raise fields.WrongFieldError(f"{field} lacks {', '.join(missing)}")
    return files


def _seal(value: Any, field: str) -> str | None:
    """The file with the description's hash."""
    return None if value is None else fields.one_of(value, field, (PROGRAM.seal,))


_FIELDS: dict[str, fields.Check] = {
    "model": fields.text,
    "target": _target,
    "tools": fields.texts_by_name,
    "labels": fields.labels,
    "multi_label": fields.flag,
    "preprocess": fields.preprocess,
    "operators": _operators,
    "estimate": _estimate,
    "layout": _layout,
    "files": _files,
    "seal": _seal,
    "thresholds": fields.thresholds,
    "temperature": fields.temperature,
}
# Written only where there is something to say.
_OPTIONAL = ("seal", "thresholds", "temperature")

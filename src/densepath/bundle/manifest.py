"""`manifest.json` ⇄ `Manifest`: what a Bundle says of itself, closed and checked.

On the line: export writes it, every engine (Python, C++, browser) reads it first. Nothing here
imports torch or numpy. `schema/manifest-1.json` says the same as a JSON schema.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from densepath.bundle import fields
from densepath.bundle.formats import FORMATS
from densepath.bundle.sealed import Kind, read_document
from densepath.errors import BundleError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.names import to_json
from densepath.wording import first_of

SCHEMA_VERSION = 1
BUNDLE = Kind(
    name="bundle",
    title="a bundle",
    description="manifest.json",
    word="manifest",
    format="densepath-bundle",
    version_field="schema_version",
    version=SCHEMA_VERSION,
    maker="densepath export",
    remake="export it",
)
MANIFEST, MANIFEST_HASH = BUNDLE.description, BUNDLE.seal
PRECISIONS = ("float32", "int8")
FAMILIES = ("densenet", "dpn")
# OpenVINO finds the weights of a graph by the graph's name.
WEIGHTS_OF = {".xml": ".bin"}

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclass(frozen=True)
class Tensor:
    """An input or output of the model graph.

    Attributes:
        name: as the graph calls it.
        dtype: `float32`.
        shape: the sizes; None where any will do.
        layout: `NCHW` of images, empty of logits.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    layout: str = ""


@dataclass(frozen=True)
class File:
    """A file of the Bundle: its hash, its size, and the formats that need it."""

    sha256: str
    size_bytes: int
    formats: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a Bundle holds.

    Attributes:
        model: `name`, `family` and `num_parameters` of the network.
        labels: the name of each class, in the order of the logits.
        multi_label: every class is a yes or no of its own.
        preprocess: the way from an image to the network's input.
        input, output: of the model graph.
        precision: of the arithmetic: `float32` or `int8`.
        formats: by name, the file of each part: `model`, and `preprocess` where it has one.
        files: by name.
        source: `subject`, `sha256` and `provenance` of the checkpoint.
        tools: the versions of what made the Bundle.
        parity: what the export measured; None where it was not asked to.
        created: UTC, ISO 8601.
        quantization: of an INT8 bundle, how it was made and how its answers compare.
        thresholds: of a multi-label network, what each class's score must be above for a yes;
            None where nothing was chosen.
        temperature: what logits are divided by before they become scores; None: nothing.
    """

    model: dict[str, Any]
    labels: list[str]
    multi_label: bool
    preprocess: Preprocess
    input: Tensor
    output: Tensor
    precision: str
    formats: dict[str, dict[str, str]]
    files: dict[str, File]
    source: dict[str, Any]
    tools: dict[str, str]
    parity: dict[str, Any] | None
    created: str
    quantization: dict[str, Any] | None = None
    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None

    def __repr__(self) -> str:
        """The network, its classes, precision and formats in one line."""
        return (
            f"<Manifest: {self.model['name']} in {self.precision}, {len(self.labels):,} classes: "
            f"{first_of(self.labels)}; {', '.join(self.formats)}>"
        )

    def to_text(self) -> str:
        """The JSON document."""
        values = {"format": BUNDLE.format, "schema_version": SCHEMA_VERSION, **asdict(self)}
        values["preprocess"] = self.preprocess.to_dict()
        if not values["output"]["layout"]:
            del values["output"]["layout"]
        for name in _OPTIONAL:
            if values[name] is None:
                del values[name]
        return to_json(values, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str, name: str) -> Manifest:
        """The manifest that `to_text` wrote; `name` is the folder, for messages.

        Raises:
            BundleError: not JSON, another format or schema version, or a field that is missing,
                unknown or impossible.
        """
        values = read_document(text, BUNDLE, name)
        try:
            return _read(values)
        except (fields.WrongFieldError, UsageError) as error:
            raise BundleError(f"{name}: {MANIFEST}: {error}") from error


def _read(values: dict[str, Any]) -> Manifest:
    """The manifest of a document whose version is right."""
    values = {**dict.fromkeys(_OPTIONAL), **values}
    members = fields.closed(values, "the manifest", {"format", "schema_version", *_FIELDS})
    read = {name: check(members[name], name) for name, check in _FIELDS.items()}
    manifest = Manifest(**read)
    for name, parts in manifest.formats.items():
        for part in ("model", "preprocess"):
            if part in parts:
                _check_listed(manifest.files, name, part, parts[part])
    fields.check_decisions(
        manifest.thresholds, len(manifest.labels), multi_label=manifest.multi_label
    )
    classes, shape = manifest.output.shape[-1], manifest.input.shape
    if classes != len(manifest.labels):
        raise fields.WrongFieldError(f"{len(manifest.labels)} labels for {classes} logits")
    made = (manifest.preprocess.channels, *manifest.preprocess.size)
    if shape[1] is None or any(b not in (a, None) for a, b in zip(made, shape[1:], strict=True)):
        raise fields.WrongFieldError(
            f"preprocess makes images {list(made)}, input.shape is {list(shape)}"
        )
    return manifest


def _check_listed(files: dict[str, File], format: str, part: str, graph: str) -> None:
    """Raise unless the graph, and its weights beside it, are files that are verified.

    Raises:
        fields.WrongFieldError: `files` lacks one, or does not say that the format needs it.
    """
    names = [graph]
    for suffix, weights in WEIGHTS_OF.items():
        if graph.endswith(suffix):
            names.append(graph.removesuffix(suffix) + weights)
    for name in names:
        if name not in files or format not in files[name].formats:
            raise fields.WrongFieldError(
                f"formats.{format}.{part} needs {name!r}, which files does not list for it"
            )


def _format_name(value: Any, field: str) -> str:
    """The name of a format."""
    return fields.one_of(value, field, tuple(FORMATS))


def _model(value: Any, field: str) -> dict[str, Any]:
    """What is said of the network."""
    fields.closed(value, field, {"name", "family", "num_parameters"})
    fields.text(value["name"], f"{field}.name")
    fields.one_of(value["family"], f"{field}.family", FAMILIES)
    fields.count(value["num_parameters"], f"{field}.num_parameters")
    return dict(value)


def _tensor(value: Any, field: str) -> Tensor:
    """The input, or the output, of the model graph."""
    names = {"name", "dtype", "shape"} | ({"layout"} if field == "input" else set())
    fields.closed(value, field, names)
    fields.text(value["name"], f"{field}.name")
    fields.one_of(value["dtype"], f"{field}.dtype", ("float32",))
    if field == "input":
        fields.one_of(value["layout"], f"{field}.layout", ("NCHW",))
    shape, rank = value["shape"], 4 if field == "input" else 2
    right = isinstance(shape, list) and len(shape) == rank
    if not right or not all(n is None or (type(n) is int and n > 0) for n in shape):
        raise fields.WrongFieldError(
            f"{field}.shape must be {rank} sizes above 0 or null, not {fields.shown(shape)}"
        )
    return Tensor(**{**value, "shape": tuple(shape)})


def _formats(value: Any, field: str) -> dict[str, dict[str, str]]:
    """The file of each part, by format."""
    fields.mapping(value, field)
    for name, parts in value.items():
        _format_name(name, f"a name in {field}")
        fields.closed(parts, f"{field}.{name}", {"model", *FORMATS[name].parts})
        for part, text in parts.items():
            fields.text(text, f"{field}.{name}.{part}")
    if not value:
        raise fields.WrongFieldError(f"{field} is empty")
    return dict(value)


def _files(value: Any, field: str) -> dict[str, File]:
    """The files by their names."""
    fields.mapping(value, field)
    files = {}
    for name, parts in value.items():
        where = f"{field}.{name!r}"
        fields.file_name(name, where)
        fields.closed(parts, where, {"sha256", "size_bytes", "formats"})
        fields.file_hash(parts["sha256"], f"{where}.sha256")
        fields.count(parts["size_bytes"], f"{where}.size_bytes")
        fields.listed(parts["formats"], f"{where}.formats")
        formats = tuple(_format_name(one, f"{where}.formats") for one in parts["formats"])
        files[name] = File(parts["sha256"], parts["size_bytes"], formats)
    return files


def _source(value: Any, field: str) -> dict[str, Any]:
    """The checkpoint that it was made of."""
    fields.closed(value, field, {"subject", "sha256", "provenance"})
    if value["subject"] is not None:
        fields.text(value["subject"], f"{field}.subject")
    if value["sha256"] is not None:
        fields.file_hash(value["sha256"], f"{field}.sha256")
    fields.mapping(value["provenance"], f"{field}.provenance")
    return dict(value)


def _mapping_or_none(value: Any, field: str) -> dict[str, Any] | None:
    """An object of any members, or null."""
    return None if value is None else dict(fields.mapping(value, field))


def _created(value: Any, field: str) -> str:
    """A time in UTC."""
    if not _TIME.fullmatch(fields.text(value, field)):
        raise fields.WrongFieldError(
            f"{field} must be as 2026-01-31T12:00:00Z, not {fields.shown(value)}"
        )
    return str(value)


def _precision(value: Any, field: str) -> str:
    """The precision of the arithmetic."""
    return fields.one_of(value, field, PRECISIONS)


_FIELDS: dict[str, fields.Check] = {
    "model": _model,
    "labels": fields.labels,
    "multi_label": fields.flag,
    "preprocess": fields.preprocess,
    "input": _tensor,
    "output": _tensor,
    "precision": _precision,
    "formats": _formats,
    "files": _files,
    "source": _source,
    "tools": fields.texts_by_name,
    "parity": _mapping_or_none,
    "created": _created,
    "quantization": _mapping_or_none,
    "thresholds": fields.thresholds,
    "temperature": fields.temperature,
}
# Written only where there is something to say.
_OPTIONAL = ("quantization", "thresholds", "temperature")

"""`manifest.json` ⇄ `Manifest`: what a Bundle says of itself, closed and checked.

On the line: export writes it, every engine (Python, C++, browser) reads it first. Nothing here
imports torch or numpy. `schema/manifest-1.json` says the same as a JSON schema.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from densepath.bundle.formats import FORMATS
from densepath.errors import BundleError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.names import to_json
from densepath.wording import first_of

FORMAT = "densepath-bundle"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MANIFEST_HASH = "manifest.json.sha256"
PRECISIONS = ("float32", "int8")
FAMILIES = ("densenet", "dpn")
MOST_BYTES = 64 << 20  # of a manifest: far above one with a million labels

MOST_PIXELS_A_SIDE = 65_535
LARGEST_COUNT = 2**53 - 1  # what every reader of JSON reads exactly
# OpenVINO finds the weights of a graph by the graph's name.
WEIGHTS_OF = {".xml": ".bin"}

_HASH = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


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

    def __repr__(self) -> str:
        """The network, its classes, precision and formats in one line."""
        return (
            f"<Manifest: {self.model['name']} in {self.precision}, {len(self.labels):,} classes: "
            f"{first_of(self.labels)}; {', '.join(self.formats)}>"
        )

    def to_text(self) -> str:
        """The JSON document."""
        values = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(self)}
        values["preprocess"] = self.preprocess.to_dict()
        if not values["output"]["layout"]:
            del values["output"]["layout"]
        if values["quantization"] is None:
            del values["quantization"]
        return to_json(values, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str, name: str) -> Manifest:
        """The manifest that `to_text` wrote; `name` is the folder, for messages.

        Raises:
            BundleError: not JSON, another format or schema version, or a field that is missing,
                unknown or impossible.
        """
        try:
            values = json.loads(
                text,
                parse_constant=_refuse_constant,
                parse_float=_finite,
                object_pairs_hook=_without_doubles,
            )
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{name}: {MANIFEST} is not JSON: {error}.") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise BundleError(f"{name}: {MANIFEST} does not say that it describes a {FORMAT}.")
        version = values.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise BundleError(
                f"{name}: its schema version is {version!r}; this densepath reads version "
                f"{SCHEMA_VERSION}. Export it again, or install the densepath that wrote it."
            )
        try:
            return _read(values)
        except (_WrongError, UsageError) as error:
            raise BundleError(f"{name}: {MANIFEST}: {error}") from error


class _WrongError(Exception):
    """Which field is wrong, and how."""


def _refuse_constant(constant: str) -> float:
    """NaN and the infinities are no JSON."""
    raise ValueError(f"{constant} is not a number of JSON")


def _finite(digits: str) -> float:
    """The number; one that is too large for a float64 is refused."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{_shown(digits)} is too large a number")
    return number


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; readers do not agree on what a name means that stands there twice."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object names a member twice")
    return members


def _read(values: dict[str, Any]) -> Manifest:
    """The manifest of a document whose version is right."""
    values = {"quantization": None, **values}
    fields = _object(values, "the manifest", {"format", "schema_version", *_FIELDS})
    read = {name: check(fields[name], name) for name, check in _FIELDS.items()}
    manifest = Manifest(**read)
    for name, parts in manifest.formats.items():
        for part in ("model", "preprocess"):
            if part in parts:
                _check_listed(manifest.files, name, part, parts[part])
    classes, shape = manifest.output.shape[-1], manifest.input.shape
    if classes != len(manifest.labels):
        raise _WrongError(f"{len(manifest.labels)} labels for {classes} logits")
    made = (manifest.preprocess.channels, *manifest.preprocess.size)
    if shape[1] is None or any(b not in (a, None) for a, b in zip(made, shape[1:], strict=True)):
        raise _WrongError(f"preprocess makes images {list(made)}, input.shape is {list(shape)}")
    return manifest


def _check_listed(files: dict[str, File], format: str, part: str, graph: str) -> None:
    """Returns when the graph, and its weights beside it, are files that are verified.

    Raises:
        _WrongError: `files` lacks one, or does not say that the format needs it.
    """
    names = [graph]
    for suffix, weights in WEIGHTS_OF.items():
        if graph.endswith(suffix):
            names.append(graph.removesuffix(suffix) + weights)
    for name in names:
        if name not in files or format not in files[name].formats:
            raise _WrongError(
                f"formats.{format}.{part} needs {name!r}, which files does not list for it"
            )


def _object(value: Any, field: str, names: set[str]) -> Any:
    """The object with exactly these members."""
    if not isinstance(value, dict):
        raise _WrongError(f"{field} must be an object, not {_shown(value)}")
    missing, unknown = names - value.keys(), value.keys() - names
    if missing:
        raise _WrongError(f"{field} lacks {', '.join(sorted(missing))}")
    if unknown:
        raise _WrongError(f"{field} has the unknown member {', '.join(sorted(unknown))}")
    return value


def _is(kind: type, what: str) -> Callable[[Any, str], Any]:
    """A check of a value's type."""

    def check(value: Any, field: str) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _WrongError(f"{field} must be {what}, not {_shown(value)}")
        return value

    return check


_text, _flag, _whole = _is(str, "text"), _is(bool, "true or false"), _is(int, "a whole number")
_mapping = _is(dict, "an object")


def _count(value: Any, field: str, least: int = 0, most: int = LARGEST_COUNT) -> int:
    if not least <= _whole(value, field) <= most:
        raise _WrongError(f"{field} must lie in {least} … {most}, not {_shown(value)}")
    return int(value)


def _one_of(value: Any, field: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise _WrongError(f"{field} must be one of {', '.join(choices)}, not {_shown(value)}")
    return str(value)


def _format_name(value: Any, field: str) -> str:
    return _one_of(value, field, tuple(FORMATS))


def _model(value: Any, field: str) -> dict[str, Any]:
    _object(value, field, {"name", "family", "num_parameters"})
    _text(value["name"], f"{field}.name")
    _one_of(value["family"], f"{field}.family", FAMILIES)
    _count(value["num_parameters"], f"{field}.num_parameters")
    return dict(value)


def _labels(value: Any, field: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise _WrongError(f"{field} must be a list of names")
    return value


def _preprocess(value: Any, field: str) -> Preprocess:
    _mapping(value, field)
    for name in ("size", "mean", "std"):
        _is(list, "a list")(value.get(name), f"{field}.{name}")
    for side in (*value["size"], value.get("resize_short")):
        if side is not None:
            _count(side, f"{field}: a side", 1, MOST_PIXELS_A_SIDE)
    for number in (*value["mean"], *value["std"]):
        if type(number) not in (int, float):
            raise _WrongError(f"{field}: mean and std must be numbers, not {_shown(number)}")
    return Preprocess.from_dict(value)


def _tensor(value: Any, field: str) -> Tensor:
    names = {"name", "dtype", "shape"} | ({"layout"} if field == "input" else set())
    _object(value, field, names)
    _text(value["name"], f"{field}.name")
    _one_of(value["dtype"], f"{field}.dtype", ("float32",))
    if field == "input":
        _one_of(value["layout"], f"{field}.layout", ("NCHW",))
    shape, rank = value["shape"], 4 if field == "input" else 2
    right = isinstance(shape, list) and len(shape) == rank
    if not right or not all(n is None or (type(n) is int and n > 0) for n in shape):
        raise _WrongError(
            f"{field}.shape must be {rank} sizes above 0 or null, not {_shown(shape)}"
        )
    return Tensor(**{**value, "shape": tuple(shape)})


def _formats(value: Any, field: str) -> dict[str, dict[str, str]]:
    _mapping(value, field)
    for name, parts in value.items():
        _format_name(name, f"a name in {field}")
        _object(parts, f"{field}.{name}", {"model", *FORMATS[name].parts})
        for part, text in parts.items():
            _text(text, f"{field}.{name}.{part}")
    if not value:
        raise _WrongError(f"{field} is empty")
    return dict(value)


def _files(value: Any, field: str) -> dict[str, File]:
    _mapping(value, field)
    files = {}
    for name, parts in value.items():
        where = f"{field}.{name!r}"
        if not _NAME.fullmatch(name):
            raise _WrongError(f"{where}: a file's name must be a plain one, without folders")
        _object(parts, where, {"sha256", "size_bytes", "formats"})
        if not isinstance(parts["sha256"], str) or not _HASH.fullmatch(parts["sha256"]):
            raise _WrongError(f"{where}.sha256 must be 64 hexadecimal digits")
        _count(parts["size_bytes"], f"{where}.size_bytes")
        if not isinstance(parts["formats"], list):
            raise _WrongError(f"{where}.formats must be a list")
        formats = tuple(_format_name(one, f"{where}.formats") for one in parts["formats"])
        files[name] = File(parts["sha256"], parts["size_bytes"], formats)
    return files


def _source(value: Any, field: str) -> dict[str, Any]:
    _object(value, field, {"subject", "sha256", "provenance"})
    if value["subject"] is not None:
        _text(value["subject"], f"{field}.subject")
    if value["sha256"] is not None and not _HASH.fullmatch(_text(value["sha256"], field)):
        raise _WrongError(f"{field}.sha256 must be 64 hexadecimal digits")
    _mapping(value["provenance"], f"{field}.provenance")
    return dict(value)


def _tools(value: Any, field: str) -> dict[str, str]:
    _mapping(value, field)
    return {name: _text(version, f"{field}.{name}") for name, version in value.items()}


def _mapping_or_none(value: Any, field: str) -> dict[str, Any] | None:
    return None if value is None else dict(_mapping(value, field))


def _created(value: Any, field: str) -> str:
    if not _TIME.fullmatch(_text(value, field)):
        raise _WrongError(f"{field} must be as 2026-01-31T12:00:00Z, not {_shown(value)}")
    return str(value)


def _precision(value: Any, field: str) -> str:
    return _one_of(value, field, PRECISIONS)


def _shown(value: Any) -> str:
    """A value for a message, not all of it when it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


_FIELDS: dict[str, Callable[[Any, str], Any]] = {
    "model": _model,
    "labels": _labels,
    "multi_label": _flag,
    "preprocess": _preprocess,
    "input": _tensor,
    "output": _tensor,
    "precision": _precision,
    "formats": _formats,
    "files": _files,
    "source": _source,
    "tools": _tools,
    "parity": _mapping_or_none,
    "created": _created,
    "quantization": _mapping_or_none,
}

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

from densepath.errors import BundleError, UsageError
from densepath.preprocess import Preprocess

FORMAT = "densepath-bundle"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MANIFEST_HASH = "manifest.json.sha256"
FORMATS = ("onnx", "openvino", "torch", "aoti")
FAMILIES = ("densenet", "dpn")
MOST_BYTES = 64 << 20  # of a manifest: far above one with a million labels

_HASH = re.compile(r"[0-9a-f]{64}")
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
        precision: of the arithmetic: `float32`.
        formats: by name, the file of each part: `model`, and `preprocess` where it has one.
        files: by name.
        source: `subject`, `sha256` and `provenance` of the checkpoint.
        tools: the versions of what made the Bundle.
        parity: what the export measured; None where it was not asked to.
        created: UTC, ISO 8601.
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

    def to_text(self) -> str:
        """The JSON document."""
        values = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(self)}
        values["preprocess"] = self.preprocess.to_dict()
        if not values["output"]["layout"]:
            del values["output"]["layout"]
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str, name: str) -> Manifest:
        """The manifest that `to_text` wrote; `name` is the folder, for messages.

        Raises:
            BundleError: not JSON, another format or schema version, or a field that is missing,
                unknown or impossible.
        """
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
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


def _read(values: dict[str, Any]) -> Manifest:
    """The manifest of a document whose version is right."""
    fields = _object(values, "the manifest", {"format", "schema_version", *_FIELDS})
    read = {name: check(fields[name], name) for name, check in _FIELDS.items()}
    manifest = Manifest(**read)
    for name, parts in manifest.formats.items():
        for part, file in parts.items():
            if part in ("model", "preprocess") and file not in manifest.files:
                raise _WrongError(f"formats.{name}.{part} is {file!r}, which files does not list")
    classes, channels = manifest.output.shape[-1], manifest.input.shape[1]
    if classes != len(manifest.labels):
        raise _WrongError(f"{len(manifest.labels)} labels for {classes} logits")
    if channels != manifest.preprocess.channels:
        made = manifest.preprocess.channels
        raise _WrongError(f"preprocess makes {made} channels, the input has {channels}")
    return manifest


def _object(value: Any, field: str, names: set[str], optional: frozenset[str] = frozenset()) -> Any:
    """The object with exactly these members."""
    if not isinstance(value, dict):
        raise _WrongError(f"{field} must be an object, not {_shown(value)}")
    missing, unknown = names - value.keys() - optional, value.keys() - names
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


def _one_of(value: Any, field: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise _WrongError(f"{field} must be one of {', '.join(choices)}, not {_shown(value)}")
    return str(value)


def _model(value: Any, field: str) -> dict[str, Any]:
    _object(value, field, {"name", "family", "num_parameters"})
    _text(value["name"], f"{field}.name")
    _one_of(value["family"], f"{field}.family", FAMILIES)
    _whole(value["num_parameters"], f"{field}.num_parameters")
    return dict(value)


def _labels(value: Any, field: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise _WrongError(f"{field} must be a list of names")
    return value


def _preprocess(value: Any, field: str) -> Preprocess:
    _mapping(value, field)
    numbers = [n for name in ("size", "mean", "std") for n in value.get(name) or ()]
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise _WrongError(f"{field} has a size, mean or std that is not a number")
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
        raise _WrongError(f"{field}.shape must be {rank} sizes above 0 or null, not {shape!r}")
    return Tensor(**{**value, "shape": tuple(shape)})


def _formats(value: Any, field: str) -> dict[str, dict[str, str]]:
    _mapping(value, field)
    for name, parts in value.items():
        _one_of(name, f"a name in {field}", FORMATS)
        more = {"machine", "system"} if name == "aoti" else {"preprocess"}
        _object(parts, f"{field}.{name}", {"model", *more}, frozenset(more))
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
        if _whole(parts["size_bytes"], f"{where}.size_bytes") < 0:
            raise _WrongError(f"{where}.size_bytes is below 0")
        if not isinstance(parts["formats"], list):
            raise _WrongError(f"{where}.formats must be a list")
        formats = tuple(_one_of(one, f"{where}.formats", FORMATS) for one in parts["formats"])
        files[name] = File(parts["sha256"], parts["size_bytes"], formats)
    return files


def _source(value: Any, field: str) -> dict[str, Any]:
    return dict(_object(value, field, {"subject", "sha256", "provenance"}))


def _tools(value: Any, field: str) -> dict[str, str]:
    _mapping(value, field)
    return {name: _text(version, f"{field}.{name}") for name, version in value.items()}


def _parity(value: Any, field: str) -> dict[str, Any] | None:
    return None if value is None else dict(_mapping(value, field))


def _precision(value: Any, field: str) -> str:
    return _one_of(value, field, ("float32",))


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
    "parity": _parity,
    "created": _text,
}

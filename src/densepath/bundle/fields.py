"""Checks of a JSON document's members, for descriptions that are closed: each says what is wrong.

On the line: `manifest.py` and an NPU program's description read their documents with these. A check
takes a value and the name of its field, and gives the value as the description holds it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from densepath.images.preprocess import Preprocess

Check = Callable[[Any, str], Any]
Described = TypeVar("Described")

LARGEST_COUNT = 2**53 - 1  # what every reader of JSON reads exactly
MOST_PIXELS_A_SIDE = 65_535
MOST_TEMPERATURE = 1e6
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class WrongFieldError(Exception):
    """Which field is wrong, and how."""


def read_json(text: str) -> Any:
    """The document, read as the strictest of its readers does.

    Raises:
        ValueError: not JSON, a number that no float64 holds, or a member that stands there twice.
        RecursionError: it is nested too deep.
    """
    return json.loads(
        text,
        parse_constant=_refuse_constant,
        parse_float=_finite,
        object_pairs_hook=_without_doubles,
    )


def _refuse_constant(constant: str) -> float:
    """NaN and the infinities are no JSON."""
    raise ValueError(f"{constant} is not a number of JSON")


def _finite(digits: str) -> float:
    """The number; one that is too large for a float64 is refused."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{shown(digits)} is too large a number")
    return number


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; readers do not agree on what a name means that stands there twice."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object names a member twice")
    return members


def shown(value: Any) -> str:
    """A value for a message, not all of it when it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def closed(value: Any, field: str, names: set[str]) -> Any:
    """The object with exactly these members."""
    if not isinstance(value, dict):
        raise WrongFieldError(f"{field} must be an object, not {shown(value)}")
    missing, unknown = names - value.keys(), value.keys() - names
    if missing:
        raise WrongFieldError(f"{field} lacks {', '.join(sorted(missing))}")
    if unknown:
        raise WrongFieldError(f"{field} has the unknown member {', '.join(sorted(unknown))}")
    return value


def _is(kind: type, what: str) -> Check:
    """A check of a value's type."""

    def check(value: Any, field: str) -> Any:
        """The value, if it is of that type."""
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise WrongFieldError(f"{field} must be {what}, not {shown(value)}")
        return value

    return check


text, flag, whole = _is(str, "text"), _is(bool, "true or false"), _is(int, "a whole number")
mapping, listed = _is(dict, "an object"), _is(list, "a list")


def count(value: Any, field: str, least: int = 0, most: int = LARGEST_COUNT) -> int:
    """A whole number within limits."""
    if not least <= whole(value, field) <= most:
        raise WrongFieldError(f"{field} must lie in {least} … {most}, not {shown(value)}")
    return int(value)


def number(value: Any, field: str) -> float:
    """A number of 0 or more."""
    if type(value) not in (int, float) or value < 0:
        raise WrongFieldError(f"{field} must be a number of 0 or more, not {shown(value)}")
    return float(value)


def one_of(value: Any, field: str, choices: tuple[str, ...]) -> str:
    """One of several texts."""
    if value not in choices:
        raise WrongFieldError(f"{field} must be one of {', '.join(choices)}, not {shown(value)}")
    return str(value)


def file_name(value: Any, field: str) -> str:
    """A name within the folder: no separators, nothing hidden."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise WrongFieldError(f"{field}: a file's name must be a plain one, without folders")
    return value


def file_hash(value: Any, field: str) -> str:
    """A SHA-256."""
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise WrongFieldError(f"{field} must be 64 hexadecimal digits")
    return value


def labels(value: Any, field: str) -> list[str]:
    """The names of the classes."""
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise WrongFieldError(f"{field} must be a list of names")
    return value


def thresholds(value: Any, field: str) -> tuple[float, ...] | None:
    """What each class's score must be above for a yes, 0 to 1; None where nothing was chosen."""
    if value is None:
        return None
    for one in listed(value, field):
        if type(one) not in (int, float) or not 0 <= one <= 1:
            raise WrongFieldError(f"{field}: a threshold lies in 0 … 1, not at {shown(one)}")
    return tuple(float(one) for one in value)


def temperature(value: Any, field: str) -> float | None:
    """What logits are divided by before they become scores; None where they are taken as are."""
    if value is None:
        return None
    if not 0 < number(value, field) <= MOST_TEMPERATURE:
        raise WrongFieldError(
            f"{field} lies above 0 and up to {MOST_TEMPERATURE:g}, not at {shown(value)}"
        )
    return float(value)


def check_decisions(
    chosen: tuple[float, ...] | None, num_classes: int, *, multi_label: bool
) -> None:
    """Raise unless thresholds fit the network.

    Raises:
        WrongFieldError: there is not one for each class, or classes are not decided one by one.
    """
    if chosen is None:
        return
    if len(chosen) != num_classes:
        raise WrongFieldError(f"{len(chosen)} thresholds for {num_classes} classes")
    if not multi_label:
        raise WrongFieldError(
            "thresholds are of multi-label networks, and multi_label is false: of classes that "
            "exclude each other the likeliest is the answer"
        )


def preprocess(value: Any, field: str) -> Preprocess:
    """The way from an image to the network's input.

    Raises:
        UsageError: one that there is not.
    """
    mapping(value, field)
    for name in ("size", "mean", "std"):
        listed(value.get(name), f"{field}.{name}")
    for side in (*value["size"], value.get("resize_short")):
        if side is not None:
            count(side, f"{field}: a side", 1, MOST_PIXELS_A_SIDE)
    for one in (*value["mean"], *value["std"]):
        if type(one) not in (int, float):
            raise WrongFieldError(f"{field}: mean and std must be numbers, not {shown(one)}")
    return Preprocess.from_dict(value)


def texts_by_name(value: Any, field: str) -> dict[str, str]:
    """An object of texts."""
    return {name: text(one, f"{field}.{name}") for name, one in mapping(value, field).items()}


def described(kind: type[Described], value: Any, field: str) -> Described:
    """The dataclass whose fields these members are: all of them, no other, each of its type.

    Types are text, numbers of 0 or more, lists and objects of these, and dataclasses likewise.
    """
    types_of = typing.get_type_hints(kind)
    names = [one.name for one in dataclasses.fields(kind)]  # type: ignore[arg-type]
    closed(value, field, set(names))
    return kind(**{name: _typed(types_of[name], value[name], f"{field}.{name}") for name in names})


def _typed(kind: Any, value: Any, field: str) -> Any:
    """The value of a field of this type."""
    if kind in _BY_TYPE:
        return _BY_TYPE[kind](value, field)
    if dataclasses.is_dataclass(kind):
        return described(typing.cast(type, kind), value, field)
    parts = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return None if value is None else _typed(parts[0], value, field)
    if typing.get_origin(kind) is dict:
        members = mapping(value, field).items()
        return {name: _typed(parts[1], one, f"{field}.{name}") for name, one in members}
    items = [_typed(parts[0], one, f"{field}: an item") for one in listed(value, field)]
    return typing.get_origin(kind)(items)


_BY_TYPE: dict[type, Check] = {str: text, bool: flag, int: count, float: number}

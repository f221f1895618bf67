"""`inference.yml`, which PaddleClas writes beside a model: preprocessing, labels, thresholds.

Source: PaddleClas 2.6, the folders `deploy/python/` and `deploy/configs/`, for what each operator
does, its defaults, and the form of the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from densepath.errors import UsageError, WeightsError
from densepath.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocess

MOST_BYTES, MOST_VALUES = 16 << 20, 1_000_000
_IMAGENET_LIST = "imagenet1k_label_list.txt"
_MULTI_LABEL = "MultiLabelThreshOutput"
# What decides nothing: how arrays are laid out, and where answers are written.
_SILENT_OPERATORS = ("ToCHWImage",)
_SILENT_ANSWERS = ("main_indicator", "SavePreLabel")


@dataclass
class InferenceConfig:
    """What an `inference.yml` says, as far as it has a counterpart here.

    Attributes:
        preprocess: the way to the input; None where it says none.
        labels: the class names by their numbers.
        multi_label: every class is a yes or no of its own.
        threshold: from which probability on a class is there; one, or one a class.
        bgr: the network takes blue first.
        notes: what has no counterpart, in sentences.
    """

    preprocess: Preprocess | None = None
    labels: dict[int, str] | None = None
    multi_label: bool = False
    threshold: float | list[float] | None = None
    bgr: bool = False
    notes: list[str] = field(default_factory=list)


def read_config(path: Path, size: tuple[int, int] | None) -> InferenceConfig:
    """What the file says.

    Args:
        path: of `inference.yml`.
        size: height and width of the images, where the network fixes them.

    Raises:
        WeightsError: it is damaged, or a value is impossible.
    """
    if path.stat().st_size > MOST_BYTES:
        raise WeightsError(f"{path} has more than {MOST_BYTES:,} bytes; it is no such description.")
    config = InferenceConfig()
    try:
        document = yaml.safe_load(path.read_bytes())
        _check_unfolded(document)
        way = _section(document, "PreProcess").get("transform_ops") or []
        answers = _section(document, "PostProcess")
        if way:
            _read_way([_one(entry) for entry in way], size, config)
        for name, options in answers.items():
            _read_answer(str(name), options, path, config)
    except (
        yaml.YAMLError,
        UnicodeDecodeError,
        RecursionError,
        OverflowError,
        TypeError,
        ValueError,
        KeyError,
        ArithmeticError,
    ) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path} cannot be read as an inference.yml: {error!s:.200}") from error
    except UsageError as error:
        raise WeightsError(f"{path}: {error}") from error
    config.notes = [f"{path.name}: {note}" for note in config.notes]
    return config


def _check_unfolded(document: Any) -> None:
    """Raise unless the document is small, written out without aliases.

    Raises:
        ValueError: a few lines of aliases unfold to more than any memory, or to a circle.
    """
    waiting, count = [document], 0
    while waiting:
        one = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            raise ValueError(f"its aliases unfold to more than {MOST_VALUES:,} values")
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set):
            waiting += one


def _section(document: Any, name: str) -> Mapping[str, Any]:
    """A section of the file; empty where it has none."""
    if not isinstance(document, dict):
        raise ValueError("it is no table")
    section = document.get(name) or {}
    if not isinstance(section, dict):
        raise ValueError(f"{name} is no table")
    return section


def _one(entry: Any) -> tuple[str, Mapping[str, Any]]:
    """An operator's name and options."""
    if isinstance(entry, str):
        return entry, {}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ValueError(f"an operator is {entry!r:.60}")
    ((name, options),) = entry.items()
    return str(name), options if isinstance(options, dict) else {}


def _read_way(
    operators: list[tuple[str, Mapping[str, Any]]],
    size: tuple[int, int] | None,
    config: InferenceConfig,
) -> None:
    """Note the preprocessing that these operators make."""
    way = Preprocess(
        size=size or (224, 224),
        interpolation="cv2_bilinear",
        side_rounding="round",
        crop_rounding="floor",
    )
    resize_short: int | None = None
    cropped = resized = False
    for name, options in operators:
        if name == "DecodeImage":
            config.bgr = not options.get("to_rgb", True)
        elif name == "ResizeImage":
            way = replace(way, interpolation=_interpolation(options, config))
            resize_short = _whole(options.get("resize_short")) or None
            if resize_short is None:
                way, resized = replace(way, size=_width_height(options["size"])), True
        elif name == "CropImage":
            way, cropped = replace(way, size=_width_height(options["size"])), True
        elif name == "NormalizeImage":
            mean, std = _normalisation(options)
            way = replace(way, mean=mean, std=std)
        elif name not in _SILENT_OPERATORS:
            config.notes.append(f"its {name} has no counterpart here and is left out")
    if resize_short is not None and not (cropped or size):
        way = replace(way, size=(resize_short, resize_short))
        config.notes.append(
            "it names no crop; images become squares of the short side that it names"
        )
    if resize_short is None and not resized:
        config.notes.append("it names no size; images are squeezed to the network's")
    config.preprocess = replace(way, resize_short=resize_short)


def _whole(value: Any) -> int:
    """A number of pixels; 0 where there is none."""
    return int(value) if value is not None else 0


def _width_height(value: Any) -> tuple[int, int]:
    """Height and width of a side, or of PaddleClas's [width, height]."""
    if isinstance(value, int):
        return value, value
    width, height = (int(side) for side in value)
    return height, width


def _interpolation(options: Mapping[str, Any], config: InferenceConfig) -> Interpolation:
    """The interpolation, or the nearest that there is here, which is said."""
    backend = str(options.get("backend") or "cv2").lower()
    name = str(options.get("interpolation") or "bilinear").lower()
    found: Interpolation = "cv2_bilinear" if backend == "cv2" else "bilinear"
    if name == "bicubic":
        found = "bicubic"
    if name not in ("bilinear", "bicubic") or (backend, name) == ("cv2", "bicubic"):
        config.notes.append(
            f"its interpolation {name} of {backend} has no counterpart here; {found} is taken"
        )
    return found


def _normalisation(options: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of values scaled to 0…1."""
    scale = _fraction(options.get("scale"))
    factor = 255 * scale
    if math.isclose(factor, 1, rel_tol=1e-4):  # 0.00392157
        factor = 1.0
    mean: Sequence[Any] = options.get("mean") or IMAGENET_MEAN
    std: Sequence[Any] = options.get("std") or IMAGENET_STD
    means, stds = ([float(value) / factor for value in row] for row in (mean, std))
    return tuple(means), tuple(stds)


def _fraction(value: Any) -> float:
    """A number, also as the text `1.0/255.0`, which PaddleClas evaluates as code."""
    if value is None:
        return 1 / 255
    numerator, _, denominator = str(value).strip().partition("/")
    found = float(numerator) / float(denominator or 1)
    if not 0 < found < math.inf:
        raise ValueError(f"scale is {value!r}")
    return found


def _read_answer(name: str, options: Any, path: Path, config: InferenceConfig) -> None:
    """Note what a way to answer says of labels and thresholds."""
    if name in _SILENT_ANSWERS:
        return
    options = options if isinstance(options, dict) else {}
    labels = _labels(options, path, config)
    config.labels = config.labels or labels
    threshold = options.get("threshold")
    if name == _MULTI_LABEL:
        config.multi_label = True
        given: Any = 0.5 if threshold is None else threshold
        several = isinstance(given, list)
        config.threshold = [float(one) for one in given] if several else float(given)
    elif name != "Topk":
        what = f" (threshold {threshold})" if threshold is not None else ""
        config.notes.append(f"its {name}{what} has no counterpart here and is left out")


def _labels(
    options: Mapping[str, Any], path: Path, config: InferenceConfig
) -> dict[int, str] | None:
    """The class names of a way to answer, in it or in a file that it names."""
    held = options.get("label_list")
    if isinstance(held, dict):
        return {int(number): str(name) for number, name in held.items()}
    if isinstance(held, list) and held:
        return {number: str(name) for number, name in enumerate(held)}
    named = options.get("class_id_map_file")
    if not named:
        return None
    named = Path(str(named).replace("\\", "/"))
    delimiter = options.get("delimiter") or " "
    for file in (path.parent / named.name, path.parent / named):
        if file.is_file() and file.stat().st_size <= MOST_BYTES:
            return _numbered(file.read_text(encoding="utf-8"), str(delimiter))
    if named.name != _IMAGENET_LIST:  # which are the names that 1,000 classes get anyway
        config.notes.append(f"its list of labels, {named.name}, is not beside it")
    return None


def _numbered(text: str, delimiter: str) -> dict[int, str]:
    """The names of a list with `number name` a line."""
    found = {}
    for line in text.splitlines():
        number, _, name = line.partition(delimiter)
        if number.strip():
            found[int(number)] = name.strip()
    return found

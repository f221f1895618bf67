"""Files that hold tensors under names: whose names they are, of which model, and under ours.

The reader of PyTorch's, Paddle's and MindSpore's rows of `origins.py`: the framework says how a
file is read, the names in it whose network it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Set
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from densepath.errors import KeyMismatchError, WeightsError
from densepath.models.build import resolve_spec
from densepath.models.catalogue import CATALOGUE
from densepath.models.spec import ModelSpec
from densepath.weights import mindspore, paddle, pytorch
from densepath.weights.imported import Imported, ImportRequest
from densepath.weights.key_map import KeyMap, differences
from densepath.weights.match import expected_shapes, mismatch
from densepath.weights.model_of_shapes import counts_of, shapes_of
from densepath.weights.origins import find_origin
from densepath.weights.published import habits
from densepath.weights.torch_names import is_network
from densepath.weights.torch_network import read_network
from densepath.weights.trainers import Contents, describe_aside, find_network

Naming = Literal["paddle", "mindcv", "pytorch"]

# How a file of each row becomes tables of arrays.
_LOADERS: dict[str, Callable[[Path], Any]] = {
    "safetensors": pytorch.read_safetensors,
    "torch": pytorch.read_pth,
    "pdparams": paddle.read_pdparams,
    "mindspore": mindspore.read_ckpt,
}
_KEY_MAPS: dict[str, Callable[[ModelSpec], KeyMap]] = {
    "paddle": paddle.key_map,
    "mindcv": mindspore.key_map,
}


def read(path: Path, request: ImportRequest) -> Imported:
    """The network whose tensors a file holds by name.

    Raises:
        UnsafeFileError: the file asks for code to be run.
        KeyMismatchError: it holds two networks, none, or not the one that is asked for.
        WeightsError: it cannot be read.
    """
    naming, found = read_tensors(path)
    if naming is None:
        raise _foreign(path, request.model, found.tensors)
    if naming == "pytorch":
        return read_network(found, request, path)
    spec = request.model or _find_model(naming, found.tensors, path)
    switches = request.source.switches if request.source else habits(naming, spec)[0]
    spec = resolve_spec(spec, bn_eps=switches.bn_eps, stem_pool=switches.stem_pool)
    tensors, aside = _canonical(naming, found.tensors, spec, path)
    num_classes, in_channels = counts_of(shapes_of(tensors), spec)
    notes = describe_aside(found, aside)
    return Imported(naming, spec, tensors, num_classes, in_channels, notes=notes)


def read_tensors(path: Path) -> tuple[Naming | None, Contents]:
    """The file's network in float32 under the file's own names, and whose names they are.

    The naming is None where no name is one of a DenseNet or DPN.

    Raises:
        UnsafeFileError: the file asks for code to be run.
        KeyMismatchError: two networks are in it.
        WeightsError: no such file, none of the known kinds, damaged, or without tensors.
    """
    value = _LOADERS[find_origin(path).name](path)
    found = find_network(value, lambda names: naming_of(names) is not None, str(path))
    if found is None:
        raise WeightsError(
            f"{path} holds no table of arrays but a value of type {type(value).__name__}; save "
            "model.state_dict() instead of the model."
        )
    _check_memory(found, path)
    tensors = {name: _to_float32(tensor) for name, tensor in found.tensors.items()}
    return naming_of(tensors), replace(found, tensors=tensors)


def _check_memory(found: Contents, path: Path) -> None:
    """Raise unless the file has a byte at least for each number.

    Tensors may share their numbers: a small file can name the same ones thousands of times.

    Raises:
        WeightsError: it has not.
    """
    count = sum(int(np.prod(tensor.shape, dtype=object)) for tensor in found.tensors.values())
    if count > path.stat().st_size:
        raise WeightsError(
            f"{path} has {path.stat().st_size:,} bytes, and its tensors {count:,} numbers: they "
            "repeat one another. Save model.state_dict() again, each tensor by its own "
            "(tensor.clone())."
        )


def _to_float32(value: Tensor | np.ndarray) -> Tensor:
    """The values in float32, in memory of their own."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(np.float32))
    return value.detach().to(torch.float32).contiguous()


def naming_of(names: Iterable[str]) -> Naming | None:
    """Whose names these are, or None."""
    names = list(names)
    if any(name.startswith(tuple(f"{stem}." for stem in paddle.STEMS.values())) for name in names):
        return "paddle"
    if any(name.endswith(".moving_mean") for name in names):
        return "mindcv"
    return "pytorch" if is_network(names) else None


def _find_model(naming: Naming, found: dict[str, Tensor], path: Path) -> ModelSpec:
    """The catalogue's model that these tensors are of; else the nearest, for it to be refused."""
    key_map = _KEY_MAPS[naming]
    fitting_names = [
        spec for spec in CATALOGUE.values() if set().union(*key_map(spec).values()) <= set(found)
    ]
    for spec in sorted(fitting_names, key=lambda spec: -len(key_map(spec))):
        tensors, _ = _canonical(naming, found, spec, path)
        shapes = shapes_of(tensors)
        if shapes == expected_shapes(spec, *counts_of(shapes, spec)):
            return spec
    specs = fitting_names or [s for s in CATALOGUE.values() if s.arch.stem == "imagenet"]
    return min(specs, key=lambda spec: sum(map(len, differences(key_map(spec), found))))


def _canonical(
    naming: Naming, found: dict[str, Tensor], spec: ModelSpec, path: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under our names, and the names of those that are not the network's.

    Raises:
        KeyMismatchError: names are missing or left over.
    """
    names = _KEY_MAPS[naming](spec)
    missing, unexpected = differences(names, found)
    aside = [name for name in unexpected if not _is_layer(naming, name)]
    unexpected = [name for name in unexpected if _is_layer(naming, name)]
    if missing or unexpected:
        cause = _cause(_KEY_MAPS[naming], found.keys() - set(aside), [*unexpected, *aside])
        raise mismatch(str(path), spec.name, missing, unexpected, [], cause)
    transposed = paddle.TRANSPOSED if naming == "paddle" else ()
    joined = {
        ours: _join([found[key] for key in theirs], ours in transposed, ours, path)
        for ours, theirs in names.items()
    }
    return joined, aside


@lru_cache
def _layer_names(naming: Naming) -> frozenset[str]:
    """The first parts of the names that a system gives to a network of any size."""
    specs = [spec for spec in CATALOGUE.values() if spec.arch.stem == "imagenet"]
    keys = {key for spec in specs for parts in _KEY_MAPS[naming](spec).values() for key in parts}
    return frozenset(_first_part(key) for key in keys)


def _first_part(name: str) -> str:
    """The name up to its first dot, numbers aside: `dpn#` of `dpn12.c1x1_a_func._conv.weight`."""
    return re.sub(r"\d+", "#", name.partition(".")[0])


def _is_layer(naming: Naming, name: str) -> bool:
    """Whether a system's name is that of a part of these networks, if perhaps of a larger one."""
    return _first_part(name) in _layer_names(naming)


def _join(parts: list[Tensor], transposed: bool, name: str, path: Path) -> Tensor:
    """The parts along the first axis, turned where the other system stores it turned.

    Raises:
        KeyMismatchError: their other sides differ.
    """
    if len({part.shape[1:] for part in parts}) > 1:
        raise KeyMismatchError(f"{path}: the parts of {name} have different shapes.")
    whole = torch.cat(parts) if len(parts) > 1 else parts[0]
    return whole.T.contiguous() if transposed and whole.dim() == 2 else whole


def _cause(key_map: Callable[[ModelSpec], KeyMap], layers: Set[str], unexpected: list[str]) -> str:
    """The likely cause of names that do not fit, in a sentence, or nothing."""
    fitting = [
        spec.name
        for spec in CATALOGUE.values()
        if spec.arch.stem == "imagenet" and not any(differences(key_map(spec), layers))
    ]
    if fitting:
        return f"These are the weights of {' or '.join(fitting)}: name that model."
    if any(word in name for name in unexpected for word in ("velocity", "moment", "beta1_pow")):
        return "It looks like an optimiser's state; the network is in another file beside it."
    return ""


def _foreign(path: Path, spec: ModelSpec | None, found: dict[str, Tensor]) -> KeyMismatchError:
    """The error for a file that holds some other kind of network, or none."""
    some = ", ".join(list(found)[:3]) or "none"
    wrong = f"does not fit {spec.name}" if spec else "holds no DenseNet or DPN"
    return KeyMismatchError(
        f"{path} {wrong}: it has {len(found)} tensors ({some}), and none has a "
        "name that PaddleClas, MindCV, timm or torchvision gives to a DenseNet or DPN. It is "
        "another kind of network, or not a network's weights."
    )

"""A weights file of another system becomes a Checkpoint (`densepath import`)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence, Set
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from densepath.errors import KeyMismatchError, UsageError
from densepath.files import sha256
from densepath.images.preprocess import Preprocess
from densepath.models.build import resolve_spec
from densepath.models.catalogue import CATALOGUE, find_spec
from densepath.models.spec import ModelSpec
from densepath.weights import mindspore, paddle, published, pytorch
from densepath.weights.adapt import adapt_preprocess, first_layer
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.formats import Naming, read_tensors
from densepath.weights.key_map import KeyMap, differences
from densepath.weights.labels import known_labels
from densepath.weights.match import check_finite, check_tensors, mismatch
from densepath.weights.preprocess_changes import AS_GUESSED, PreprocessChanges
from densepath.weights.trainers import describe_aside

Say: TypeAlias = Callable[[str], None]


def warn(note: str) -> None:
    """Warn the caller of `import_weights`."""
    warnings.warn(note, stacklevel=3)


_KEY_MAPS: dict[str, Callable[[ModelSpec], KeyMap]] = {
    "paddle": paddle.key_map,
    "mindcv": mindspore.key_map,
}


def import_weights(
    path: str | Path,
    model: str,
    *,
    source: str | None = None,
    labels: Sequence[str] | None = None,
    multi_label: bool = False,
    preprocess: PreprocessChanges = AS_GUESSED,
    say: Say = warn,
) -> Checkpoint:
    """The checkpoint of a file that PaddleClas, MindCV, timm or torchvision wrote, or a trainer.

    Args:
        path: a `.pdparams`, `.ckpt`, `.pth` or `.safetensors` file.
        model: the catalogue's model that it is of.
        source: the published weights that the file is a copy or a relative of, whose
            preprocessing it then has; by default the habit of the system whose names it uses.
        labels: the class names; by default ImageNet-1k's for 1,000 classes, else numbers.
        multi_label: every class is a yes or no of its own.
        preprocess: what of the preprocessing is known, and is not to be guessed.
        say: is told what of the file was left aside; by default Python's warnings are.

    The checkpoint's `provenance` has where the preprocessing comes from (`preprocess`), and what
    was left aside (`notes`).

    Raises:
        UnknownNameError: no such model or source.
        UsageError: not one label for each class, a source of another model, or an impossible
            preprocessing.
        UnsafeFileError: the file asks for code to be run.
        KeyMismatchError: the file is not of that model; the message says how and likely why.
        WeightsError: the file cannot be read.
    """
    path, spec = Path(path), find_spec(model)
    naming, found = read_tensors(path)
    if naming is None:
        raise _foreign(path, spec, found.tensors)
    switches, guessed, origin = _habits(naming, spec, source)
    spec = resolve_spec(spec, bn_eps=switches.bn_eps, stem_pool=switches.stem_pool)
    tensors, aside = _canonical(naming, found.tensors, spec, path)
    num_classes, in_channels = _counts(tensors, spec)
    check_tensors(tensors, spec, num_classes, in_channels, str(path))
    check_finite(tensors, str(path))
    names = _check_labels(labels, num_classes, path)
    made, origin = preprocess.apply(adapt_preprocess(guessed, in_channels), origin)
    spec.check_size(made.size)
    notes = describe_aside(str(path), found, aside)
    for note in notes:
        say(note)
    provenance = {
        "imported_from": path.name,
        "sha256": sha256(path),
        "names": naming,
        "source": source,
        "preprocess": origin,
        "notes": describe_aside(path.name, found, aside),
    }
    return Checkpoint(spec, made, names, tensors, in_channels, multi_label, provenance)


def _check_labels(labels: Sequence[str] | None, num_classes: int, path: Path) -> list[str]:
    """The class names.

    Raises:
        UsageError: not one for each class.
    """
    if isinstance(labels, str):
        raise UsageError(f"labels is the text {labels!r}; name the classes in a list.")
    names = known_labels(num_classes) if labels is None else list(labels)
    if len(names) != num_classes:
        raise UsageError(f"{len(names)} labels, but {path} has {num_classes} classes.")
    return names


def _habits(
    naming: Naming, spec: ModelSpec, source: str | None
) -> tuple[published.Switches, Preprocess, str]:
    """The switches and preprocessing of a source, else of all that use these names; and which.

    Raises:
        UnknownNameError: no such source.
        UsageError: the source is of another model.
    """
    if source is not None:
        row = published.find_published(source)
        if find_spec(row.model).arch != spec.arch:
            raise UsageError(
                f"{row.name} is a {row.model}, not a {spec.name}. Published for {spec.name}: "
                f"{', '.join(published.published_for(spec.name)) or 'nothing'}."
            )
        return row.switches, row.preprocess, f"that of {row.name}"
    return *published.habits(naming, spec), f"guessed: {published.habit_of(naming, spec)}"


def _canonical(
    naming: Naming, found: dict[str, Tensor], spec: ModelSpec, path: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under our names, and the names of those that are not the network's.

    Those of PyTorch are checked against the model later.

    Raises:
        KeyMismatchError: names are missing or left over.
    """
    if naming == "pytorch":
        try:
            return pytorch.to_canonical(found)
        except KeyMismatchError as error:
            raise KeyMismatchError(f"{path}: {error}") from error
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


def _foreign(path: Path, spec: ModelSpec, found: dict[str, Tensor]) -> KeyMismatchError:
    """The error for a file that holds some other kind of network, or none."""
    some = ", ".join(list(found)[:3]) or "none"
    return KeyMismatchError(
        f"{path} does not fit {spec.name}: it has {len(found)} tensors ({some}), and none has a "
        "name that PaddleClas, MindCV, timm or torchvision gives to a DenseNet or DPN. It is "
        "another kind of network, or not a network's weights."
    )


def _counts(tensors: dict[str, Tensor], spec: ModelSpec) -> tuple[int, int]:
    """The classes and channels that the tensors are for; 1,000 and 3 where they do not tell."""
    classifier, stem = tensors.get("classifier.weight"), tensors.get(first_layer(spec))
    classes = classifier.shape[0] if classifier is not None and classifier.dim() == 2 else 1000
    channels = stem.shape[1] if stem is not None and stem.dim() == 4 else 3
    return max(classes, 1), max(channels, 1)

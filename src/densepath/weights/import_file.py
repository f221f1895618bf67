"""A weights file of another system becomes a Checkpoint (`densepath import`)."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from densepath.errors import KeyMismatchError, UsageError
from densepath.files import sha256
from densepath.images.preprocess import Preprocess
from densepath.models.catalogue import find_spec
from densepath.models.spec import ModelSpec, replace_arch
from densepath.weights import published
from densepath.weights.adapt import adapt_preprocess
from densepath.weights.backbone import KEY as BACKBONE
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.imported import Imported, ImportRequest
from densepath.weights.labels import known_labels
from densepath.weights.match import check_finite, check_tensors
from densepath.weights.origins import find_origin
from densepath.weights.preprocess_changes import AS_GUESSED, PreprocessChanges

Say: TypeAlias = Callable[[str], None]


def warn(note: str) -> None:
    """Warn the caller of `import_weights`."""
    warnings.warn(note, stacklevel=3)


def import_weights(
    path: str | Path,
    model: str | None = None,
    *,
    weights: str | Path | None = None,
    source: str | None = None,
    labels: Sequence[str] | None = None,
    multi_label: bool = False,
    preprocess: PreprocessChanges = AS_GUESSED,
    say: Say = warn,
) -> Checkpoint:
    """The checkpoint of a file that another system wrote, or a trainer.

    Args:
        path: a file, or a folder, of a kind that `weights/origins.py` lists.
        model: the catalogue's model that it is of; by default the one that its tensors fit.
        weights: the file with the tensors, where `path` is the network's description alone and
            the other is not called like it.
        source: the published weights that the file is a copy or a relative of, whose
            preprocessing it then has; by default what the file says, else the habit of the
            system whose names it uses.
        labels: the class names; by default the file's, else ImageNet-1k's for 1,000 classes,
            else numbers.
        multi_label: every class is a yes or no of its own, whatever the file says.
        preprocess: what of the preprocessing is known, and is not to be guessed.
        say: is told what of the file was left aside; by default Python's warnings are.

    The checkpoint's `provenance` has what the file is (`kind`), where the preprocessing comes from
    (`preprocess`), and what was left aside (`notes`).

    Raises:
        UnknownNameError: no such model or source.
        UsageError: not one label for each class, a source of another model, or an impossible
            preprocessing.
        UnsafeFileError: the file asks for code to be run.
        KeyMismatchError: the file is not of that model; the message says how and likely why.
        WeightsError: the file cannot be read.
    """
    path = Path(path)
    request = ImportRequest(
        find_spec(model) if model is not None else None,
        published.find_published(source) if source is not None else None,
        Path(weights) if weights is not None else None,
    )
    if request.model is not None:
        _check_source(request, request.model)
    origin = find_origin(path)
    found = origin.read(path, request)
    spec, tensors = _spec_of(request, found, path), found.tensors
    _check_source(request, spec)
    check_tensors(tensors, spec, found.num_classes, found.in_channels, str(path))
    check_finite(tensors, str(path))
    names = _check_labels(labels, found, path)
    way, said_by = preprocess.apply(*_preprocess_of(request, found))
    spec.check_size(way.size)
    for note in found.notes:
        say(f"{path}: {note}")
    provenance: dict[str, Any] = {
        "imported_from": path.name,
        "kind": found.title or origin.title,
        "sha256": sha256(found.file or path),
        "names": found.origin,
        "source": source,
        "preprocess": said_by,
        "notes": [f"{path.name}: {note}" for note in found.notes],
    }
    if found.backbone:
        provenance[BACKBONE] = True
    multi_label = multi_label or found.multi_label
    thresholds = None if found.thresholds is None else tuple(map(float, found.thresholds))
    return Checkpoint(
        spec,
        way,
        names,
        tensors,
        found.in_channels,
        multi_label,
        provenance,
        thresholds=thresholds,
    )


def _check_labels(labels: Sequence[str] | None, found: Imported, path: Path) -> list[str]:
    """The class names.

    Raises:
        UsageError: not one for each class.
    """
    if isinstance(labels, str):
        raise UsageError(f"labels is the text {labels!r}; name the classes in a list.")
    names = labels if labels is not None else found.labels
    names = known_labels(found.num_classes) if names is None else list(names)
    if len(names) != found.num_classes:
        raise UsageError(f"{len(names)} labels, but {path} has {found.num_classes} classes.")
    return names


def _check_source(request: ImportRequest, spec: ModelSpec) -> None:
    """Raise unless the published weights that are named are of this model.

    Raises:
        UsageError: they are of another.
    """
    row = request.source
    if row is not None and not _same_layers(find_spec(row.model), spec):
        raise UsageError(
            f"{row.name} is a {row.model}, not a {spec.name}. Published for {spec.name}: "
            f"{', '.join(published.published_for(spec.name)) or 'nothing'}."
        )


def _spec_of(request: ImportRequest, found: Imported, path: Path) -> ModelSpec:
    """The file's network, called as it is asked for.

    Raises:
        KeyMismatchError: it is another one than is asked for, whatever the switches.
    """
    if request.model is None:
        return found.spec
    if not _same_layers(request.model, found.spec):
        raise KeyMismatchError(
            f"{path} does not fit {request.model.name}: it holds a {found.spec.name}. Leave the "
            "model out, or name that one."
        )
    return dataclasses.replace(request.model, arch=found.spec.arch)


def _same_layers(one: ModelSpec, other: ModelSpec) -> bool:
    """Whether two networks are the same but for BatchNorm's ε and the stem's padding."""
    if one.family != other.family:
        return False
    switches = {"bn_eps": one.arch.bn_eps, "stem_pool": one.arch.stem_pool}
    return replace_arch(other.arch, **switches) == one.arch


def _preprocess_of(request: ImportRequest, found: Imported) -> tuple[Preprocess, str]:
    """The source's preprocessing, else the file's own, else the origin's habit; and which."""
    if request.source is not None:
        way, said_by = request.source.preprocess, f"that of {request.source.name}"
    elif found.preprocess is not None:
        way, said_by = found.preprocess, found.preprocess_from
    else:
        way = published.habits(found.origin, found.spec)[1]
        said_by = f"guessed: {published.habit_of(found.origin, found.spec)}"
    return adapt_preprocess(way, found.in_channels), said_by

"""The DenseNet or DPN among the tensors of a PyTorch program, and what the program says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from densepath.errors import KeyMismatchError
from densepath.models.build import resolve_spec
from densepath.models.spec import ModelSpec
from densepath.weights import torch_layers, xray
from densepath.weights.backbone import LABEL, no_classifier
from densepath.weights.heads import Head, find_head
from densepath.weights.imported import Imported, ImportRequest
from densepath.weights.match import expected_shapes
from densepath.weights.model_of_shapes import counts_of, find_model, shapes_of
from densepath.weights.published import habits
from densepath.weights.torch_names import NetworkNames, find_names, joined
from densepath.weights.trainers import Contents, describe_aside

_LAST_NORMS = ("features.norm5.weight", "features.conv5_bn_ac.bn.weight")
_STEMS = ("features.conv0.weight", "features.conv1_1.conv.weight")
MONAI = "monai"


@dataclass
class _Answers:
    """What a head gives: our classifier, its classes, and what is to be said of it."""

    tensors: dict[str, Tensor]
    backbone: bool = False
    multi_label: bool = False
    labels: list[str] | None = None
    thresholds: list[float] | None = None
    notes: list[str] = field(default_factory=list)


def read_network(found: Contents, request: ImportRequest, path: Path) -> Imported:
    """The network of a file's table.

    Raises:
        KeyMismatchError: it holds two networks, or one that our networks cannot say.
    """
    try:
        names = find_names(found.tensors)
        if names is None:
            raise KeyMismatchError("no layer of a DenseNet or DPN is in it.")
        return _network(found, names, request, path.name)
    except KeyMismatchError as error:
        raise KeyMismatchError(f"{path}: {error}") from error


def _network(
    found: Contents, names: NetworkNames, request: ImportRequest, file_name: str
) -> Imported:
    """The network under these names."""
    whole = found.whole
    features = joined({ours: found.tensors[key] for ours, key in names.features.items()})
    _check_plane(features)
    if whole is not None:
        torch_layers.check_layers(whole, names.prefix)
    channels = next((len(features[name]) for name in _LAST_NORMS if name in features), 0)
    if not channels:
        channels = _nearest_width(features)
    head = find_head(found.tensors, names.others, names.prefix, channels)
    origin = _origin(found, names, head)
    answers = _answers(found, names, head, channels)
    if origin == xray.ORIGIN and not answers.backbone:
        _add_findings(answers, found, names, file_name)
    tensors = features | answers.tensors
    spec = _spec(tensors, request, origin, _epsilon(found, names))
    taken = set(head.names.values()) if head else set()
    if origin == xray.ORIGIN:
        taken.add(f"{names.prefix}{xray.THRESHOLDS}")
    aside = [key for key in names.others if key not in taken]
    notes = [*answers.notes, *describe_aside(found, aside, answered=not answers.backbone)]
    classes, inputs = counts_of(shapes_of(tensors), spec)
    return Imported(
        origin,
        spec,
        tensors,
        classes,
        inputs,
        labels=answers.labels,
        multi_label=answers.multi_label,
        thresholds=answers.thresholds,
        notes=notes,
        title=whole.kind if whole is not None else "",
        backbone=answers.backbone,
    )


def _nearest_width(features: dict[str, Tensor]) -> int:
    """The last features of the nearest model, of a network that lacks its last BatchNorm."""
    spec = find_model(shapes_of(features))
    return expected_shapes(spec, 1, 1)["classifier.weight"][1]


def _check_plane(features: Mapping[str, Tensor]) -> None:
    """Raise unless the network is one for pictures, with the stem of ours.

    Raises:
        KeyMismatchError: it is for volumes or series, or has a stem of several convolutions.
    """
    stem = next((name for name in _STEMS if name in features), None)
    if stem is not None and features[stem].dim() in (3, 5):
        dims = features[stem].dim() - 2
        raise KeyMismatchError(
            f"its convolutions are of {dims} dimension{'s' * (dims > 1)} ({stem} is "
            f"{list(features[stem].shape)}): a network for {'volumes' if dims > 1 else 'series'}. "
            "densepath's networks are for pictures, of 2 dimensions."
        )
    if "features.conv1.weight" in features and "features.conv2.weight" in features:
        raise KeyMismatchError(
            "its stem has three 3×3 convolutions (features.conv0, conv1, conv2: a deep stem, as "
            "timm's densenet264d and densenetblur121d have); densepath's DenseNet has one of 7×7, "
            "as the paper, so that it cannot compute this one."
        )


def _origin(found: Contents, names: NetworkNames, head: Head | None) -> str:
    """Whose network it is, a key of `HABITS`."""
    if xray.is_xray(found.tensors, names.prefix, found.whole):
        return xray.ORIGIN
    if any(".layers.norm1." in key for key in names.features.values()):
        return MONAI
    return "pytorch"


def _answers(found: Contents, names: NetworkNames, head: Head | None, channels: int) -> _Answers:
    """Our classifier of the file's head."""
    if head is None:
        return _no_answers(channels)
    tensors = {ours: found.tensors[key] for ours, key in head.names.items()}
    if "classifier.weight" not in tensors:
        return _Answers(tensors)
    weight = tensors["classifier.weight"]
    if weight.dim() == 4:
        weight = tensors["classifier.weight"] = weight.flatten(1)
    made = _Answers(tensors)
    if "classifier.bias" not in tensors and weight.dim() == 2:
        tensors["classifier.bias"] = torch.zeros(len(weight))
        made.notes.append(f"{head.module} has no bias: zeros stand for it.")
    if head.guessed:
        made.notes.append(
            f"took {head.module} for the classifier: it alone reads the {channels:,} features."
        )
    if found.whole is not None:
        made.multi_label, others = torch_layers.ends_in(found.whole, head.module)
        if others:
            made.notes.append(
                f"the head of {head.module} also has {', '.join(others)}, without which this "
                "checkpoint answers."
            )
    return made


def _no_answers(channels: int) -> _Answers:
    """The answers of a network that has no classifier, or a head of several layers."""
    made = _Answers(no_classifier(channels), backbone=True, labels=[LABEL])
    made.notes.append(
        "it has no classifier of one layer on the last features: taken as a backbone, which "
        "begins a training (densepath train FILE --data FOLDER) and answers nothing."
    )
    return made


def _add_findings(made: _Answers, found: Contents, names: NetworkNames, file_name: str) -> None:
    """The classes of a network of torchxrayvision, without those that were never trained."""
    weight = made.tensors.get("classifier.weight")
    if weight is None or weight.dim() != 2:
        return
    findings = xray.read_findings(found.tensors, names.prefix, found.whole, len(weight), file_name)
    for name, tensor in made.tensors.items():
        if len(tensor) == len(weight):
            made.tensors[name] = tensor[findings.kept].contiguous()
    made.multi_label = True
    made.labels, made.thresholds = findings.labels, findings.thresholds
    made.notes += findings.notes


def _epsilon(found: Contents, names: NetworkNames) -> float | None:
    """The ε of the network's BatchNorms; None where the file does not say it.

    Raises:
        KeyMismatchError: they have several.
    """
    if found.whole is None:
        return None
    values = sorted(torch_layers.epsilons(found.whole, names.prefix))
    if len(values) > 1:
        raise KeyMismatchError(
            f"its BatchNorms have several ε ({', '.join(f'{one:g}' for one in values)}); "
            "densepath's networks have one."
        )
    return values[0] if values else None


def _spec(
    tensors: dict[str, Tensor], request: ImportRequest, origin: str, epsilon: float | None
) -> ModelSpec:
    """The model of these tensors, with the switches of the file, of the source or of the origin."""
    spec = request.model or find_model(shapes_of(tensors))
    switches = request.source.switches if request.source else habits(origin, spec)[0]
    bn_eps = switches.bn_eps if epsilon is None else epsilon
    return resolve_spec(spec, bn_eps=bn_eps, stem_pool=switches.stem_pool)

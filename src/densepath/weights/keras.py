"""Keras: `.keras`, `.weights.h5` and `.h5` files of `keras.applications.densenet` and its kin.

On the line: another system's file → Imported. HDF5 is read by `hdf5_process.py`, a configuration by
`keras_config.py`; whose array is whose is in `keras_names.py`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from densepath.errors import KeyMismatchError, WeightsError
from densepath.models.build import resolve_spec
from densepath.models.plan import plan
from densepath.models.spec import ModelSpec
from densepath.weights import keras_config, published
from densepath.weights.arch_of import densenet_arch, spec_of
from densepath.weights.backbone import LABEL, no_classifier
from densepath.weights.hdf5 import START as HDF5_START
from densepath.weights.hdf5_process import read_apart
from densepath.weights.imported import Imported, ImportRequest
from densepath.weights.keras_names import KerasLayers, key_map, sort_layers
from densepath.weights.key_map import differences
from densepath.weights.match import mismatch
from densepath.weights.model_of_shapes import counts_of, shapes_of
from densepath.wording import first_of

ORIGIN = "keras"
HABIT = "guessed: what Keras's weights usually take, at the size of its input"
WEIGHTS, CONFIG = "model.weights.h5", "config.json"
BN_EPS = 1.001e-5  # keras/src/applications/densenet.py
_DENSE = {"kernel", "bias"}
_MOST_GROWTH = 64  # a member of a .keras file is stored as it is; weights hardly shrink


def read(path: Path, request: ImportRequest) -> Imported:
    """The network in a file of Keras's.

    Raises:
        MissingPackageError: h5py is not installed.
        UnsafeFileError: it points into other files, or asks for code.
        KeyMismatchError: it is not of the model that is asked for, or of none.
        WeightsError: it is damaged.
    """
    source = str(path)
    content, text = _parts(path)
    held = read_apart(content, source)
    text = text or held.texts.get("model_config", "")
    layers = keras_config.read_config(text, source) if text else []
    found = sort_layers(
        held.arrays, keras_config.names_of(layers) | held.names if layers else held.names, source
    )
    spec = _spec(found, request, keras_config.epsilon(layers, source), source)
    before, behind = keras_config.check_parts(layers, source)
    head, aside = _find_head(found, behind)
    tensors = _tensors(found, head, spec, source)
    if head is None:
        tensors |= no_classifier(plan(spec)[-1].inputs)
    num_classes, channels = counts_of(shapes_of(tensors), spec)
    size = keras_config.input_size(layers)
    sides = size or (spec.input_size, spec.input_size)
    preprocess, said_by = None, "its own layers"
    if not before:
        preprocess = keras_config.own_preprocess(layers, found.others, sides, channels, source)
    if preprocess is None and size is not None:
        preprocess, said_by = published.KERAS_INPUT.at_size(size), HABIT
    sigmoid = keras_config.multi_label(layers)
    return Imported(
        origin=ORIGIN,
        spec=spec,
        tensors=tensors,
        num_classes=num_classes,
        in_channels=channels,
        labels=[LABEL] if head is None else None,
        preprocess=preprocess,
        preprocess_from=said_by,
        multi_label=bool(sigmoid) and head is not None,
        notes=[
            *_notes_on_head(head, aside, bool(layers), sigmoid),
            *_notes(before, found.beside, bool(layers)),
        ],
        backbone=head is None,
    )


def _parts(path: Path) -> tuple[bytes, str]:
    """The HDF5 file in a file, and the configuration beside it, which may be empty.

    Raises:
        WeightsError: a damaged archive.
    """
    with path.open("rb") as file:
        if file.read(len(HDF5_START)) == HDF5_START:
            file.seek(0)
            return file.read(), ""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in (WEIGHTS, CONFIG):
                member = archive.getinfo(name)
                if member.file_size > _MOST_GROWTH * member.compress_size:
                    raise WeightsError(f"{name} grows to {member.file_size} bytes")
            return archive.read(WEIGHTS), archive.read(CONFIG).decode("utf-8")
    except Exception as error:  # zipfile raises many kinds for a damaged one
        raise WeightsError(
            f"{path} cannot be read as a .keras file ({error or type(error).__name__}). It is "
            "damaged or incomplete: save it again, or compare its size with the publisher's."
        ) from error


def _spec(
    found: KerasLayers, request: ImportRequest, bn_eps: float | None, source: str
) -> ModelSpec:
    """The network that is asked for, else that of the shapes; ε as the file or Keras has it.

    Raises:
        KeyMismatchError: nothing is asked for, and the shapes are of no DenseNet.
    """
    arch = densenet_arch(found.convolutions())
    if arch is None and (request.model is None or not found.network):
        some = first_of([*found.network, *found.others]) or "none"
        raise KeyMismatchError(
            f"{source} has no DenseNet of keras.applications in it: its layers with weights are "
            f"{some}. It is another kind of network, or built by hand under other names."
        )
    spec = request.model or (spec_of(arch) if arch else None)
    assert spec is not None
    return resolve_spec(spec, bn_eps=BN_EPS if bn_eps is None else bn_eps)


def _find_head(found: KerasLayers, behind: list[str]) -> tuple[str | None, list[str]]:
    """The classifier's name, and what stands behind the network that is none of ours.

    A head of several layers is none: the network is then a backbone.

    Args:
        found: the layers with arrays.
        behind: the layers of the configuration that no plain head has.
    """
    others = [name for name, own in found.others.items() if not _is_normalization(own)]
    heads = [name for name in others if {"kernel"} <= set(found.others[name]) <= _DENSE]
    if len(others) == len(heads) == 1 and not behind:
        return heads[0], []
    return None, [*sorted(others), *behind]


def _tensors(
    found: KerasLayers, head: str | None, spec: ModelSpec, source: str
) -> dict[str, torch.Tensor]:
    """Our tensors in float32; without a classifier where there is no head.

    Raises:
        KeyMismatchError: arrays are missing or left over.
    """
    layers = dict(found.network)
    if head is not None:
        own = dict(found.others[head])
        own.setdefault("bias", np.zeros(own["kernel"].shape[-1:]))  # Dense(use_bias=False)
        layers[head] = own
    table = key_map(spec, head)
    arrays = {f"{name}/{leaf}": one for name, own in layers.items() for leaf, one in own.items()}
    missing, unexpected = differences(table, arrays)
    if missing or unexpected:
        raise mismatch(source, spec.name, missing, unexpected, [], _cause(found, spec))
    return {ours: _turned(arrays[theirs]) for ours, (theirs,) in table.items()}


def _is_normalization(own: Iterable[str]) -> bool:
    """Whether a layer is a Normalization, which belongs to the preprocessing."""
    return {"mean", "variance"} <= set(own)


def _cause(found: KerasLayers, spec: ModelSpec) -> str:
    """The likely cause of arrays that do not fit, or nothing."""
    arch = densenet_arch(found.convolutions())
    if arch is None or spec_of(arch).name == spec.name:
        return ""
    return f"These are the weights of {spec_of(arch).name}: name that model."


def _turned(array: np.ndarray) -> torch.Tensor:
    """In float32, [height, width, inputs, outputs] and [inputs, outputs] turned as PyTorch's."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, tuple(range(array.ndim)))
    turned = array.transpose(axes).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(turned))


def _notes_on_head(
    head: str | None, aside: list[str], has_config: bool, sigmoid: bool | None
) -> list[str]:
    """What was left aside or guessed of the last layers, in sentences."""
    if head is None:
        left = f"a head of {first_of(aside, 8)} is left aside" if aside else "include_top=False"
        return [
            f"it has no classifier of one layer on the pooled features ({left}): taken as a "
            "backbone, which begins a training (densepath train MODEL --weights) and answers "
            "nothing."
        ]
    if sigmoid is not None:
        return []
    why = "its last layer ends in neither softmax nor sigmoid" if has_config else "weights alone"
    return [f"{why}; taken: softmax, one class of many. --multi-label says otherwise."]


def _notes(before: list[str], beside: list[str], has_config: bool) -> list[str]:
    """What was left aside or guessed of all else, in sentences."""
    notes = []
    if before:
        notes.append(
            f"what {first_of(before)} makes of the images is not read, nor run: the preprocessing "
            "is Keras's habit for DenseNet. Say another one by the options for it."
        )
    if beside:
        notes.append(f"left aside {first_of(beside, 8)}.")
    if not has_config:
        notes.append(f"weights alone do not say ε; taken: {BN_EPS}, as in keras.applications.")
    return notes

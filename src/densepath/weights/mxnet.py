"""MXNet: `.params` files of the DPN authors, of Gluon's model zoo and of GluonCV.

On the line: another system's file → Imported. The arrays are read by `mxnet_file.py`, their names
are those of `mxnet_names.py`, and what the graph beside them says is read by `mxnet_symbol.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from densepath.errors import KeyMismatchError
from densepath.models.build import resolve_spec
from densepath.models.plan import plan
from densepath.models.spec import ModelSpec
from densepath.weights.arch_of import spec_of
from densepath.weights.backbone import LABEL, no_classifier
from densepath.weights.imported import Imported, ImportRequest
from densepath.weights.key_map import differences
from densepath.weights.match import mismatch
from densepath.weights.model_of_shapes import counts_of, shapes_of
from densepath.weights.mxnet_file import read_params
from densepath.weights.mxnet_names import AUTHORS, Names, names_of
from densepath.weights.mxnet_symbol import Symbol, read_symbol, symbol_of

CLASSIFIER = ("classifier.weight", "classifier.bias")
NO_CLASSIFIER = (
    "it has no classifier: taken as a backbone, which begins a training (densepath train MODEL "
    "--weights) and answers nothing."
)


def read(path: Path, request: ImportRequest) -> Imported:
    """The network in a `.params` file, with what the graph beside it says.

    Raises:
        KeyMismatchError: it is not of the model that is asked for, or of none.
        WeightsError: it or the graph beside it is damaged.
    """
    stored = read_params(path)
    arrays = {re.sub(r"^(arg|aux):", "", name): array for name, array in stored.items()}
    beside = symbol_of(path)
    symbol = read_symbol(beside) if beside.is_file() else None
    names = names_of({name: array.shape for name, array in arrays.items()})
    if names is None:
        some = ", ".join(list(arrays)[:3]) or "none"
        raise KeyMismatchError(
            f"{path} has {len(arrays)} arrays ({some}) whose names are not those of the DPN "
            "authors' networks, nor of a DenseNet of Gluon's. It is another kind of network."
        )
    spec = _spec(names, request, symbol, path)
    table = names.key_map(spec)
    answers = [key for ours in CLASSIFIER for key in table[ours]]
    backbone = not any(key in arrays for key in answers)
    if backbone:
        table = {ours: theirs for ours, theirs in table.items() if ours not in CLASSIFIER}
    missing, unexpected = differences(table, arrays)
    if missing or unexpected:
        raise mismatch(str(path), spec.name, missing, unexpected, [], _cause(names, spec))
    tensors = {ours: _joined(arrays, theirs, symbol, path) for ours, theirs in table.items()}
    if backbone:
        tensors |= no_classifier(plan(spec)[-1].inputs)
    num_classes, in_channels = counts_of(shapes_of(tensors), spec)
    return Imported(
        origin=names.owner,
        spec=spec,
        tensors=tensors,
        num_classes=num_classes,
        in_channels=in_channels,
        labels=[LABEL] if backbone else None,
        multi_label=symbol is not None and symbol.multi_label and not backbone,
        notes=[*_notes(names.owner, path, beside, symbol), *([NO_CLASSIFIER] if backbone else [])],
        backbone=backbone,
    )


def _notes(owner: str, path: Path, beside: Path, symbol: Symbol | None) -> list[str]:
    """What was taken from the graph, or guessed for want of it."""
    if symbol is None:
        habit = "1e-3, as the authors' networks have it" if owner == AUTHORS else "1e-5, Gluon's"
        return [f"no {beside.name} beside it says ε; taken: {habit}."]
    notes = [f"ε is {symbol.bn_eps}, from {beside.name} beside it."]
    if symbol.fixed:
        notes.append(
            f"{len(symbol.fixed)} of the γ are fixed (fix_gamma): taken as 1, whatever is stored."
        )
    return notes


def _spec(names: Names, request: ImportRequest, symbol: Symbol | None, path: Path) -> ModelSpec:
    """The network that is asked for, else that of the shapes; with ε as the graph says.

    Raises:
        KeyMismatchError: nothing is asked for, and the shapes are of no network.
    """
    eps = symbol.bn_eps if symbol else None
    if request.model is not None:
        return resolve_spec(request.model, bn_eps=eps)
    if names.arch is None:
        raise KeyMismatchError(
            f"{path}: its arrays have names of a DenseNet or DPN, but not the shapes of one. It is "
            "damaged, or another network under the same names."
        )
    return resolve_spec(names.model or spec_of(names.arch), bn_eps=eps)


def _cause(names: Names, spec: ModelSpec) -> str:
    """The likely cause of names that do not fit, or nothing."""
    found = spec_of(names.arch) if names.arch else None
    if found is None or found.name == spec.name:
        return ""
    return f"These are the weights of {found.name}: name that model."


def _joined(
    arrays: Mapping[str, np.ndarray], names: tuple[str, ...], symbol: Symbol | None, path: Path
) -> torch.Tensor:
    """One of our tensors in float32; γ is 1 where the graph says that it is fixed.

    Raises:
        KeyMismatchError: the parts of one have different shapes.
    """
    if len({arrays[name].shape[1:] for name in names}) > 1:
        raise KeyMismatchError(f"{path}: {' and '.join(names)} have different shapes.")
    parts_of = [arrays[name].astype(np.float32) for name in names]
    whole = torch.from_numpy(np.concatenate(parts_of))
    if symbol is not None and names[0] in symbol.fixed:
        return torch.ones_like(whole)
    return whole

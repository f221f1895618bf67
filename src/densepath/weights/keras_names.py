"""Keras: the layers' names of `keras.applications.densenet`, and which arrays are whose.

Source: Keras 3.15 `keras/src/applications/densenet.py`, tf-keras 2.21 `applications/densenet.py`
(which names the stem `conv1/conv` and `conv1/bn`); Keras 3.15 `saving/saving_lib.py` for `.keras`
and `.weights.h5`, `legacy/saving/legacy_h5_format.py` for the other `.h5`. Nothing here imports
torch: `benchmarks/peers/keras/` fills its networks by the same table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from densepath.errors import KeyMismatchError
from densepath.models.plan import Layer, parts, plan, units
from densepath.models.spec import ModelSpec
from densepath.weights.arch_of import Shape, densenet_arch, spec_of
from densepath.weights.key_map import NORM_LEAVES, KeyMap, is_norm

LEAVES = ("gamma", "beta", "moving_mean", "moving_variance")
CONVOLUTION, NORM, DENSE = "conv2d", "batch_normalization", "dense"
# What the numbers below `vars` are, of each kind of layer.
_NUMBERED = {CONVOLUTION: ("kernel", "bias"), NORM: LEAVES, DENSE: ("kernel", "bias")}
_NUMBERED["normalization"] = ("mean", "variance", "count")
_NETWORK = re.compile(
    r"(?:^|/)(conv1[/_](?:conv|bn)|conv\d_block\d{1,4}_\d_(?:conv|bn)|pool\d_(?:conv|bn)|bn)$"
)
_VARIABLE = re.compile(
    r"(?P<layer>(?:.*/)?(?:layers|_layer_checkpoint_dependencies)/[^/]+)/vars/(\d{1,4})"
)
# What a file holds beside the network: the optimiser's state, seeds of dropout, metrics' counters.
_BESIDE = re.compile(r"(?:^|/)(?:optimizer|optimizer_weights|_?metrics|seed_generator)(?:/|$)")
_LEGACY_ROOT = "model_weights/"


@dataclass
class KerasLayers:
    """The arrays of a file by their layers.

    Attributes:
        network: those of the DenseNet, by its layers' names and then by the arrays' own.
        others: all other layers', by their names.
        beside: the arrays that are no layer's: the optimiser's, seeds, metrics.
    """

    network: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    others: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)

    def convolutions(self) -> list[Shape]:
        """[outputs, inputs, height, width] of the network's convolutions, as they run."""
        found = [name for name, own in self.network.items() if "kernel" in own]
        return [_turned(self.network[name]["kernel"].shape) for name in sorted(found, key=_place)]


def key_map(spec: ModelSpec, classifier: str | None = "predictions") -> KeyMap:
    """Keras's name of each tensor, as `conv1_conv/kernel`.

    Args:
        spec: a DenseNet.
        classifier: the name of the last layer; None where there is none.
    """
    names: KeyMap = {}
    for ours, theirs in _pairs(spec):
        if ours == "classifier":
            if classifier is not None:
                names["classifier.weight"] = (f"{classifier}/kernel",)
                names["classifier.bias"] = (f"{classifier}/bias",)
        elif is_norm(ours):
            for our_leaf, leaf in zip(NORM_LEAVES, LEAVES, strict=True):
                names[f"{ours}.{our_leaf}"] = (f"{theirs}/{leaf}",)
        else:
            names[f"{ours}.weight"] = (f"{theirs}/kernel",)
    return names


def _pairs(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Our modules with Keras's layers."""
    for layers in parts(spec):
        for layer, norm in units(layers):
            yield norm, _layer_name(layer, norm)
            yield layer.name, _layer_name(layer, layer.name)


def _layer_name(layer: Layer, module: str) -> str:
    """Keras's name of a layer: stages count from 2, as in the paper's `conv2_x`."""
    own = module.rpartition(".")[2]
    kind = "conv" if own.startswith("conv") else "bn"
    if layer.kind == "classifier":
        return "bn"
    if layer.reads == "images":
        return f"conv1_{kind}"
    if layer.averaged:
        return f"pool{layer.stage + 1}_{kind}"
    number = layer.part.rpartition("denselayer")[2]
    place = {"norm1": 0, "conv1": 1, "norm2": 1, "conv2": 2}[own]
    return f"conv{layer.stage + 1}_block{number}_{place}_{kind}"


def sort_layers(
    arrays: Mapping[str, np.ndarray], names: Mapping[str, str], source: str
) -> KerasLayers:
    """The arrays of an HDF5 file of Keras's by their layers.

    Args:
        arrays: by their paths in the file.
        names: the layers' names by the paths of their `vars`, where the file or its config says
            them; else the layers of each kind are numbered in the order in which they run.
        source: the file, for messages.

    Raises:
        KeyMismatchError: two layers of one name, or numbered ones that make no DenseNet.
    """
    found = KerasLayers()
    numbered: dict[tuple[str, str], dict[str, dict[str, np.ndarray]]] = {}
    for place, array in arrays.items():
        variable = _VARIABLE.fullmatch(place)
        if _BESIDE.search(place):
            found.beside.append(place)
        elif variable is None:
            layer, _, leaf = place.removeprefix(_LEGACY_ROOT).rpartition("/")
            _add(found, layer, leaf.partition(":")[0], array, source)
        else:
            container, _, key = variable["layer"].rpartition("/")
            kind = re.sub(r"_\d+$", "", key)
            leaf = _leaf(kind, int(variable[2]))
            name = names.get(f"{variable['layer']}/vars", "")
            if name:
                _add(found, name, leaf, array, source)
            else:
                numbered.setdefault((container, kind), {}).setdefault(key, {})[leaf] = array
    _name_numbered(found, numbered, source)
    return found


def _leaf(kind: str, number: int) -> str:
    """What a numbered array of a kind of layer is."""
    leaves = _NUMBERED.get(kind, ())
    return leaves[number] if number < len(leaves) else str(number)


def _add(found: KerasLayers, layer: str, leaf: str, array: np.ndarray, source: str) -> None:
    """Give a layer an array.

    Raises:
        KeyMismatchError: it has one of that name.
    """
    own = _NETWORK.search(layer)
    table = found.network if own else found.others
    name = own[1].replace("/", "_") if own else layer.rpartition("/")[2]
    arrays = table.setdefault(name, {})
    if leaf in arrays:
        raise KeyMismatchError(
            f"{source} has two layers {name}: it holds more than one network. Save one of them."
        )
    arrays[leaf] = array


def _name_numbered(
    found: KerasLayers,
    numbered: Mapping[tuple[str, str], dict[str, dict[str, np.ndarray]]],
    source: str,
) -> None:
    """Name the layers that have numbers only, after their order.

    Raises:
        KeyMismatchError: they make no DenseNet.
    """
    homes = [container for container, kind in numbered if kind == CONVOLUTION]
    home = homes[0] if len(homes) == 1 else None
    for (container, kind), layers in numbered.items():
        if container != home or kind not in (CONVOLUTION, NORM):
            found.others |= {f"{container}/{key}": own for key, own in layers.items()}
    if home is None:
        return
    convolutions, norms = (
        [layers[key] for key in sorted(layers, key=_place)]
        for layers in (numbered.get((home, kind), {}) for kind in (CONVOLUTION, NORM))
    )
    shapes = [_turned(own["kernel"].shape) for own in convolutions if "kernel" in own]
    arch = densenet_arch(shapes)
    wanted = list(_running_order(spec_of(arch))) if arch else []
    if arch is None or [len(convolutions), len(norms)] != [
        sum(is_norm(ours) is kind for ours, _ in wanted) for kind in (False, True)
    ]:
        raise KeyMismatchError(
            f"{source} has {len(convolutions)} convolutions and {len(norms)} BatchNorms whose "
            "shapes, in their order, are not those of a DenseNet of keras.applications."
        )
    remaining = {False: iter(convolutions), True: iter(norms)}
    for ours, theirs in wanted:
        found.network[theirs] = next(remaining[is_norm(ours)])


def _running_order(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Our convolutions and BatchNorms as they run, with Keras's names of them."""
    theirs = dict(_pairs(spec))
    for layer in plan(spec):
        names = (layer.before, layer.name if layer.kind == "convolution" else "", layer.behind)
        yield from ((name, theirs[name]) for name in names if name)


def _turned(shape: Shape) -> Shape:
    """[height, width, inputs, outputs] as [outputs, inputs, height, width]; others as they are."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape)


def _place(name: str) -> tuple[int, ...]:
    """Where a layer runs: the numbers in its name, a transition behind its block."""
    numbers = tuple(map(int, re.findall(r"\d{1,9}", name.removeprefix("conv2d"))))
    return (numbers[0], 10**9) if name.startswith("pool") and numbers else numbers

"""MXNet: the names of the DPN authors', of Gluon's model zoo and of GluonCV.

Source: `settings/symbol_dpn.py`, `symbol_dpn_b.py` and `symbol_dpn-*.py` of github.com/cypw/DPNs;
MXNet 1.9 `python/mxnet/gluon/model_zoo/vision/densenet.py`, which GluonCV 0.10 repeats. Gluon has
two ways to name arrays: after the layers' scopes (`densenet0_stage1_conv0_weight`), or their places
(`features.4.0.1.2.weight`). Nothing here imports torch: `benchmarks/peers/mxnet/` fills networks
by the same tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from densepath.models.plan import Layer, parts, units
from densepath.models.spec import Arch, ModelSpec
from densepath.weights.arch_of import Shape, densenet_arch, dpn_arch, spec_of
from densepath.weights.key_map import KeyMap, ModulePair, join_names

AUTHORS, GLUON = "mxnet", "gluon"  # keys of `published.HABITS`
AUTHORS_LEAVES = ("gamma", "beta", "moving_mean", "moving_var")
GLUON_LEAVES = ("gamma", "beta", "running_mean", "running_var")
# Where the layers of a dense layer and of a transition stand in their blocks, ReLU between them.
_PLACES = {"norm1": 0, "conv1": 2, "norm2": 3, "conv2": 5, "norm": 0, "conv": 2}
_BLOCK = re.compile(r"conv(\d{1,2})_x__(\d{1,4})_c1x1-a__conv_weight")
_HEADS = ("fc6-1k", "fc6")


@dataclass(frozen=True)
class Names:
    """Whose names a file's are, and the table of them for a network.

    Attributes:
        owner: `AUTHORS` or `GLUON`.
        arch: of the network that the shapes are of; None where they are of none.
        key_map: our names with theirs.
        model: the catalogue's row, where two have the same architecture.
    """

    owner: str
    arch: Arch | None
    key_map: Callable[[ModelSpec], KeyMap]
    model: str = ""


def names_of(shapes: Mapping[str, Shape]) -> Names | None:
    """Whose names these are, of arrays with these shapes; None where they are of neither."""
    if "conv1_x_1__conv_weight" in shapes:
        split = any("_c1x1-c2__" in name for name in shapes)
        head = next((name for name in _HEADS if f"{name}_weight" in shapes), _HEADS[-1])
        arch = _authors_arch(shapes, split)
        # The two rows are one network, stored differently.
        twin = "dpn68b" if split and arch and spec_of(arch).name == "dpn68" else ""
        return Names(
            AUTHORS, arch, lambda spec: authors_key_map(spec, split=split, classifier=head), twin
        )
    if "features.0.weight" in shapes and "features.1.gamma" in shapes:
        convolutions = sorted((n for n in shapes if _is_convolution(n)), key=_place)
        arch = densenet_arch([shapes[name] for name in convolutions])
        return Names(GLUON, arch, places_key_map)
    stems = [name for name in shapes if re.fullmatch(r"(?!.*stage\d+_).*conv0_weight", name)]
    if len(stems) == 1:
        prefix = stems[0].removesuffix("conv0_weight")
        heads = [name for name in shapes if re.fullmatch(r".*dense\d+_weight", name)]
        head = heads[0].removesuffix("_weight") if len(heads) == 1 else f"{prefix}dense0"
        arch = densenet_arch(_scoped(shapes, prefix))
        return Names(GLUON, arch, lambda spec: scopes_key_map(spec, prefix, head))
    return None


def authors_key_map(spec: ModelSpec, *, split: bool = False, classifier: str = "fc6") -> KeyMap:
    """The DPN authors' name of each tensor.

    Args:
        spec: a DPN.
        split: the last 1×1 convolution of a block is stored as two (`symbol_dpn_b.py`).
        classifier: the name of the last layer, `fc6` or `fc6-1k`.
    """
    return join_names(_authors_pairs(spec, split, classifier), AUTHORS_LEAVES, "_")


def _authors_pairs(spec: ModelSpec, split: bool, classifier: str) -> Iterator[ModulePair]:
    """Our modules with the authors', whose blocks are `conv2_x__1` and so on."""
    for layers in parts(spec):
        for layer, norm in units(layers):
            if layer.kind == "classifier":
                yield norm, ("conv5_x_x__relu-sp__bn",)
                yield layer.name, (classifier,)
            elif layer.reads == "images":
                yield norm, ("conv1_x_1__relu-sp__bn",)
                yield layer.name, ("conv1_x_1__conv",)
            else:
                yield from _authors_layer(layer, norm, split)


def _authors_layer(layer: Layer, norm: str, split: bool) -> Iterator[ModulePair]:
    """A layer of a block: `conv3_x__1_c1x1-w(s/2)`, after its stride."""
    stage, number = layer.part.removeprefix("features.conv").split("_")
    own = layer.name.split(".")[-2].replace("_", "-")
    name = f"conv{stage}_x__{number}_{own}"
    if own == "c1x1-w":
        name += f"(s/{layer.stride})"
    if split and layer.writes == "adds":
        yield norm, (f"{name}__bn",)
        yield layer.name, (f"{name}1__conv", f"{name}2__conv")
        return
    yield norm, (f"{name}__bn__bn",)
    yield layer.name, (f"{name}__conv",)


def _authors_arch(shapes: Mapping[str, Shape], split: bool) -> Arch | None:
    """The architecture of arrays with the authors' names."""
    blocks: dict[int, int] = {}
    for name in shapes:
        if found := _BLOCK.fullmatch(name):
            stage, number = int(found[1]), int(found[2])
            blocks[stage] = max(blocks.get(stage, 0), number)
    try:
        stages = []
        for stage in sorted(blocks):
            first = f"conv{stage}_x__1_"
            w, a, b, c = (
                shapes[f"{first}{own}__conv_weight"]
                for own in (
                    f"c1x1-w(s/{1 if stage == 2 else 2})",
                    "c1x1-a",
                    "c3x3-b",
                    "c1x1-c1" if split else "c1x1-c",
                )
            )
            if split:
                c = (c[0] + shapes[f"{first}c1x1-c2__conv_weight"][0], *c[1:])
            stages.append((blocks[stage], w, a, b, c))
    except (LookupError, ValueError):
        return None
    return dpn_arch(shapes["conv1_x_1__conv_weight"], stages)


def places_key_map(spec: ModelSpec) -> KeyMap:
    """Gluon's name of each tensor after the places of the layers (`save_parameters`)."""
    return join_names(_gluon_pairs(spec, _placed, "output"), GLUON_LEAVES)


def scopes_key_map(spec: ModelSpec, prefix: str, classifier: str) -> KeyMap:
    """Gluon's name of each tensor after the scopes of the layers (`export`, older files).

    Args:
        spec: a DenseNet.
        prefix: of the network, as `densenet0_`.
        classifier: the name of the last layer, as `densenet0_dense0`.
    """

    def name(layer: Layer, module: str, last: int) -> str:
        return f"{prefix}{_scope(layer, module, last)}"

    return join_names(_gluon_pairs(spec, name, classifier), GLUON_LEAVES, "_")


def _gluon_pairs(
    spec: ModelSpec, name: Callable[[Layer, str, int], str], classifier: str
) -> Iterator[ModulePair]:
    """Our modules with Gluon's; `name` is of a layer, its module and the number of blocks."""
    last = len(spec.arch.blocks)
    for layers in parts(spec):
        for layer, norm in units(layers):
            yield norm, (name(layer, norm, last),)
            theirs = classifier if layer.kind == "classifier" else name(layer, layer.name, last)
            yield layer.name, (theirs,)


def _placed(layer: Layer, module: str, last: int) -> str:
    """Where a module stands: the stem has places 0 to 3, then blocks and transitions follow."""
    own = module.rpartition(".")[2]
    if layer.kind == "classifier":
        return f"features.{3 + 2 * last}"
    if layer.reads == "images":
        return f"features.{0 if own.startswith('conv') else 1}"
    if layer.averaged:
        return f"features.{3 + 2 * layer.stage}.{_PLACES[own]}"
    number = int(layer.part.rpartition("denselayer")[2]) - 1
    return f"features.{2 + 2 * layer.stage}.{number}.1.{_PLACES[own]}"


def _scope(layer: Layer, module: str, last: int) -> str:
    """A module's kind and number in its scope: blocks have one each, all else the network's."""
    own = module.rpartition(".")[2]
    kind = "conv" if own.startswith("conv") else "batchnorm"
    if layer.kind == "classifier":
        return f"batchnorm{last}"
    if layer.reads == "images":
        return f"{kind}0"
    if layer.averaged:
        return f"{kind}{layer.stage}"
    number = 2 * int(layer.part.rpartition("denselayer")[2]) - (2 if own.endswith("1") else 1)
    return f"stage{layer.stage}_{kind}{number}"


def _is_convolution(name: str) -> bool:
    """Whether an array named after its place is a convolution's weight."""
    return name.startswith("features.") and name.endswith(".weight")


def _place(name: str) -> tuple[int, ...]:
    """The numbers in a name: layers run in their order."""
    return tuple(map(int, re.findall(r"\d{1,9}", name)))


def _scoped(shapes: Mapping[str, Shape], prefix: str) -> list[Shape]:
    """The shapes of the convolutions named after their scopes, as they run."""
    found = {}
    for name, shape in shapes.items():
        inner = re.fullmatch(
            rf"{re.escape(prefix)}(?:stage(\d{{1,2}})_)?conv(\d{{1,4}})_weight", name
        )
        if inner and inner[1]:
            found[int(inner[1]), 0, int(inner[2])] = shape
        elif inner:  # the stem, then a transition behind each block
            found[int(inner[2]), 1, 0] = shape
    return [found[place] for place in sorted(found)]

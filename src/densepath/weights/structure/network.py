"""The DenseNet or DPN that a graph computes, of any numbers, under our names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densepath.errors import KeyMismatchError
from densepath.models.plan import Layer, plan
from densepath.models.spec import Arch, DPNArch, ModelSpec, StemPool
from densepath.weights.structure.attributes import misfit, pair, sides
from densepath.weights.structure.densenet import walk_densenet
from densepath.weights.structure.dpn import walk_dpn
from densepath.weights.structure.graph import Graph
from densepath.weights.structure.numbers import common_epsilon, densenet_arch, dpn_arch, name_spec
from densepath.weights.structure.pools import check_pools, stem_pool_of
from densepath.weights.structure.trace import Trace
from densepath.weights.structure.values import Affine
from densepath.weights.structure.walk import Found, Walk

NORM_LEAVES = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Normalisation:
    """What a graph does with its input before the first layer: x · scale + shift; float64 [C]."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class StructuredNetwork:
    """A network of ours, found in a graph.

    Attributes:
        spec: a catalogue's row with the switches of the file, or numbers of its own.
        tensors: float32 arrays under our names, exactly those of the plan.
        num_classes, in_channels: as the classifier and the first layer have them.
        multi_label: the graph ends in a sigmoid.
        size: height and width of the images, where the file fixes them.
        normalisation: of the input within the graph; None where there is none.
        notes: what was guessed, folded or left aside, in sentences.
    """

    spec: ModelSpec
    tensors: dict[str, np.ndarray]
    num_classes: int
    in_channels: int
    multi_label: bool
    size: tuple[int, int] | None
    normalisation: Normalisation | None
    notes: tuple[str, ...]


def network_of(graph: Graph, source: str) -> StructuredNetwork:
    """The network that the graph computes; `source` names the file in errors.

    Raises:
        KeyMismatchError: it is another kind of network, or one that our numbers cannot say; the
            message names the first node that does not fit, and what was expected there.
    """
    try:
        found, asides = _find_result(graph)
        if graph.loose:
            some = ", ".join(graph.loose[:3])
            raise KeyMismatchError(f"{len(graph.loose)} tensors belong to no layer ({some})")
    except KeyMismatchError as error:
        raise KeyMismatchError(
            f"{source} is no DenseNet or DPN that can be read: {error}.{_kind_of(graph)}"
        ) from error
    notes = (*graph.notes, *asides, *found.notes)
    return StructuredNetwork(**{**vars(found), "notes": notes})


def _find_result(graph: Graph) -> tuple[StructuredNetwork, list[str]]:
    """The network that leads to one of the results, and what is said of the others.

    Raises:
        KeyMismatchError: none leads to one, or two do.
    """
    networks: dict[str, StructuredNetwork] = {}
    first: KeyMismatchError | None = None
    for result in graph.outputs:
        try:
            trace = Trace(graph, result)
            networks[result] = _find(graph, trace)
            _check_reached(graph, trace)
        except KeyMismatchError as error:
            first = first or error
            networks.pop(result, None)
    if not networks:
        raise first or KeyMismatchError("it has no result")
    if len(networks) > 1:
        names = ", ".join(networks)
        raise KeyMismatchError(f"{len(networks)} of its results are a classifier's: {names}")
    ((name, network),) = networks.items()
    others = [other for other in graph.outputs if other != name]
    if not others:
        return network, []
    left = ", ".join(others)
    return network, [f"of its {len(graph.outputs)} results {name!r} is read, and not {left}"]


def _check_reached(graph: Graph, trace: Trace) -> None:
    """Raise unless every node with weights leads to the result."""
    reached = {id(node) for node in trace.reached}
    for node in graph.nodes:
        if node.tensors and id(node) not in reached:
            raise misfit(node, "has weights and does not lead to the result")


def _find(graph: Graph, trace: Trace) -> StructuredNetwork:
    """The network of a traced graph."""
    walk = Walk(trace)
    arch, halves = _walk(walk)
    spec = name_spec(arch, graph.size, halves=halves)
    tensors = _tensors(spec, walk.found)
    classifier = walk.found[-1].weight
    notes = [*_norm_notes(spec, walk.found), *check_pools(walk, spec, graph.size)]
    if walk.head.ending == "softmax":
        notes.append("its softmax is left out: a network here gives logits, which predict turns")
    normalisation = _normalisation(walk)
    if normalisation is not None:
        notes.append("its graph normalises the images by itself, before the first layer")
    return StructuredNetwork(
        spec,
        tensors,
        len(classifier),
        walk.found[0].weight.shape[1],
        walk.head.ending == "sigmoid",
        graph.size,
        normalisation,
        tuple(notes),
    )


def _walk(walk: Walk) -> tuple[Arch, bool]:
    """The numbers of the network, and whether it is stored in halves, as DPN-68b is."""
    if any(source.kind == "add" for source in walk.trace.sources):
        dpn = walk_dpn(walk)
        epsilon, pool = common_epsilon(walk.found, default=1e-3), _pool(walk)
        return dpn_arch(walk.found, dpn, pool, epsilon), dpn.halves
    densenet = walk_densenet(walk)
    epsilon, pool = common_epsilon(walk.found, default=1e-5), _pool(walk)
    return densenet_arch(walk.found, densenet, pool, epsilon), False


def _pool(walk: Walk) -> StemPool:
    """How the max-pool of the stem pads; as the catalogue has it where there is none."""
    return "pad1" if walk.pool is None else stem_pool_of(walk.pool)


def _normalisation(walk: Walk) -> Normalisation | None:
    """What the images go through before the first layer, in the order of the file's channels."""
    affine = walk.stem().inputs[0].ordered(walk.trace.images.channels).affine
    return None if affine is None else Normalisation(*affine.factors())


def _norm_notes(spec: ModelSpec, found: Sequence[Found]) -> list[str]:
    """What is said of BatchNorms that the file does not have as such."""
    notes = []
    norms = [
        norm.epsilon if norm else 0.0
        for layer, one in zip(plan(spec), found, strict=True)
        for name, norm in ((layer.before, one.before), (layer.behind, one.behind))
        if name
    ]
    missing, others = norms.count(0.0), sum(one not in (0.0, spec.arch.bn_eps) for one in norms)
    if missing:
        notes.append(
            f"{missing} BatchNorms were folded away in the file and come back with the mean 0 and "
            "the variance 1: the same answers; set their statistics anew before you train on"
        )
    if others:
        notes.append(
            f"{others} BatchNorms had another epsilon than {spec.arch.bn_eps:g}; their factors are "
            "adapted to it, with the same answers"
        )
    return notes


def _tensors(spec: ModelSpec, found: Sequence[Found]) -> dict[str, np.ndarray]:
    """The layers' tensors under our names, each held to its row of the plan.

    Raises:
        KeyMismatchError: a layer is another than its row.
    """
    layers = plan(spec)
    assert len(layers) == len(found)
    tensors: dict[str, np.ndarray] = {}
    for layer, one in zip(layers, found, strict=True):
        _check_layer(layer, one, spec)
        tensors |= _norm_tensors(layer.before, one.before, one.weight.shape[1], spec)
        tensors[f"{layer.name}.weight"] = np.ascontiguousarray(one.weight, np.float32)
        if one.bias is not None:
            tensors[f"{layer.name}.bias"] = one.bias.astype(np.float32)
        tensors |= _norm_tensors(layer.behind, one.behind, one.weight.shape[0], spec)
    return tensors


def _norm_tensors(
    name: str, affine: Affine | None, width: int, spec: ModelSpec
) -> dict[str, np.ndarray]:
    """The tensors of the BatchNorm of that name; empty where there is none."""
    if not name:
        return {}
    affine = affine or Affine.of(np.ones(width), np.zeros(width))
    values = affine.at_epsilon(spec.arch.bn_eps)
    return {
        f"{name}.{leaf}": value.astype(np.float32)
        for leaf, value in zip(NORM_LEAVES, values, strict=True)
    }


def _check_layer(layer: Layer, found: Found, spec: ModelSpec) -> None:
    """Raise unless a layer found is that of the plan."""
    weight = found.weight
    if layer.kind == "classifier":
        if weight.shape[1] != layer.inputs:
            raise misfit(found.node, f"reads {weight.shape[1]} channels instead of {layer.inputs}")
        return
    half = layer.kernel // 2
    inputs = (layer.inputs or weight.shape[1]) // layer.groups
    wanted: dict[str, object] = {
        "weight": (layer.outputs, inputs, layer.kernel, layer.kernel),
        "stride": (layer.stride, layer.stride),
        "padding": (half, half, half, half),
        "groups": layer.groups,
    }
    has: dict[str, object] = {
        "weight": weight.shape,
        "stride": pair(found.node, "stride", 1),
        "padding": sides(found.node),
        "groups": found.node.attributes.get("groups", 1),
    }
    for name, value in wanted.items():
        if has[name] != value:
            raise misfit(
                found.node,
                f"has {name} {has[name]}, where {layer.name} of {_describe(spec)} has {value}",
            )


def _describe(spec: ModelSpec) -> str:
    """The numbers that the first layers gave, in a message."""
    arch = spec.arch
    if isinstance(arch, DPNArch):
        numbers = f"k_r {arch.k_r}, groups {arch.groups}, increments {arch.dense_increment}"
    else:
        numbers = f"growth rate {arch.growth_rate}, compression {arch.compression:.3g}"
    return f"{spec.name} ({numbers}, blocks {arch.blocks})"


def _kind_of(graph: Graph) -> str:
    """What the graph looks like, where that is another known kind of network."""
    kinds = {node.kind for node in graph.nodes}
    if "convolution" in kinds and "concat" not in kinds:
        if "add" in kinds:
            return " It adds maps and never concatenates them, as ResNets do."
        return " It neither adds nor concatenates maps, as plain networks like VGG."
    return ""

"""A graph's network is found in every way of writing it, or refused by its first misfit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from densepath.errors import KeyMismatchError
from densepath.models.build import build_model
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from densepath.weights.formula import formula_images
from densepath.weights.structure.graph import Node
from densepath.weights.structure.network import network_of
from fixtures.graphs import CLASSES, Style, change, make_graph

LARGE = ModelSpec("large", DenseNetArch(4, (2, 1), 6, bottleneck=2), 64, "none")
SMALL = ModelSpec("small", DenseNetArch(6, (2, 2), 8, stem="small"), 32, "none")
PLAIN = ModelSpec(
    "plain", DenseNetArch(5, (2, 3), 7, bottleneck=0, compression=0.7, stem="small"), 32, "none"
)
SAME = ModelSpec("same", DenseNetArch(4, (2, 1, 1), 6, stem_pool="same", bn_eps=1e-4), 64, "none")
DUAL = ModelSpec("dual", DPNArch(5, 3, 8, 2, (2, 1), (4, 3), base_factor=1), 64, "none")
SMALL_DUAL = ModelSpec(
    "small-dual", DPNArch(8, 3, 8, 4, (1, 2), (2, 3), 1, stem="small", bn_eps=1e-5), 32, "none"
)
LAST = "features.denseblock1.denselayer2.conv2"
SPECS = (LARGE, SMALL, PLAIN, SAME, DUAL, SMALL_DUAL)
STYLES = {
    "as it is": Style(),
    "newest first, classifier as a convolution": Style(reverse=True, head="convolution"),
    "BN and scale, two halves": Style(norm="pair", halves=True, head="matmul"),
    "folded, pooled first": Style(norm="scale", fold=True, pool_first=True, ending="softmax"),
}


def logits(spec, tensors, side):
    """What the network answers to an image of that side."""
    model = build_model(spec, num_classes=CLASSES)
    state = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(formula_images(1, side, side))).numpy()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("style", STYLES)
def test_a_network_is_found_in_every_way_of_writing_it(spec, style):
    graph, values = make_graph(spec, STYLES[style])
    found = network_of(graph, "a graph")
    want = spec.arch
    if STYLES[style].norm == "scale":  # then no file tells ε
        want = replace(want, bn_eps=1e-5 if spec.family == "densenet" else 1e-3)
    assert found.spec.arch == want
    assert (found.num_classes, found.in_channels, found.multi_label) == (CLASSES, 3, False)
    assert all(array.dtype == np.float32 for array in found.tensors.values())
    ours, theirs = (
        logits(*one, spec.input_size) for one in ((found.spec, found.tensors), (spec, values))
    )
    assert np.abs(theirs).max() > 0.5
    assert np.abs(ours - theirs).max() < 2e-5


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_tensors_that_a_graph_has_as_such_come_bit_by_bit(spec):
    graph, values = make_graph(spec)
    found = network_of(graph, "a graph")
    assert found.tensors.keys() == values.keys()
    assert all(np.array_equal(found.tensors[name], values[name]) for name in values)
    assert found.notes == ()


def test_what_is_folded_or_left_out_is_said():
    graph, _ = make_graph(LARGE, Style(fold=True, ending="softmax"))
    said = " ".join(network_of(graph, "a graph").notes)
    assert "4 BatchNorms were folded away" in said
    assert "softmax is left out" in said


def test_a_sigmoid_at_the_end_makes_a_multi_label_network():
    assert network_of(make_graph(LARGE, Style(ending="sigmoid"))[0], "a graph").multi_label


def test_a_catalogue_s_network_gets_its_name_and_one_channel_is_found():
    spec = ModelSpec("x", DenseNetArch(12, (3, 3, 3), 24, stem="small"), 32, "none")
    found = network_of(make_graph(spec, channels=1)[0], "a graph")
    assert (found.spec.name, found.in_channels) == ("densenet_bc_22_12", 1)


def test_a_normalisation_in_front_is_found_and_not_folded():
    graph, values = make_graph(LARGE)
    scale = Node("scale", ("images",), ("x",), {"gamma": np.ones(3) / 58, "beta": -np.arange(3.0)})
    nodes = [
        replace(node, inputs=("x",)) if "images" in node.inputs else node for node in graph.nodes
    ]
    found = network_of(replace(graph, nodes=(scale, *nodes)), "a graph")
    assert np.allclose(found.normalisation.scale, 1 / 58)
    assert np.allclose(found.normalisation.shift, -np.arange(3.0))
    assert np.array_equal(found.tensors["features.conv0.weight"], values["features.conv0.weight"])


def test_several_epsilons_become_one_with_the_same_answers():
    graph, values = make_graph(LARGE)
    odd = change(graph, "features.norm0", attributes={"epsilon": 0.5})
    found = network_of(odd, "a graph")
    assert found.spec.arch.bn_eps == 1e-5
    assert "1 BatchNorms had another epsilon" in " ".join(found.notes)
    scale = found.tensors["features.norm0.weight"] / np.sqrt(
        values["features.norm0.running_var"] + 1e-5
    )
    want = values["features.norm0.weight"] / np.sqrt(values["features.norm0.running_var"] + 0.5)
    assert np.allclose(scale, want, rtol=1e-6)


def test_of_several_results_the_classifier_s_is_taken_and_said():
    graph, _ = make_graph(LARGE)
    both = replace(graph, outputs=(graph.nodes[3].outputs[0], *graph.outputs))
    assert "of its 2 results" in network_of(both, "a graph").notes[0]


@pytest.mark.parametrize(
    ("node", "changes", "said"),
    [
        ("features.conv0", {"attributes": {"stride": 1}}, "'features.conv0' has stride (1, 1)"),
        ("features.conv0", {"attributes": {"padding": (2, 2, 3, 3)}}, "has padding (2, 2, 3, 3)"),
        ("features.conv0", {"attributes": {"dilation": 2}}, "is dilated"),
        ("max_pool", {"attributes": {"padding": 0}}, "pads by (0, 0, 0, 0)"),
        ("max_pool", {"attributes": {"ceil_mode": True}}, "rounds up"),
        ("max_pool", {"attributes": {"kernel": 2}}, "ours is 3 × 3"),
        ("average_pool", {"attributes": {"padding": 1}}, "averages with padding"),
        ("average_pool", {"kind": "max_pool"}, "a DenseNet concatenates them"),
        ("relu", {"kind": "Elu"}, "Elu 'v2' is no layer of these networks: some DPNs"),
        ("relu", {"kind": "identity"}, "did not go through a ReLU"),
        ("concat", {"kind": "multiply"}, "squeeze-and-excitation"),
        ("global_average", {"kind": "average_pool", "attributes": {"kernel": 5}}, "test-time"),
        ("global_average", {"kind": "max_pool", "attributes": {"kernel": 2}}, "flattens a map"),
        ("batch_norm", {"tensors": {}}, "has no mean"),
        ("fc", {"tensors": {"weight": np.ones((5, 3))}}, "has weights for 3"),
        (LAST, {"attributes": {"stride": 2}}, "has stride (2, 2)"),
    ],
)  # fmt: skip
def test_another_network_is_refused_by_the_first_node_that_does_not_fit(node, changes, said):
    graph, _ = make_graph(LARGE)
    with pytest.raises(KeyMismatchError) as error:
        network_of(change(graph, node, **changes), "a file")
    assert str(error.value).startswith("a file is no DenseNet or DPN that can be read: ")
    assert said in str(error.value)


def test_a_residual_network_is_named_as_one():
    graph, _ = make_graph(SMALL)
    added = [
        Node("add", (node.inputs[0], node.inputs[0]), node.outputs)
        if node.kind == "concat"
        else node
        for node in graph.nodes
    ]
    with pytest.raises(KeyMismatchError, match="as ResNets do"):
        network_of(replace(graph, nodes=tuple(added)), "a file")


def test_weights_beside_the_network_are_an_error():
    graph, _ = make_graph(LARGE)
    aside = Node("linear", ("v2",), ("aside",), {"weight": np.ones((2, 6), np.float32)}, name="aux")
    with pytest.raises(KeyMismatchError, match="linear 'aux' has weights and does not lead to"):
        network_of(replace(graph, nodes=(*graph.nodes, aside)), "a file")
    with pytest.raises(KeyMismatchError, match="2 tensors belong to no layer \\(a, b\\)"):
        network_of(replace(graph, loose=("a", "b")), "a file")


def test_what_cannot_run_is_refused():
    graph, _ = make_graph(LARGE)
    for nodes, said in (
        (graph.nodes[1:], "nothing in it computes"),
        ((Node("relu", ("v1",), ("v0",)), *graph.nodes[1:]), "reads what is computed from it"),
    ):
        with pytest.raises(KeyMismatchError, match=said):
            network_of(replace(graph, nodes=nodes), "a file")


def test_pools_that_round_up_are_taken_where_it_makes_no_difference():
    graph, _ = make_graph(LARGE)
    ceiled = change(graph, "average_pool", attributes={"ceil_mode": True})
    assert "multiples of 8" in " ".join(network_of(replace(ceiled, size=(64, 96)), "a graph").notes)
    with pytest.raises(KeyMismatchError, match="72 × 60"):
        network_of(replace(ceiled, size=(72, 60)), "a graph")


def test_a_map_is_not_doubled_without_end():
    graph, _ = make_graph(LARGE)
    doubles = [Node("concat", (f"d{i}", f"d{i}"), (f"d{i + 1}",)) for i in range(60)]
    first = replace(graph.nodes[0], outputs=("d0",))
    last = replace(graph.nodes[1], inputs=("d60",))
    with pytest.raises(KeyMismatchError, match="more channels"):
        network_of(replace(graph, nodes=(first, *doubles, last, *graph.nodes[2:])), "a graph")

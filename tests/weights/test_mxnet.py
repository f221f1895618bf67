"""MXNet's `.params`: read from bytes that this test writes, with what a graph says, and refused."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch

from densepath.errors import KeyMismatchError, WeightsError
from densepath.models.catalogue import CATALOGUE, find_spec
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from densepath.weights.formula import formula_tensor
from densepath.weights.imported import ImportRequest
from densepath.weights.key_map import differences
from densepath.weights.match import expected_shapes
from densepath.weights.mxnet import read
from densepath.weights.mxnet_file import V1_MAGIC, V2_MAGIC, V3_MAGIC, read_params
from densepath.weights.mxnet_names import authors_key_map, names_of, places_key_map, scopes_key_map
from densepath.weights.mxnet_symbol import read_symbol

GLUON = ModelSpec("small", DenseNetArch(2, (1, 2), 4), 64, "a test's")
AUTHORS = ModelSpec("small", DPNArch(4, 3, 4, 2, (1, 2), (1, 2), 1), 64, "a test's")
FLOAT32, FLOAT16, BFLOAT16, INT64 = 0, 2, 12, 6
TYPES = {FLOAT32: "<f4", FLOAT16: "<f2", BFLOAT16: "<u2", INT64: "<i8"}


def one_array(array, kind=FLOAT32, magic=V2_MAGIC, storage=0):
    """An array as `NDArray::Save` writes it, or a version before."""
    head = struct.pack("<I", magic) if magic else b""
    if magic in (V2_MAGIC, V3_MAGIC):
        head += struct.pack("<i", storage)
    sides = "q" if magic else "I"
    head += struct.pack(f"<I{array.ndim}{sides}", array.ndim, *array.shape)
    values = array if array.dtype == TYPES[kind] else array.astype(TYPES[kind])
    return head + struct.pack("<iii", 1, 0, kind) + values.tobytes()


def params(arrays, **options):
    """A whole file."""
    content = struct.pack("<QQQ", 0x112, 0, len(arrays))
    content += b"".join(one_array(array, **options) for array in arrays.values())
    content += struct.pack("<Q", len(arrays))
    for name in arrays:
        content += struct.pack("<Q", len(name.encode())) + name.encode()
    return content


def network(spec, table, classes=3):
    """The formula's values of a network under another's names."""
    shapes = expected_shapes(spec, classes, 3)
    arrays = {}
    for ours, theirs in table.items():
        whole = formula_tensor(ours, shapes[ours])
        cut = [whole] if len(theirs) == 1 else [whole[:-2], whole[-2:]]
        arrays.update(zip(theirs, cut, strict=True))
    return arrays


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="net-0000.params"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file


@pytest.mark.parametrize("magic", [V1_MAGIC, V2_MAGIC, V3_MAGIC, 0])
@pytest.mark.parametrize("kind", [FLOAT32, FLOAT16, INT64])
def test_an_array_of_every_version_and_type_comes_back(write, magic, kind):
    array = np.arange(6).reshape(2, 3)
    found = read_params(write(params({"arg:a": array}, kind=kind, magic=magic)))
    assert np.array_equal(found["arg:a"], array)


def test_bfloat16_comes_back_as_float32(write):
    halves = np.array([0x3F80, 0xC000], np.uint16)
    found = read_params(write(params({"a": halves}, kind=BFLOAT16)))
    assert found["a"].tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (params({"a": np.ones(3)})[:-1], "not there"),
        (params({"a": np.ones(3)})[:30], "run past its end"),
        (struct.pack("<QQQ", 0x112, 0, 1 << 60), "not there"),
        (params({"a": np.ones(3)}, storage=1), "sparse"),
        (params({"a": np.ones((0, 3))}), r"the sides \[0, 3\]"),
        (params({"a": np.array(1.0)}), "no values"),
        (struct.pack("<QQQQ", 0x112, 0, 0, 3) + b"a", "not there"),
        (struct.pack("<QQQ", 0x111, 0, 0), "0x111 instead of 0x112"),
    ],
    ids=["name", "header", "count", "sparse", "empty", "scalar", "names", "magic"],
)
def test_a_damaged_file_is_refused_with_the_reason(write, content, reason):
    with pytest.raises(WeightsError, match=reason):
        read_params(write(content))


@pytest.mark.parametrize(
    ("spec", "table", "owner"),
    [
        (GLUON, places_key_map(GLUON), "gluon"),
        (GLUON, scopes_key_map(GLUON, "net3_", "net3_dense7"), "gluon"),
        (AUTHORS, authors_key_map(AUTHORS), "mxnet"),
        (AUTHORS, authors_key_map(AUTHORS, classifier="fc6-1k"), "mxnet"),
    ],
)
def test_the_network_is_found_by_its_names_and_shapes(write, spec, table, owner):
    found = read(write(params(network(spec, table))), ImportRequest())
    assert (found.origin, found.num_classes, found.in_channels) == (owner, 3, 3)
    assert found.spec.arch == spec.arch
    for name, shape in expected_shapes(spec, 3, 3).items():
        assert np.array_equal(found.tensors[name], formula_tensor(name, shape)), name
    assert found.notes == [found.notes[0]]
    assert "no net-symbol.json beside it" in found.notes[0]


def test_dpn68b_s_divided_convolution_is_joined(write):
    spec = find_spec("dpn68b")
    table = authors_key_map(spec, split=True)
    shapes = {}
    for ours, shape in expected_shapes(spec, 1000, 3).items():
        theirs = table[ours]
        tails = {2: [shape[0] - 16, 16]}.get(len(theirs), [shape[0]])
        shapes |= {key: (rows, *shape[1:]) for key, rows in zip(theirs, tails, strict=True)}
    found = names_of(shapes)
    assert found.model == "dpn68b"
    assert not any(differences(found.key_map(spec), shapes))


@pytest.mark.parametrize("model", ["densenet161", "densenet201", "dpn68", "dpn107", "dpn131"])
def test_the_catalogue_s_networks_are_known_by_their_shapes(model):
    spec = CATALOGUE[model]
    is_dpn = spec.family == "dpn"
    table = authors_key_map(spec) if is_dpn else scopes_key_map(spec, "n_", "n_dense0")
    shapes = {table[ours][0]: shape for ours, shape in expected_shapes(spec, 10, 3).items()}
    assert names_of(shapes).arch == spec.arch


def symbol(**attributes):
    """A graph of one BatchNorm and what stands behind the last layer."""
    names = ["data", "features.1.gamma", "net_bn_gamma"]
    nodes = [{"op": "null", "name": name, "inputs": []} for name in names]
    norm = {"op": "BatchNorm", "name": "bn", "inputs": [[0, 0], [2, 0]], "attrs": attributes}
    last = {"op": "Activation", "name": "out", "inputs": [[3, 0]], "attrs": {"act_type": "sigmoid"}}
    return json.dumps({"nodes": [*nodes, norm, last]})


def test_the_graph_beside_the_file_says_epsilon_fixed_gammas_and_sigmoid(write, tmp_path):
    table = scopes_key_map(GLUON, "net_", "net_dense0")
    gamma = table["features.norm0.weight"][0]
    text = symbol(eps="2e-05").replace("net_bn_gamma", gamma)  # fix_gamma is on by default
    (tmp_path / "net-symbol.json").write_text(text)
    found = read(write(params(network(GLUON, table))), ImportRequest())
    assert found.spec.arch.bn_eps == 2e-5
    assert found.multi_label
    assert torch.equal(found.tensors["features.norm0.weight"], torch.ones(4))
    assert not torch.equal(found.tensors["features.norm5.weight"], torch.ones(6))
    assert "fix_gamma" in found.notes[1]


def test_a_graph_s_defaults_are_mxnet_s(tmp_path):
    path = tmp_path / "x-symbol.json"
    path.write_text(symbol())
    assert read_symbol(path).bn_eps == 1e-3
    assert read_symbol(path).fixed == {"net_bn_gamma"}
    path.write_text(symbol(fix_gamma="False"))
    assert read_symbol(path).fixed == frozenset()


@pytest.mark.parametrize("text", ["[]", '{"nodes": 3}', "{", '{"nodes": [{"op": "BatchNorm"}]}'])
def test_a_damaged_graph_is_refused(tmp_path, text):
    path = tmp_path / "x-symbol.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match="cannot be read as a graph"):
        read_symbol(path)


def test_missing_and_left_over_arrays_are_named(write):
    arrays = network(GLUON, places_key_map(GLUON))
    del arrays["features.1.beta"]
    arrays["features.99.weight"] = np.ones(3)
    with pytest.raises(KeyMismatchError, match=r"1 missing \(features\.1\.beta\); 1 unexpected"):
        read(write(params(arrays)), ImportRequest(model=GLUON))


def test_another_kind_of_network_is_refused(write):
    with pytest.raises(KeyMismatchError, match=r"1 arrays \(fc_weight\).*another kind of network"):
        read(write(params({"arg:fc_weight": np.ones(3)})), ImportRequest())


@pytest.mark.parametrize("table", [places_key_map(GLUON), scopes_key_map(GLUON, "n_", "n_dense0")])
def test_without_its_last_layer_it_is_a_backbone(write, table):
    arrays = network(GLUON, table)
    for name in ("classifier.weight", "classifier.bias"):
        del arrays[table[name][0]]
    found = read(write(params(arrays)), ImportRequest())
    assert found.backbone
    assert "it has no classifier" in found.notes[1]

"""The one reader of `.tflite` files: what is in one, and that nothing else is read as one."""

from __future__ import annotations

import numpy as np
import pytest

from densepath.bundle.tflite import kind_of, pack, parse_network, read_network, schema, unpack
from densepath.errors import BundleError

pytestmark = pytest.mark.npu("ai_edge_litert")


def tensor(name, shape, kind, *, buffer=0, scales=(), zeros=(), axis=0):
    made = schema().TensorT()
    made.name, made.shape, made.type, made.buffer = name.encode(), list(shape), kind, buffer
    if scales:
        made.quantization = schema().QuantizationParametersT()
        made.quantization.scale = np.array(scales, np.float32)
        made.quantization.zeroPoint = np.array(zeros, np.int64)
        made.quantization.quantizedDimension = axis
    return made


def code(kind, *, old=False, custom=None):
    made, number = schema().OperatorCodeT(), getattr(schema().BuiltinOperator, kind)
    made.deprecatedBuiltinCode = min(number, 127)
    made.builtinCode = 0 if old else number
    made.customCode = custom
    return made


def step(index, inputs, outputs):
    made = schema().OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = index, inputs, outputs
    return made


def objects():
    """A fully connected layer without a bias, and an operator of somebody's own."""
    types, model = schema().TensorType, schema().ModelT()
    model.version = 3
    weights, plan = schema().BufferT(), schema().BufferT()
    weights.data = np.arange(6, dtype=np.int8).view(np.uint8)
    plan.data = np.array([1, 0, 4, 0, -1, 64, 128], "<i4").view(np.uint8)
    model.buffers = [schema().BufferT(), weights, plan]
    model.operatorCodes = [code("FULLY_CONNECTED", old=True), code("CUSTOM", custom=b"ethos-u")]
    metadata = schema().MetadataT()
    metadata.name, metadata.buffer = b"OfflineMemoryAllocation", 2
    model.metadata = [metadata]
    graph = schema().SubGraphT()
    graph.tensors = [
        tensor("images", (1, 3), types.UINT8, scales=[1.0], zeros=[0]),
        tensor("w", (2, 3), types.INT8, buffer=1, scales=[0.5, 0.25], zeros=[0, 0], axis=0),
        tensor("sums", (1, 2), types.INT8, scales=[0.125], zeros=[-3]),
        tensor("logits", (1, 2), types.FLOAT32),
    ]
    graph.inputs, graph.outputs = [0], [3]
    graph.operators = [step(0, [0, 1, -1], [2]), step(1, [2], [3])]
    model.subgraphs = [graph]
    return model


@pytest.fixture
def content():
    return pack(objects())


def test_a_network_is_read_with_its_tensors_operators_scales_and_places(content, tmp_path):
    (tmp_path / "x.tflite").write_bytes(content)
    network = read_network(tmp_path / "x.tflite")
    assert [one.name for one in network.tensors] == ["images", "w", "sums", "logits"]
    assert [one.kind for one in network.operators] == ["FULLY_CONNECTED", "ethos-u"]
    assert (network.input.name, network.output.name) == ("images", "logits")
    images, weights, sums, logits = network.tensors
    assert network.operators[0].inputs == (images, weights, None)
    assert network.operators[1].outputs == (logits,)
    assert weights.data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (weights.scales.tolist(), weights.axis) == ([0.5, 0.25], 0)
    assert (float(sums.scale), sums.zero_point, sums.data) == (0.125, -3, None)
    assert (logits.is_quantised, float(logits.scale), logits.nbytes) == (False, 1.0, 8)
    assert network.offsets == (0, -1, 64, 128)


def test_what_is_unpacked_can_be_changed_and_packed_again(content):
    model = unpack(content)
    assert [kind_of(one) for one in model.operatorCodes] == ["FULLY_CONNECTED", "ethos-u"]
    model.subgraphs[0].tensors[3].name = b"answers"
    assert parse_network(pack(model)).output.name == "answers"
    assert pack(unpack(content)) == pack(unpack(pack(unpack(content))))


def test_what_is_no_tflite_file_is_refused(content, tmp_path):
    with pytest.raises(BundleError, match=r"none\.tflite cannot be read: No such file"):
        read_network(tmp_path / "none.tflite")
    for data in (b"", b"TFL3", content[:4] + b"ONNX" + content[8:]):
        (tmp_path / "x.tflite").write_bytes(data)
        with pytest.raises(BundleError, match=r"x\.tflite is not a TFLite model: it does not say"):
            read_network(tmp_path / "x.tflite")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_damaged_file_is_refused(content, share):
    with pytest.raises(BundleError, match="is a damaged TFLite model"):
        parse_network(content[: int(len(content) * share)])


def change(model, what):
    graph = model.subgraphs[0]
    if what == "subgraphs":
        model.subgraphs.append(graph)
    elif what == "inputs":
        graph.inputs = [0, 1]
    elif what == "type":
        graph.tensors[2].type = schema().TensorType.STRING
    else:
        graph.operators[0].inputs = [0, 9, -1]
    return model


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("subgraphs", "has 2 subgraphs; one is supported"),
        ("inputs", "has 2 inputs; image classifiers have one"),
        ("type", r"damaged TFLite model \(tensor 2 is of type"),
        ("tensor", "damaged TFLite model"),
    ],
)
def test_a_network_of_another_kind_is_refused(what, reason):
    with pytest.raises(BundleError, match=reason):
        parse_network(pack(change(objects(), what)))

"""ONNX files as exporters write them, of old and new opsets, and those that must not be read."""

from __future__ import annotations

import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from densepath.errors import (
    DensepathError,
    KeyMismatchError,
    MissingPackageError,
    UnsafeFileError,
    WeightsError,
)
from densepath.exporting.onnx import write_onnx
from densepath.exporting.program import export_program
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from densepath.weights.formula import formula_images
from densepath.weights.import_file import import_weights
from densepath.weights.onnx_files.graph import load_model, read_graph
from densepath.weights.structure.network import network_of
from fixtures.graphs import Style, make_graph
from fixtures.networks import TINY, TINY_DUAL, checkpoint_of, used_network

DENSE = ModelSpec("dense", DenseNetArch(4, (2, 1), 6, bottleneck=2), 64, "none")
DUAL = ModelSpec("dual", DPNArch(5, 3, 8, 2, (2, 1), (4, 3), base_factor=1), 64, "none")
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
PLAIN_OPERATORS = {
    "relu": "Relu", "global_average": "GlobalAveragePool", "add": "Add", "flatten": "Flatten",
    "sigmoid": "Sigmoid", "softmax": "Softmax",
}  # fmt: skip


class OnnxMaker:
    """A Graph as an ONNX model."""

    def __init__(self, opset, dtype=np.float32):
        self.opset, self.dtype = opset, dtype
        self.nodes, self.tensors = [], []

    def tensor(self, array, dtype=None):
        """An initialiser; its name."""
        name = f"w{len(self.tensors)}"
        array = np.asarray(array)
        array = array.astype(dtype or (self.dtype if array.dtype.kind == "f" else array.dtype))
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind, inputs, outputs, **attributes):
        """A node of the file."""
        self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), **attributes))

    def translate(self, node):
        """A node of a Graph."""
        inputs, outputs = list(node.inputs), list(node.outputs)
        tensors, attributes = node.tensors, node.attributes
        if node.kind in PLAIN_OPERATORS:
            self.add(PLAIN_OPERATORS[node.kind], inputs, outputs)
        elif node.kind == "convolution":
            weights = [self.tensor(tensors[key]) for key in ("weight", "bias") if key in tensors]
            pads, strides = [attributes["padding"]] * 4, [attributes["stride"]] * 2
            groups = attributes["groups"]
            self.add("Conv", inputs + weights, outputs, pads=pads, strides=strides, group=groups)
        elif node.kind == "batch_norm":
            keys = ("gamma", "beta", "mean", "variance")
            weights = [self.tensor(tensors[key]) for key in keys]
            epsilon = attributes["epsilon"]
            self.add("BatchNormalization", inputs + weights, outputs, epsilon=epsilon)
        elif node.kind == "scale":
            self.scale(inputs[0], outputs[0], tensors)
        elif node.kind in ("max_pool", "average_pool"):
            self.pool(node, inputs, outputs)
        elif node.kind == "concat":
            self.add("Concat", inputs, outputs, axis=1)
        elif node.kind == "slice":
            self.slice(inputs[0], outputs[0], attributes["start"], attributes["stop"])
        elif node.kind == "linear":
            weights = [self.tensor(tensors[key]) for key in ("weight", "bias")]
            self.add("Gemm", inputs + weights, outputs, transB=1)

    def scale(self, source, output, tensors):
        """Mul and Add of constants, whose shape an Unsqueeze makes, as Caffe2 wrote them."""
        for key, kind in (("gamma", "Mul"), ("beta", "Add")):
            name, made = self.tensor(tensors[key]), output if key == "beta" else f"{output}m"
            wide = f"{made}_wide"
            if self.opset < 13:
                self.add("Unsqueeze", [name], [wide], axes=[1, 2])
            else:
                self.add("Unsqueeze", [name, self.tensor(np.array([1, 2]))], [wide])
            self.add(kind, [source, wide], [made])
            source = made

    def pool(self, node, inputs, outputs):
        """A pool, with its padding in an operator before it where opsets have constants."""
        kernel, stride = [node.attributes["kernel"]] * 2, [node.attributes["stride"]] * 2
        pads = [node.attributes.get("padding", 0)] * 4
        kind = "MaxPool" if node.kind == "max_pool" else "AveragePool"
        if any(pads) and self.opset >= 13:
            sides = self.tensor(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
            value = self.tensor(np.array(-np.inf))
            self.add("Pad", [*inputs, sides, value], [f"{outputs[0]}p"])
            inputs, pads = [f"{outputs[0]}p"], [0] * 4
        self.add(kind, inputs, outputs, kernel_shape=kernel, strides=stride, pads=pads)

    def slice(self, source, output, start, stop):
        """A Slice: attributes up to opset 9, inputs from 10."""
        if self.opset < 10:
            self.add("Slice", [source], [output], starts=[start], ends=[stop], axes=[1])
        else:
            values = [self.tensor(np.array([one])) for one in (start, stop, 1)]
            self.add("Slice", [source, *values], [output])

    def model(self, graph, size=("h", "w")):
        """The model of a Graph."""
        for node in graph.nodes:
            self.translate(node)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        images = helper.make_tensor_value_info("images", kind, ["n", 3, *size])
        result = helper.make_tensor_value_info(graph.outputs[0], kind, None)
        made = helper.make_graph(self.nodes, "g", [images], [result], self.tensors)
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", self.opset)])


def write(path, spec=DENSE, style=None, opset=17, dtype=np.float32, alter=None):
    """A file of a network; its tensors."""
    graph, values = make_graph(spec, style)
    model = OnnxMaker(opset, dtype).model(graph)
    if alter:
        alter(model)
    onnx.save(model, str(path))
    return values


def read(path):
    """The network of a file."""
    return network_of(read_graph(load_model(path), path), str(path))


@pytest.mark.parametrize("opset", [9, 13, 20])
@pytest.mark.parametrize("spec", [DENSE, DUAL], ids=["densenet", "dpn"])
def test_every_opset_s_way_gives_the_tensors_back(opset, spec, tmp_path):
    values = write(tmp_path / "x.onnx", spec, Style(norm="pair"), opset)
    found = read(tmp_path / "x.onnx")
    assert found.spec.arch == spec.arch
    assert all(np.allclose(found.tensors[name], values[name], atol=1e-6) for name in values)


@pytest.mark.parametrize("kind", ["Split", "Gather"])
def test_a_dpn_s_halves_may_be_any_operator_that_takes_channels(kind, tmp_path):
    graph, values = make_graph(DUAL)
    widths = {
        node.outputs[0]: len(node.tensors["weight"])
        for node in graph.nodes
        if node.kind == "convolution"
    }
    maker = OnnxMaker(13)

    def take(source, output, start, stop):
        stop = min(stop, widths[source])
        if kind == "Gather":
            indices = maker.tensor(np.arange(start, stop))
            maker.add("Gather", [source, indices], [output], axis=1)
            return
        before, behind = start, widths[source] - stop
        sizes = [size for size in (before, stop - start, behind) if size]
        outputs = [output if place == bool(before) else "" for place in range(len(sizes))]
        names = [name or f"{output}_{place}" for place, name in enumerate(outputs)]
        maker.add("Split", [source, maker.tensor(np.array(sizes))], names, axis=1)

    maker.slice = take
    onnx.save(maker.model(graph), str(tmp_path / "x.onnx"))
    found = read(tmp_path / "x.onnx")
    assert all(np.array_equal(found.tensors[name], values[name]) for name in values)


def test_half_precision_and_double_become_float32(tmp_path):
    for dtype, bound in ((np.float16, 2e-3), (ml_dtypes.bfloat16, 2e-2), (np.float64, 0.0)):
        values = write(tmp_path / "x.onnx", dtype=dtype)
        found = read(tmp_path / "x.onnx")
        for name, value in values.items():
            assert found.tensors[name].dtype == np.float32
            assert np.abs(found.tensors[name] - value).max() <= bound


def test_tensors_beside_the_file_are_read(tmp_path):
    values = write(tmp_path / "x.onnx")
    model = onnx.load(str(tmp_path / "x.onnx"))
    onnx.save(model, str(tmp_path / "y.onnx"), save_as_external_data=True, location="y.bin",
              size_threshold=0)  # fmt: skip
    found = read(tmp_path / "y.onnx")
    assert all(np.array_equal(found.tensors[name], values[name]) for name in values)
    (tmp_path / "y.bin").write_bytes((tmp_path / "y.bin").read_bytes()[:-9])
    with pytest.raises(WeightsError, match="copy that file again"):
        read(tmp_path / "y.onnx")
    (tmp_path / "y.bin").unlink()
    with pytest.raises(WeightsError, match=r"'y\.bin' beside it, which is missing"):
        read(tmp_path / "y.onnx")


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../secret", "C:\\x", "", "link"]
)
def test_no_tensor_is_read_from_elsewhere(location, tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 100_000)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to("../secret")

    def alter(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    write(folder / "x.onnx", alter=alter)
    with pytest.raises(UnsafeFileError, match="only files beside it are read"):
        read(folder / "x.onnx")


def test_a_quantised_model_is_refused_with_the_cure(tmp_path):
    def alter(model):
        node = helper.make_node("DequantizeLinear", ["a", "b"], ["c"], name="dq")
        model.graph.node.insert(0, node)

    write(tmp_path / "x.onnx", alter=alter)
    with pytest.raises(
        WeightsError, match=r"quantised model \(DequantizeLinear 'dq'\).*float model"
    ):
        read(tmp_path / "x.onnx")


def test_an_input_of_pixels_with_its_normalisation_becomes_the_preprocessing(tmp_path):
    graph, values = make_graph(DENSE)
    maker = OnnxMaker(13)
    maker.add("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT)
    mean, std = np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 40.0])
    maker.add("Sub", ["floats", maker.tensor(mean)], ["moved"])
    maker.add("Div", ["moved", maker.tensor(std)], ["scaled"])
    maker.add("Transpose", ["scaled"], ["images"], perm=[0, 3, 1, 2])
    model = maker.model(graph)
    del model.graph.input[:]
    sides = ["n", 64, 96, 3]
    model.graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, sides))
    onnx.save(model, str(tmp_path / "x.onnx"))
    said = []
    checkpoint = import_weights(tmp_path / "x.onnx", say=said.append)
    assert checkpoint.preprocess.size == (64, 96)
    assert checkpoint.preprocess.mean == pytest.approx(mean / 255)
    assert checkpoint.preprocess.std == pytest.approx(std / 255)
    assert "by itself" in checkpoint.provenance["preprocess"]
    assert "channels first" in " ".join(said)
    assert np.array_equal(
        checkpoint.tensors["features.conv0.weight"].numpy(), values["features.conv0.weight"]
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet50", "ResNet"),
        ("squeezenet", "gives the result"),
        ("inception_v2", "averages with padding"),
        ("shufflenet", "flattens a map"),
        ("bvlc_alexnet", "LRN 'n2'"),
        ("vgg19", "would have 102,760,448 values"),
    ],
)
def test_other_networks_are_refused_by_what_they_are(name, said):
    with pytest.raises(DensepathError, match=said):
        read(LIGHT / f"light_{name}.onnx")


def test_the_densenet_121_of_the_onnx_package_is_found():
    found = read(LIGHT / "light_densenet121.onnx")
    assert (found.spec.name, found.spec.arch.bn_eps) == ("densenet121", 1e-5)
    assert (found.num_classes, found.size) == (1000, (224, 224))


def test_a_model_of_caffe2_is_turned_to_red_first(tmp_path):
    def alter(model):
        model.producer_name = "onnx-caffe2"

    values = write(tmp_path / "x.onnx", alter=alter)
    said = []
    checkpoint = import_weights(tmp_path / "x.onnx", say=said.append)
    stem = checkpoint.tensors["features.conv0.weight"].numpy()
    assert np.array_equal(stem[:, ::-1], values["features.conv0.weight"])
    assert "blue first" in " ".join(said)


def test_an_operator_of_a_runtime_alone_is_refused_with_the_cure(tmp_path):
    def alter(model):
        (node,) = [one for one in model.graph.node if one.name == "" and one.op_type == "Gemm"]
        node.domain, node.op_type = "com.microsoft", "FusedGemm"

    write(tmp_path / "x.onnx", alter=alter)
    with pytest.raises(
        KeyMismatchError, match=r"FusedGemm 'v\d+' is an operator of com\.microsoft"
    ):
        read(tmp_path / "x.onnx")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match="pip install onnx"):
        import_weights(tmp_path / "x.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("spec", [TINY, TINY_DUAL], ids=["densenet", "dpn"])
def test_an_export_of_ours_comes_back(spec, tmp_path):
    checkpoint = checkpoint_of(used_network(spec), size=spec.input_size)
    program = export_program(checkpoint, (spec.input_size, spec.input_size))
    write_onnx(program, checkpoint.preprocess, tmp_path)
    found = import_weights(tmp_path / "model.onnx", say=lambda note: None)
    assert found.spec.arch == checkpoint.spec.arch
    images = torch.from_numpy(formula_images(2, spec.input_size, spec.input_size))
    with torch.inference_mode():
        ours, theirs = (one.to_model()(images) for one in (found, checkpoint))
    assert float(theirs.abs().max()) > 0.5
    assert float((ours - theirs).abs().max()) < 1e-4


def test_damaged_files_and_odd_graphs_say_so(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"\x08\x07\x3a\x7fabc")
    with pytest.raises(WeightsError, match="cannot be read as an ONNX model"):
        import_weights(tmp_path / "x.onnx")

    def add_input(model):
        model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))

    write(tmp_path / "y.onnx", alter=add_input)
    with pytest.raises(WeightsError, match="has 2 inputs"):
        read(tmp_path / "y.onnx")

    def add_weight(model):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "stray"))

    write(tmp_path / "z.onnx", alter=add_weight)
    with pytest.raises(KeyMismatchError, match="1 tensors belong to no layer \\(stray\\)"):
        read(tmp_path / "z.onnx")

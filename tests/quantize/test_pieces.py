"""The pieces of quantisation by themselves, in milliseconds: no image is read, no graph written."""

from __future__ import annotations

import dataclasses
import logging
import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from densepath.errors import UnknownNameError
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model
from densepath.models.plan import plan
from densepath.quantize import executorch, litert, onnxruntime, sensitivity
from densepath.quantize.calibration import Calibration
from densepath.quantize.emulate import Emulation
from densepath.quantize.figure import _draw_bars
from densepath.quantize.native import MOST_WEIGHT, _round, write_native
from densepath.quantize.operators import count_onnx
from densepath.quantize.quantize import _size_of, _write_report, quantize
from densepath.quantize.report import QuantizationReport
from densepath.quantize.scoring import Score, signal_to_noise
from densepath.quantize.sensitivity import Sensitivity
from densepath.quantize.task import Task
from densepath.weights.checkpoint import Checkpoint

PREPROCESS = Preprocess((8, 8))


def calibration(description: str = "photographs") -> Calibration:
    return Calibration(np.zeros((2, 8, 8, 3), np.uint8), ["a", "b"], PREPROCESS, description)


def checkpoint() -> Checkpoint:
    model = build_model("densenet_bc_22_12", num_classes=3)
    return Checkpoint.of(model, preprocess=PREPROCESS, labels=["a", "b", "c"])


def test_what_was_measured_or_asked_for_is_not_changed_any_more():
    shown, found = calibration(), Score(1.0, 40.0)
    task = Task(checkpoint(), shown, ("classifier",), Path("scratch"))
    assert (len(shown), found.order, task.kept_names()) == (2, (40.0,), ["classifier"])
    for made, field in ((shown, "images"), (found, "agreement"), (task, "keep_float")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field, None)


def test_each_folder_of_a_task_is_a_new_one(tmp_path):
    task = Task(checkpoint(), calibration(), (), tmp_path)
    assert task.folder("minmax").is_dir()
    with pytest.raises(FileExistsError):
        task.folder("minmax")


def test_an_unknown_layer_is_refused_before_an_image_is_read(tmp_path):
    said: list[str] = []
    with pytest.raises(UnknownNameError, match=r"features\.nothing"):
        quantize(checkpoint(), data=tmp_path / "gone", output=tmp_path / "bundle",
                 keep_float="features.nothing", say=said.append)  # fmt: skip
    assert said == []


def test_the_size_in_float32_is_four_bytes_a_number():
    subject = checkpoint()
    assert _size_of(subject) == sum(tensor.numpy().nbytes for tensor in subject.tensors.values())


def test_what_the_methods_were_chosen_by_is_said():
    same, others = calibration(), calibration("other ones")
    for judged_on, said in ((same, "the same ones, for there are no others"), (others, "held out")):
        report = SimpleNamespace(
            calibration=same, judged_on=judged_on, keep_float=(), model="m", purpose="server"
        )
        text = "\n".join(QuantizationReport._opening(report))
        assert f"by 2 images: {'others, ' if judged_on is others else ''}{said}" in text
        assert ("held out" in text) == (judged_on is others)


def test_bars_reach_to_their_ratio_and_no_layer_falls_below_the_axis():
    axes = Figure().add_subplot()
    _draw_bars(axes, [10.0, 30.0, -math.inf, math.nan], [False, True, False, False])
    heights = [bar.get_height() for bar in axes.patches]
    assert heights[:3] == [10, 30, 4]
    assert axes.get_ylim() == pytest.approx((4, 30 + 0.06 * 26))


# Weights in 8 bits.


def rounded(weight, mean, square):
    one = np.asarray(weight, np.float64).reshape(1, -1, 1, 1)
    shape = one.shape[:2]
    return _round(one, np.zeros(1), np.full(shape, mean), np.asarray(square).reshape(shape))


def test_the_largest_weight_is_clipped_where_its_input_hardly_counts():
    # 0.6 is on the grid whose 127 is 0.6, and half a step off the one whose 127 is 1.
    weight = [1.0, *(0.6 * level / MOST_WEIGHT for level in range(1, 128))]
    found = rounded(weight, 0.0, [1e-12, *[1.0] * 127])
    assert found.scale * MOST_WEIGHT == pytest.approx([0.6])
    assert found.weight.ravel().tolist() == [127, *range(1, 128)]


def test_the_largest_weight_is_kept_where_its_input_counts():
    found = rounded([1.0, 0.3, -0.2], 0.0, [1e6, 1.0, 1.0])
    assert found.scale * MOST_WEIGHT == pytest.approx([1.0])
    assert found.weight.ravel()[0] == 127


def test_what_rounding_changes_at_the_mean_input_is_taken_off_the_bias():
    weight = np.array([1.0, 0.3331, -0.2223])
    found = rounded(weight, 2.0, np.full(3, 5.0))
    sums = (found.weight.ravel() * found.scale).sum() * 2.0 + found.bias
    assert sums == pytest.approx([weight.sum() * 2.0], abs=1e-9)


def test_a_rounded_layer_is_not_changed_any_more():
    with pytest.raises(dataclasses.FrozenInstanceError):
        rounded([1.0], 0.0, [1.0]).scale = None


# What converters say of themselves.


def test_the_log_is_as_it_was_once_the_exporter_is_quiet_no_more():
    before = logging.root.manager.disable
    with executorch._quiet():
        assert logging.root.manager.disable >= logging.WARNING
    assert logging.root.manager.disable == before


def test_what_the_converter_warns_of_itself_stays_unsaid():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with litert._quiet():
            warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated", stacklevel=1)
            with pytest.raises(UserWarning, match="yours"):
                warnings.warn("this one is yours", stacklevel=1)


# A whole network in 8 bits, by its definition.


@pytest.fixture(scope="module")
def network():
    """A small DenseNet whose BatchNorms have seen something, and images for it."""
    torch.manual_seed(0)
    model = build_model("densenet_bc_22_12", num_classes=4)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    made = Checkpoint.of(model.eval(), preprocess=Preprocess((16, 16)), labels=list("abcd"))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    return made, Calibration(images, list("abcdefgh"), made.preprocess, "noise")


def ratio(made, shown, tmp_path, keep_float=()):
    """Decibels of the float logits over what the INT8 file's arithmetic differs by."""
    path = tmp_path / "x.safetensors"
    write_native(made, path, calibration=shown, keep_float=keep_float)
    [images] = shown.batches(len(shown))
    with torch.inference_mode():
        expected = made.to_model().eval()(torch.from_numpy(images)).numpy()
    return signal_to_noise(expected, Emulation(made.spec, load_file(path))(images))


def test_the_arithmetic_of_an_int8_file_is_near_the_float_networks(network, tmp_path):
    assert ratio(*network, tmp_path) > 20


def test_layers_that_stay_float_lose_nothing_one_kind_or_all_of_them(network, tmp_path):
    whole = ratio(*network, tmp_path)
    names = [layer.name for layer in plan(network[0].spec)]
    transitions = [name for name in names if "transition" in name]
    assert transitions
    assert ratio(*network, tmp_path, transitions) > whole - 3
    assert ratio(*network, tmp_path, ["classifier"]) > whole - 3
    assert ratio(*network, tmp_path, names) > 90


def test_an_operator_that_is_no_int8_is_counted_by_its_kind(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Sin", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "x.onnx")
    found = count_onnx(tmp_path / "x.onnx")
    assert (found.int8, found.others) == (0, {"Sin": 1})


def test_every_tensor_of_a_graph_is_watched_on_every_image():
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, [1, 3, 8, 8]) for name in ("x", "z")]
    nodes = [helper.make_node("Exp", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    images = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 255)])
    plain = Preprocess((8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
    found = onnxruntime._observe(model, Calibration(images, ["a", "b"], plain, "two"))
    ranges = {name: (float(one.low[0]), float(one.high[0])) for name, one in found.items()}
    assert ranges == {
        "x": (0.0, 1.0),
        "y": pytest.approx((1.0, math.e)),
        "z": pytest.approx((-math.e, -1.0)),
    }


def test_a_report_has_a_picture_where_layers_were_measured(tmp_path):
    for number, layers in enumerate(([], [Sensitivity("features.conv0", 30.0)])):
        folder = tmp_path / str(number)
        folder.mkdir()
        report = SimpleNamespace(
            to_markdown=lambda: "text", to_dict=dict, sensitivity=layers, keep_float=(), model="m"
        )
        _write_report(report, folder)
        assert (folder / "quantization.md").read_text("utf-8") == "text"
        assert (folder / "sensitivity.png").is_file() == bool(layers)


def test_a_layer_that_was_rounded_is_itself_again():
    model = build_model("densenet_bc_22_12", num_classes=2)
    before = model.classifier.weight.detach().clone()
    with sensitivity._rounded(model, "classifier"):
        assert not torch.equal(model.classifier.weight, before)
    assert torch.equal(model.classifier.weight, before)

"""The ONNX files of a bundle: which runtimes read them, and what they call things."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import densepath
from densepath.errors import UsageError
from densepath.predict.load import load

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

MODEL = "cifar10/densenet_bc_22_12"
# The opset that each IR version came with, from onnx's docs/Versioning.md.
OLDEST_IR = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}


def export(folder, **options):
    options = {"to": ["onnx"], "num_images": 1, "batch_sizes": [1, 3]} | options
    return densepath.export(MODEL, folder, **options)


def image():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def shapes(values):
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in values
    }


def check(bundle, opset, sides=(32, 32)):
    """The file is whole, of the opset and its oldest IR, and says `batch` for what is free."""
    model = onnx.load(str(bundle.path_of("onnx")))
    onnx.checker.check_model(model, full_check=True)
    assert [one.version for one in model.opset_import if not one.domain] == [opset]
    assert model.ir_version == OLDEST_IR[opset]
    assert shapes(model.graph.input) == {"images": ["batch", 3, *sides]}
    assert shapes(model.graph.output) == {"logits": ["batch", 10]}
    tools = bundle.manifest.tools
    assert (tools["onnx_opset"], tools["onnx_ir"]) == (str(opset), str(OLDEST_IR[opset]))
    return model


@pytest.mark.parametrize("opset", [18, None, 23])
def test_a_bundle_is_of_the_opset_that_is_asked_for_and_answers_alike(opset, tmp_path):
    bundle = export(tmp_path / "b", to=["onnx", "torch"], opset=opset)
    check(bundle, opset or 20)
    answers = [
        next(load(bundle, engine=engine).predict(image())) for engine in ("onnxruntime", "eager")
    ]
    assert answers[0].labels == answers[1].labels
    np.testing.assert_allclose(answers[0].scores, answers[1].scores, atol=1e-5)


def test_free_sides_are_called_height_and_width_within_the_graph_too(tmp_path):
    bundle = export(tmp_path / "b", dynamic_size=True)
    model = check(bundle, 20, sides=("height", "width"))
    inner = {side for shape in shapes(model.graph.value_info).values() for side in shape}
    names = {side for side in inner if isinstance(side, str)}
    assert {"batch", "height", "width"} <= names
    assert all(name[0] in "bhw(" for name in names), names
    answer = next(load(bundle, engine="onnxruntime", size=48).predict(image()))
    assert answer.error is None


@pytest.mark.slow
@pytest.mark.parametrize("opset", [None, 18])
def test_a_quantised_network_is_in_order_and_of_the_opset_too(opset, tmp_path):
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    bundle = densepath.quantize(
        MODEL,
        tmp_path / "b",
        data=tmp_path,
        to=["onnx"],
        method="minmax",
        num_images=4,
        num_held_out=2,
        opset=opset,
    )
    kinds = {node.op_type for node in check(bundle, opset or 20).graph.node}
    assert "QuantizeLinear" in kinds
    assert next(load(bundle, engine="onnxruntime").predict(image())).error is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"opset": 17}, r"opset 17 cannot be written; choices: 18, 19, 20, .*25\."),
        ({"opset": 0}, r"opset 0 cannot be written; choices: 18,"),
        ({"opset": 99}, r"opset 99 cannot be written; choices: 18,"),
        ({"opset": "20"}, r"opset '20' cannot be written; choices: 18,"),
        ({"opset": 18.0}, r"opset 18\.0 cannot be written"),
        ({"opset": 18, "to": ["torch"]}, r"not among the formats: torch\. Add onnx"),
    ],
)
def test_an_opset_that_cannot_be_written_is_refused_before_any_work(options, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        export(tmp_path / "b", **options)
    assert not any(tmp_path.iterdir())


def test_an_installed_onnx_that_is_older_than_the_opset_says_how_to_update_it(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 21)
    with pytest.raises(UsageError, match=r"choices: 18, 19, 20, 21\. .*pip install -U onnx"):
        export(tmp_path / "b", opset=22)

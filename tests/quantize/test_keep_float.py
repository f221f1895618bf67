"""Which layers may stay in floating point: all of the plan, by the same names, in every form."""

from __future__ import annotations

import pytest

from densepath.bundle.formats import named, quantised
from densepath.errors import UnknownNameError
from densepath.models.plan import plan
from densepath.quantize.calibration import draw_calibration
from densepath.quantize.operators import count_operators
from densepath.quantize.task import Task
from fixtures.networks import TINY_DUAL, checkpoint_of, used_network

FORMS = quantised()
NPU = {"litert": "litert_torch", "executorch": "executorch.exir"}
EACH = [
    pytest.param(name, marks=pytest.mark.npu(NPU[name]) if name in NPU else ()) for name in FORMS
]
WEIGHTED = ("Conv", "CONV", "FullyConnected", "FULLY_CONNECTED", "Gemm", "MatMul", "linear")
# The layers that lie in each name; a convolution to both paths is two where graphs have it split.
KEPT = {
    "features.conv1_1": 1,  # the stem
    "features.conv2_2.c3x3_b.conv": 1,
    "features.conv2_2.c1x1_c": 1,
    "features.conv2_1": 4,  # a whole block
    "classifier": 1,
}
SPLIT = {"features.conv2_2.c1x1_c": 2, "features.conv2_1": 6}


@pytest.fixture(scope="module")
def subject():
    """A tiny DPN that looks trained."""
    return checkpoint_of(used_network(TINY_DUAL, num_classes=5), size=16, labels=list("abcde"))


@pytest.fixture(scope="module")
def calibration(subject, photographs):
    drawn, _ = draw_calibration(photographs, subject.preprocess, num_images=3, num_held_out=0)
    return drawn


def write(form, task):
    """The model's file by the first of the form's methods."""
    ((_, folder, parts),) = named(form.write)(task, named(form.methods)[:1])
    return folder / parts["model"]


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("format", EACH)
def test_every_form_keeps_the_layers_that_are_named(subject, calibration, tmp_path, format, kept):
    file = write(FORMS[format], Task(subject, calibration, (kept,), tmp_path))
    counted = count_operators(format, file)
    if counted is None:  # nobody can look into ExecuTorch's program
        (tmp_path / "whole").mkdir()
        whole = write(FORMS[format], Task(subject, calibration, (), tmp_path / "whole"))
        assert file.read_bytes() != whole.read_bytes()
        return
    others = counted.others
    found = sum(count for kind, count in others.items() if any(one in kind for one in WEIGHTED))
    in_halves = format != "native"
    assert found == (SPLIT.get(kept, KEPT[kept]) if in_halves else KEPT[kept]), others


@pytest.mark.parametrize("wrong", ["features.conv2_1.c1x1_x.conv", "features.conv5_bn_ac", "conv1"])
@pytest.mark.parametrize("format", EACH)
def test_an_unknown_layer_is_the_same_error_in_every_form(
    subject, calibration, tmp_path, format, wrong
):
    with pytest.raises(UnknownNameError) as caught:
        write(FORMS[format], Task(subject, calibration, (wrong,), tmp_path))
    names = sorted(layer.name for layer in plan(subject.spec))
    assert caught.value.choices == names
    assert str(caught.value) == str(UnknownNameError("layer", wrong, names))
    if wrong.startswith("features.conv2_1"):
        assert "Did you mean features.conv2_1.c1x1_" in str(caught.value)

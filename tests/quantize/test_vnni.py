"""INT8 on x86 processors without VNNI, whose quick kernels add products of bytes in 16 bits.

On a processor with VNNI the sums are right in any case; what is asked of ONNX Runtime and what the
files hold is then tested alone.
"""

from __future__ import annotations

import numpy as np
import pytest

from densepath.engines import onnxruntime as engine
from densepath.engines.machine import has_vnni
from densepath.engines.onnxruntime import EXACT_INT8, OnnxRuntimeEngine, session_options
from densepath.kernels import compile as compiling
from densepath.predict.load import load
from densepath.quantize.calibration import draw_calibration
from densepath.quantize.quantize import quantize
from densepath.quantize.scoring import engine_logits, float_logits, signal_to_noise
from densepath.weights.subject import open_checkpoint
from fixtures.int8 import double_the_stem, stem_weights
from fixtures.networks import SHIPPED, TINY_DUAL, checkpoint_of, used_network

DRAWN = {"num_images": 8, "num_held_out": 6}
GOOD_DB = 25  # 30 where the sums are right, 15 where those of the first layer saturate


@pytest.fixture(scope="module")
def bundle(photographs, tmp_path_factory):
    """The shipped network as an INT8 bundle with the formats of other systems' runtimes."""
    folder = tmp_path_factory.mktemp("bundles") / "int8"
    options = {"to": ["onnx", "openvino"], "method": "minmax", **DRAWN}
    return quantize(SHIPPED, folder, data=photographs, **options)


@pytest.fixture(scope="module")
def judged(photographs):
    """The float network, and images that it was not calibrated on with its logits."""
    checkpoint = open_checkpoint(SHIPPED)
    _, images = draw_calibration(photographs, checkpoint.preprocess, seed=0, **DRAWN)
    return checkpoint, images, float_logits(checkpoint, images)


def snr_db(file, judged):
    """How near the logits of the file's engine are to the float network's."""
    checkpoint, images, expected = judged
    opened = OnnxRuntimeEngine(file, checkpoint.preprocess, precision="int8", mode="latency")
    try:
        return signal_to_noise(engine_logits(opened, images), expected)
    finally:
        opened.close()


# Sessions


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("flags: avx2 avx512f avx512_vnni amx_int8", True),
        ("flags: avx2 avx_vnni", True),
        ("flags: avx2 fma avx512f avx512bw", False),
        ("", False),  # the system does not say
    ],
)
def test_a_session_is_asked_for_right_sums_unless_the_processor_is_known_to_make_them(
    monkeypatch, flags, has
):
    monkeypatch.setattr(compiling, "describe_cpu", lambda: flags)
    assert has_vnni() == has
    options = session_options()
    if has:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(EXACT_INT8)
    else:
        assert options.get_session_config_entry(EXACT_INT8) == "1"


def test_a_bundle_whose_first_layer_has_8_bits_is_answered_right(bundle, judged, tmp_path):
    older = tmp_path / "model.onnx"
    double_the_stem(bundle.path_of("onnx"), older)
    assert np.abs(stem_weights(older)).max() == 127
    assert snr_db(older, judged) > GOOD_DB


# Files


def test_without_the_option_the_file_is_right_too(bundle, judged, monkeypatch):
    """As in a program of the user's own."""
    monkeypatch.setattr(engine, "has_vnni", lambda: True)
    assert snr_db(bundle.path_of("onnx"), judged) > GOOD_DB


def test_the_layer_that_reads_images_has_weights_of_7_bits(bundle):
    assert 60 <= np.abs(stem_weights(bundle.path_of("onnx"))).max() <= 64


def test_so_it_has_in_a_dual_path_network(photographs, tmp_path):
    checkpoint = checkpoint_of(
        used_network(TINY_DUAL, num_classes=5), size=16, labels=list("abcde")
    )
    options = {"to": ["onnx"], "method": "minmax", **DRAWN}
    made = quantize(checkpoint, tmp_path / "dual", data=photographs, **options)
    assert 60 <= np.abs(stem_weights(made.path_of("onnx"))).max() <= 64


def test_so_it_has_in_openvinos_form(bundle):
    openvino = pytest.importorskip("openvino")
    network = openvino.Core().read_model(bundle.path_of("openvino"))
    largest = [
        np.abs(node.data.astype(int)).max()
        for node in network.get_ordered_ops()
        if node.get_type_name() == "Constant" and node.get_element_type() == openvino.Type.i8
    ]
    assert 60 <= largest[0] <= 64
    assert max(largest[1:]) == 127


def test_the_report_says_what_a_program_of_ones_own_sets(bundle):
    report = (bundle.folder / "quantization.md").read_text(encoding="utf-8")
    assert "x86 processors without VNNI" in report
    assert f"`{EXACT_INT8}` set to `1`" in report


def test_every_engine_answers_alike(bundle, judged):
    _, images, expected = judged
    for name in ("onnxruntime", "openvino"):
        with load(bundle.folder, engine=name) as predictor:
            found = engine_logits(predictor.engine, images)
        assert signal_to_noise(found, expected) > GOOD_DB, name

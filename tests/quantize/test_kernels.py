"""Which kernels of LiteRT a form is judged by: an NPU's integers are those of the reference."""

from __future__ import annotations

import numpy as np
import pytest

from densepath.bundle.tflite import read_network
from densepath.engines.litert import LiteRtEngine
from densepath.errors import UnknownNameError
from densepath.npu.integer import IntegerExecutor
from densepath.quantize.calibration import draw_calibration
from densepath.quantize.quantize import quantize
from densepath.quantize.scoring import engine_logits, float_logits, signal_to_noise
from densepath.weights.subject import open_checkpoint
from fixtures.networks import SHIPPED

pytestmark = pytest.mark.npu("litert_torch")

DRAWN = {"num_images": 8, "num_held_out": 6}


@pytest.fixture(scope="module")
def bundles(photographs, tmp_path_factory):
    """The same INT8 network, judged as an NPU's and as a phone's."""
    folder = tmp_path_factory.mktemp("bundles")
    options = {"data": photographs, "to": ["litert"], "method": "minmax", **DRAWN}
    return {
        purpose: quantize(SHIPPED, folder / purpose, purpose=purpose, **options)
        for purpose in ("npu", "edge")
    }


def told(bundle):
    """The kernels and the ratio that a bundle's report has."""
    form = bundle.manifest.quantization["formats"]["litert"]
    return form["kernels"], form["tried"]["minmax"]["snr_db"]


def held_out(photographs):
    checkpoint = open_checkpoint(SHIPPED)
    _, images = draw_calibration(photographs, checkpoint.preprocess, seed=0, **DRAWN)
    return checkpoint, images


def engine_of(bundle, checkpoint, kernels):
    return LiteRtEngine(
        bundle.path_of("litert"),
        preprocess=checkpoint.preprocess,
        in_channels=3,
        num_classes=checkpoint.num_classes,
        size=checkpoint.preprocess.size,
        kernels=kernels,
    )


def test_an_npus_form_is_judged_by_the_integers_of_an_npu(bundles, photographs):
    checkpoint, images = held_out(photographs)
    network = read_network(bundles["npu"].path_of("litert"))
    executor, output = IntegerExecutor(network), network.output
    integers = np.concatenate([executor.run(image) for image in images.images])
    logits = (integers.astype(np.float32) - output.zero_point) * output.scale
    kernels, ratio = told(bundles["npu"])
    assert kernels == "reference"
    assert ratio == pytest.approx(signal_to_noise(logits, float_logits(checkpoint, images)))


def test_a_phones_form_is_judged_by_the_kernels_of_a_phone(bundles, photographs):
    checkpoint, images = held_out(photographs)
    engine = engine_of(bundles["edge"], checkpoint, "optimised")
    try:
        found = engine_logits(engine, images)
    finally:
        engine.close()
    kernels, ratio = told(bundles["edge"])
    assert kernels == "optimised"
    assert ratio == pytest.approx(signal_to_noise(found, float_logits(checkpoint, images)))


def test_the_same_file_has_other_figures_by_other_kernels(bundles):
    models = [bundle.path_of("litert").read_bytes() for bundle in bundles.values()]
    assert models[0] == models[1]
    assert told(bundles["npu"])[1] != told(bundles["edge"])[1]


@pytest.mark.parametrize(("purpose", "kernels"), [("npu", "reference"), ("edge", "optimised")])
def test_the_report_says_which_kernels(bundles, purpose, kernels):
    text = (bundles[purpose].folder / "quantization.md").read_text(encoding="utf-8")
    assert f"litert was run by LiteRT's {kernels} kernels" in text


def test_reference_kernels_answer_alike_on_one_stream_and_on_several(bundles, photographs):
    checkpoint, images = held_out(photographs)
    answers = []
    for mode in ("latency", "throughput"):
        engine = LiteRtEngine(
            bundles["npu"].path_of("litert"),
            preprocess=checkpoint.preprocess,
            in_channels=3,
            num_classes=10,
            size=(32, 32),
            mode=mode,
            threads=2,
            kernels="reference",
        )
        answers.append(engine_logits(engine, images))
        engine.close()
    assert answers[0].tobytes() == answers[1].tobytes()


def test_kernels_that_there_are_not_are_refused(bundles):
    with pytest.raises(UnknownNameError, match="Choices: optimised, reference"):
        engine_of(bundles["npu"], open_checkpoint(SHIPPED), "own")

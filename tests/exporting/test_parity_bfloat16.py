"""What `export` says of bfloat16: its figures by arithmetic, and a network by its own answers."""

import json

import numpy as np
import pytest
import torch

from densepath.bundle.bfloat16 import TIE, BFloat16Report, reports_in
from densepath.engines import native
from densepath.engines.opening import Opening
from densepath.errors import EngineError
from densepath.exporting import parity_bfloat16 as measuring
from densepath.exporting.parity import Parity
from densepath.exporting.parity_bfloat16 import is_quick_in_bfloat16, measure_bfloat16, report_of
from densepath.images.preprocess import Preprocess
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import TINY, used_network

EXPECTED = np.array([[9, 8, 7, 6, 5, 4, 0], [1, 16, 2, 3, 4, 5, 6]], np.float32)


def figures(found, expected=EXPECTED):
    return report_of(np.array(found, np.float32), expected, multi_label=False)


def test_equal_logits_are_enough():
    report = figures(EXPECTED)
    assert report == BFloat16Report(2, 1.0, 0, 1.0, 0.0, 0.0, 0.0)
    assert report.is_enough


def test_the_five_best_may_change_their_order_but_not_be_others():
    ordered = EXPECTED.copy()
    ordered[0, [3, 4]] = [5, 6]
    assert figures(ordered).top5 == 1.0
    ordered[0, [4, 5]] = [4, 5]
    report = figures(ordered)
    assert (report.top1, report.top5) == (1.0, 0.5)
    assert not report.is_enough


def test_another_best_class_is_a_tie_within_one_step_of_bfloat16_and_else_not():
    step = TIE * 16  # of the largest logit
    for margin, ties, top1 in ((0.9 * step, 1, 1.0), (1.1 * step, 0, 0.5)):
        expected = EXPECTED.copy()
        expected[0, 1] = 9 - margin
        found = expected.copy()
        found[0, [0, 1]] = expected[0, [1, 0]]
        report = figures(found, expected)
        assert (report.ties, report.top1) == (ties, top1)
        assert report.is_enough == (ties == 1)


def test_a_tie_is_with_the_class_that_was_taken_not_with_any():
    expected = EXPECTED.copy()
    expected[0, 1] = 9  # as good as the first, but neither is taken
    found = expected.copy()
    found[0, 4] = 10
    report = figures(found, expected)
    assert (report.ties, report.top1) == (0, 0.5)


def test_of_few_classes_and_of_several_an_image_it_is_the_scores_that_must_be_near():
    few = np.array([[2, -2], [-0.5, 0.5], [3, 1], [0.2, -0.2]], np.float32)
    near = report_of(few + np.float32([[0.04, -0.01]]), few, multi_label=False)
    assert (near.by_score, near.top5, near.is_enough) == (True, 1.0, True)
    other = few.copy()
    other[1, 1] += 0.3  # the same best class
    report = report_of(other, few, multi_label=False)
    assert (report.top1, report.top5, report.is_enough) == (1.0, 0.75, False)
    assert str(report).endswith("every score within 0.02 on all but 1")
    report = report_of(EXPECTED * np.float32(0.5), EXPECTED, multi_label=True)
    assert (report.by_score, report.is_enough) == (True, False)
    assert not report_of(np.full_like(few, np.nan), few, multi_label=False).is_enough
    assert not report_of(-few[:, :1], few[:, :1], multi_label=True).is_enough
    sharper = report_of(few + np.float32([[0.04, -0.01]]), few, multi_label=False, temperature=0.3)
    assert not sharper.is_enough  # of scores as a user has them
    kept = BFloat16Report.of({"bfloat16": near.to_dict()})
    assert kept == near


def test_the_difference_is_set_against_the_largest_logit():
    found = EXPECTED.copy()
    found[1, 0] += 0.5
    assert (figures(found).max_difference, figures(found).relative) == (0.5, 0.5 / 16)


def test_the_manifest_keeps_the_report_and_the_page_says_what_follows():
    report = figures(EXPECTED)
    worse = figures(EXPECTED[:, ::-1])
    reports = {"native": report, "openvino": worse}
    parity = Parity("densenet121", "2 photographs", ["a", "b"], 2, [], [], bfloat16=reports)
    kept = json.loads(json.dumps(parity.summary()))
    assert reports_in(kept) == reports
    assert list(kept["bfloat16_others"]) == ["openvino"]
    assert BFloat16Report.of(kept, "openvino") == worse
    assert BFloat16Report.of(kept, "onnxruntime") is None
    assert parity.to_dict()["bfloat16"]["top5"] == 1.0
    assert parity.to_dict()["bfloat16_others"]["openvino"]["top1"] == worse.top1
    page = " ".join(parity.to_markdown().split())
    assert "In bfloat16, on our kernels: the best class is the same on all of 2 images, " in page
    assert "So `--precision auto` may take it where the processor has instructions for it" in page
    assert "In bfloat16, on openvino: the best class is the same on all but 2 of 2 images, " in page
    assert "So `--precision auto` does not take it on machines of the kind that it was" in page
    without = Parity("densenet121", "2", ["a", "b"], 2, [], [], bfloat16={"openvino": report})
    assert reports_in(without.summary()) == {"openvino": report}
    assert "bfloat16" not in without.summary()
    other = Parity("densenet121", "2 photographs", ["a", "b"], 2, [], [])
    assert BFloat16Report.of(other.summary()) is None
    assert other.to_dict()["bfloat16"] is None
    assert "bfloat16" not in other.to_markdown()


@pytest.fixture
def network(tmp_path):
    """A checkpoint's file and how it is run, images, and the logits of PyTorch in float32."""
    model = used_network(TINY, num_classes=7, seed=3)
    checkpoint = Checkpoint.of(model, preprocess=Preprocess((32, 32)))
    checkpoint.save(tmp_path / "model.safetensors")
    inputs = np.random.default_rng(1).standard_normal((12, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(inputs)).numpy()
    file = tmp_path / "model.safetensors"
    opening = Opening(file, checkpoint.preprocess, 3, 7, mode="latency")
    return {"torch": opening}, inputs, expected


@pytest.mark.parametrize("others", [False, True])
def test_a_network_is_measured_in_bfloat16_on_any_processor(network, others):
    [(engine, report)] = measure_bfloat16(
        *network, multi_label=False, temperature=None, others=others
    ).items()
    assert engine == "native"
    assert report.num_images == 12
    assert 1e-5 < report.relative < 2e-2
    assert report.max_difference == pytest.approx(report.relative * np.abs(network[2]).max())


def test_without_a_compiler_there_is_no_report(network, monkeypatch):
    def fail():
        raise EngineError("no compiler")

    monkeypatch.setattr(native, "load_library", fail)
    assert measure_bfloat16(*network, multi_label=False, temperature=None, others=True) == {}


def test_whether_the_processor_is_quick_is_asked_for_engines_that_compute_bfloat16(monkeypatch):
    monkeypatch.setattr(measuring, "missing_bfloat16", lambda: "")
    assert is_quick_in_bfloat16({"torch"})
    assert is_quick_in_bfloat16(["onnx", "openvino"])
    monkeypatch.setattr(measuring, "missing_bfloat16", lambda: "it has none")
    assert not is_quick_in_bfloat16({"torch", "openvino"})
    monkeypatch.setattr(measuring, "missing_bfloat16", lambda: pytest.fail("asked"))
    assert not is_quick_in_bfloat16({"onnx"})

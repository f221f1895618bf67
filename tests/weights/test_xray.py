"""torchxrayvision's findings, and what becomes of those that a network was never trained on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from densepath.weights.published import XRAY_INPUT
from densepath.weights.xray import FINDINGS, read_findings
from densepath.weights.xray_files import points_of

ENDING = "-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
CHEXPERT = {
    *("Atelectasis", "Consolidation", "Pneumothorax", "Edema", "Effusion", "Pneumonia"),
    *("Cardiomegaly", "Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum"),
}


def findings(points=None, count=18, name="x.pt"):
    tensors = {} if points is None else {"op_threshs": torch.tensor(points)}
    return read_findings(tensors, "", None, count, name)


def test_the_input_is_what_normalize_makes():
    """`(2 * (img / 255) - 1.) * 1024` of its utils.py."""
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    theirs = (2 * (image.astype(np.float32) / 255) - 1.0) * 1024
    assert np.abs(XRAY_INPUT.normalise(image)[0] - theirs[:, :, 0]).max() < 1e-3


def test_the_18_findings_have_their_names_and_thresholds():
    found = findings([0.02 * (n + 1) for n in range(18)])
    assert found.labels == list(FINDINGS)
    assert found.thresholds[2] == pytest.approx(0.06)
    assert found.kept == list(range(18))


@pytest.mark.parametrize("odd", [math.nan, 0.0, 1.0, -1.0])
def test_a_finding_without_an_operating_point_is_left_out_and_that_is_said(odd):
    points = [0.1] * 18
    points[2] = points[9] = odd
    found = findings(points)
    assert len(found.kept) == len(found.labels) == len(found.thresholds) == 16
    assert "Infiltration" not in found.labels
    assert "left out 2 of 18 outputs" in found.notes[0]


def test_a_network_of_other_classes_keeps_them_all_without_names():
    found = findings(count=3)
    assert (found.kept, found.labels, found.thresholds) == ([0, 1, 2], None, None)


@pytest.mark.parametrize(
    ("name", "count"),
    [("nih-pc-chex-mimic_ch-google-openi-kaggle", 18), ("nih", 14), ("pc", 15), ("chex", 11),
     ("kaggle", 2), ("mimic_nb", 11), ("mimic_ch", 11)],
)  # fmt: skip
def test_a_published_file_gets_the_library_s_thresholds_by_its_name(name, count):
    found = findings(name=name + ENDING)
    assert len(found.labels) == len(found.thresholds) == count
    assert "a file of this name" in found.notes[0]
    assert all(0 < value < 1 for value in found.thresholds)
    if name == "chex":
        assert set(found.labels) == CHEXPERT
    assert len(points_of(name + ENDING)) == 18


def test_a_file_s_own_thresholds_go_before_those_of_its_name():
    assert findings([0.3] * 18, name="nih" + ENDING).thresholds == pytest.approx([0.3] * 18)
    assert points_of("mine.pt") is None


def test_a_yes_by_threshold_is_the_library_s_yes_above_a_half():
    """`op_norm`: p / 2t below t, 1 − (1 − p) / 2(1 − t) above."""
    p, t = np.meshgrid(np.linspace(0.001, 0.999, 57), np.linspace(0.01, 0.9, 31))
    stretched = np.where(p < t, p / (2 * t), 1 - (1 - p) / (2 * (1 - t)))
    assert np.array_equal(stretched >= 0.5, p >= t)
    assert (np.diff(stretched, axis=1) > 0).all()

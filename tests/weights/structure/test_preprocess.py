"""A graph's own normalisation of its images, behind what is done to them before it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from densepath.errors import KeyMismatchError
from densepath.images.preprocess import Preprocess
from densepath.weights.imported import ImportRequest
from densepath.weights.paddle_inference import reader
from densepath.weights.structure.network import Normalisation
from densepath.weights.structure.preprocess import behind

OWN = Normalisation(np.array([2.0, 0.5, 4.0]), np.array([0.1, -0.2, 0.0]))
WAY = Preprocess((4, 4), mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.2))
MODELS = Path(__file__).parents[2] / "parity" / "files" / "paddle_inference"


def test_one_mean_and_deviation_do_what_both_did():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    before = WAY(pixels).astype(np.float64)
    wanted = before * OWN.scale[:, None, None] + OWN.shift[:, None, None]
    np.testing.assert_allclose(behind(WAY, OWN, "x")(pixels), wanted, rtol=1e-5, atol=1e-5)


def test_a_graph_that_turns_values_around_is_refused():
    with pytest.raises(KeyMismatchError, match="multiplies its input by -1"):
        behind(WAY, Normalisation(np.array([1.0, -1.0, 1.0]), np.zeros(3)), "x")


@pytest.mark.parametrize("name", ["dpn", "densenet"])
def test_what_a_paddle_program_does_to_its_input_is_in_the_preprocessing(name, monkeypatch):
    plain = reader.read(MODELS / name, ImportRequest())
    read_network = reader.read_network
    monkeypatch.setattr(
        reader,
        "read_network",
        lambda parts: dataclasses.replace(read_network(parts), normalisation=OWN),
    )
    found = reader.read(MODELS / name, ImportRequest())
    assert "what its program does to its input" in found.preprocess_from
    if name == "dpn":  # with an inference.yml
        assert found.preprocess == behind(plain.preprocess, OWN, "x")
    else:
        assert found.preprocess.mean == pytest.approx((-0.05, 0.4, 0.0))
        assert found.preprocess.std == pytest.approx((0.5, 2.0, 0.25))

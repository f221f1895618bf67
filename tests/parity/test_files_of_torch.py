"""Files that PyTorch's libraries wrote give what the libraries' own networks answered.

Narrow networks of the libraries' own classes, filled by formula and saved by them
(`benchmarks/peers/torchfam/networks.py --samples`); beside each file what it answered. Of all their
models: benchmarks/results/2026-11-28-import-torch.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from densepath.errors import KeyMismatchError
from densepath.weights.formula import formula_images
from densepath.weights.import_file import import_weights

FILES = Path(__file__).with_name("torch_files")
ANSWERED = sorted(path.stem for path in FILES.glob("*.npz"))
BOUND = 1e-4


def file_of(stem):
    return next(path for path in FILES.iterdir() if path.stem == stem and path.suffix != ".npz")


def test_every_library_and_form_is_here():
    assert {stem.split("_")[0] for stem in ANSWERED} == {
        *("torch", "torchxrayvision", "timm", "monai", "fastai", "lightning")
    }
    assert len(ANSWERED) == 18


@pytest.mark.parametrize("stem", ANSWERED)
def test_a_file_gives_what_the_library_s_own_network_gave(stem):
    checkpoint = import_weights(file_of(stem), say=lambda note: None)
    network = checkpoint.to_model()
    run = network.features if checkpoint.provenance.get("backbone") else network
    with np.load(FILES / f"{stem}.npz") as stored:
        for size in stored.files:
            height, width = map(int, size.split("x"))
            images = formula_images(1, height, width, checkpoint.in_channels)
            with torch.inference_mode():
                ours = run(torch.from_numpy(images))[0].numpy()
            assert 0.1 < np.abs(stored[size]).max() < 20
            assert np.abs(ours - stored[size]).max() <= BOUND


@pytest.mark.parametrize(
    ("stem", "reason"),
    [
        ("monai_densenet_3-D_refused", "of 3 dimensions .*a network for volumes"),
        ("timm_densenetd_refused", "a deep stem, as timm's densenet264d"),
    ],
)
def test_what_our_networks_cannot_compute_is_refused_with_what_differs(stem, reason):
    with pytest.raises(KeyMismatchError, match=reason):
        import_weights(file_of(stem))


@pytest.mark.parametrize("form", ["some", "legacy", "state"])
def test_torchxrayvision_s_findings_and_thresholds_come_along(form):
    said = []
    checkpoint = import_weights(file_of(f"torchxrayvision_densenet121_{form}"), say=said.append)
    assert checkpoint.labels[:2] == ["Atelectasis", "Consolidation"]
    assert checkpoint.labels[-1] == "Hernia"
    assert (checkpoint.num_classes, checkpoint.in_channels) == (14, 1)
    assert checkpoint.multi_label
    assert checkpoint.preprocess.mean == (0.5,)
    assert checkpoint.preprocess.std == (1 / 2048,)
    assert checkpoint.preprocess.resize_short == 224
    assert np.allclose(checkpoint.thresholds, [0.05 + 0.03 * number for number in range(14)])
    assert "left out 4 of 18 outputs" in " ".join(said)
    assert "threshold lies at 0.5" in " ".join(said)


def test_what_a_wrapped_network_was_taken_from_is_said():
    said = []
    import_weights(file_of("torch_densenet121_wrapped"), say=said.append)
    assert "took ema, an average of the weights" in said[0]
    import_weights(file_of("lightning_densenet121_checkpoint"), say=said.append)
    assert "left aside criterion.pos_weight" in said[-1]


def test_a_sigmoid_behind_the_classifier_makes_it_multi_label():
    assert import_weights(file_of("torch_densenet121_sigmoid")).multi_label
    assert not import_weights(file_of("torch_densenet121_mine")).multi_label

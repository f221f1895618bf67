"""Small inference models that Paddle 3.3.1 wrote of PaddleClas's layers give Paddle's logits here.

`benchmarks/peers/paddleclas/save_inference.py FORM --samples` wrote the files and the logits; the
whole models are compared in `benchmarks/results/2026-11-28-import-paddle.md`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from densepath.weights.formula import formula_images
from densepath.weights.import_file import import_weights

FILES = Path(__file__).with_name("files") / "paddle_inference"
BOUND = 1e-4


@pytest.mark.parametrize(
    ("file", "sample"),
    [
        ("densenet/inference.json", "densenet"),
        ("densenet/inference.pdmodel", "densenet"),
        ("densenet_folded/inference.pdmodel", "densenet"),
        ("dpn/inference.json", "dpn"),
        ("dpn/inference.pdmodel", "dpn"),
        ("dpn_folded/inference.pdmodel", "dpn"),
        ("multi_label/inference.json", "multi_label"),
    ],
)
def test_an_inference_model_gives_the_logits_of_paddle(file, sample):
    theirs = np.load(FILES / "logits.npz")[sample]
    model = import_weights(FILES / file, say=lambda note: None).to_model()
    with torch.inference_mode():
        ours = model(torch.from_numpy(formula_images(2, 64, 64))).numpy()
    assert np.abs(theirs).max() > 1
    assert np.abs(ours - theirs).max() <= BOUND

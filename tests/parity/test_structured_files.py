"""Small files that other programs wrote give the logits of the networks that they were made of.

`tests/parity/files/onnx/` is by PyTorch's two exporters, of torchvision's layers
(`benchmarks/peers/timm/export_onnx.py --samples`), and by Paddle2ONNX, of PaddleClas's
(`benchmarks/peers/paddleclas/export_onnx.py --samples`). `tests/parity/files/caffe/` is by a writer
of ours, for Caffe has no package, with OpenCV's logits (`benchmarks/peers/opencv/save_caffe.py`).
Whole models: `benchmarks/results/2026-11-28-import-onnx.md`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from densepath.weights.formula import formula_images
from densepath.weights.import_file import import_weights

FILES = Path(__file__).with_name("files")
BOUND = 1e-4


def answers(file, count):
    """What the network of a file answers to the formula's images."""
    checkpoint = import_weights(FILES / file, say=lambda note: None)
    images = formula_images(count, 64, 64)
    if checkpoint.provenance["names"] == "caffe":
        images = images[:, ::-1].copy()  # which has blue first
    with torch.inference_mode():
        return checkpoint.to_model()(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize(
    ("file", "logits", "key"),
    [
        ("onnx/torchvision-densenet.torchscript.onnx", "onnx", "densenet"),
        ("onnx/torchvision-densenet.dynamo.onnx", "onnx", "densenet"),
        ("onnx/paddle2onnx-densenet.onnx", "paddle_inference", "densenet"),
        ("onnx/paddle2onnx-dpn.onnx", "paddle_inference", "dpn"),
        ("onnx/paddle2onnx-multi_label.onnx", "paddle_inference", "multi_label"),
        ("caffe/densenet.caffemodel", "caffe", "densenet"),
        ("caffe/dpn.caffemodel", "caffe", "dpn"),
    ],
)
def test_a_file_gives_the_logits_of_its_network(file, logits, key):
    with np.load(FILES / logits / "logits.npz") as stored:
        theirs = np.atleast_2d(stored[key])
    ours = answers(file, len(theirs))
    assert np.abs(theirs).max() > 0.5
    assert np.abs(ours - theirs).max() <= BOUND

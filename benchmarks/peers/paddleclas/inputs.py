"""Writes what PaddleClas's own preprocessing makes of pictures, for `tests/parity/`.

Run: benchmarks/peers/paddleclas/.venv/bin/python benchmarks/peers/paddleclas/inputs.py
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from paddleclas.deploy.python.preprocess import create_operators

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import write_inputs

# PaddleClas 2.6 `deploy/configs/inference_cls.yaml`, PreProcess.transform_ops
OPERATORS = [
    {"ResizeImage": {"resize_short": 256}},
    {"CropImage": {"size": 224}},
    {
        "NormalizeImage": {
            "scale": 0.00392157,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "order": "",
            "channel_num": 3,
        }
    },
    {"ToCHWImage": None},
]


def preprocess(picture: np.ndarray) -> np.ndarray:
    """uint8 HWC → float32 CHW."""
    for operator in create_operators(OPERATORS):
        picture = operator(picture)
    return picture


if __name__ == "__main__":
    versions = {name: version(name) for name in ("paddleclas", "opencv-python", "numpy")}
    script = "benchmarks/peers/paddleclas/inputs.py"
    write_inputs("paddleclas", script, versions, {"paddle/DenseNet121": preprocess})

"""Writes what MindCV's own preprocessing makes of pictures, for `tests/parity/`.

Run: benchmarks/peers/mindcv/.venv/bin/python benchmarks/peers/mindcv/inputs.py
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from mindcv.data.transforms_factory import transforms_imagenet_eval

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import write_inputs


def preprocess(picture: np.ndarray) -> np.ndarray:
    """uint8 HWC → float32 CHW, by MindCV's list of operators without the first: decoding."""
    for operator in transforms_imagenet_eval(image_resize=224, crop_pct=0.875)[1:]:
        picture = operator(picture)
    return picture


if __name__ == "__main__":
    versions = {name: version(name) for name in ("mindcv", "mindspore", "numpy")}
    script = "benchmarks/peers/mindcv/inputs.py"
    write_inputs("mindcv", script, versions, {"mindcv/densenet121": preprocess})
    sys.stdout.flush()
    os._exit(0)  # MindSpore's threads do not end by themselves

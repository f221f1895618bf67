"""Writes what timm's and torchvision's own preprocessing makes of pictures, for `tests/parity/`.

Run: benchmarks/peers/timm/.venv/bin/python benchmarks/peers/timm/inputs.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import operators  # noqa: F401  before torchvision
import timm
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import write_inputs

TAGS = ("densenet121.ra_in1k", "densenet121.tv_in1k", "dpn68.mx_in1k", "dpn68b.ra_in1k")


def on_array(transform: Callable) -> Callable[[np.ndarray], np.ndarray]:
    """The transform from uint8 HWC to float32 CHW."""
    return lambda picture: transform(Image.fromarray(picture)).numpy()


def timms(tag: str) -> Callable[[np.ndarray], np.ndarray]:
    """The transform that timm makes for published weights."""
    model = timm.create_model(tag, pretrained=False)
    return on_array(create_transform(**resolve_model_data_config(model), is_training=False))


if __name__ == "__main__":
    script = "benchmarks/peers/timm/inputs.py"
    versions = {name: version(name) for name in ("timm", "torchvision", "pillow", "numpy")}
    write_inputs("timm", script, versions, {f"timm/{tag}": timms(tag) for tag in TAGS})
    weights = torchvision.models.DenseNet121_Weights.DEFAULT
    own = {"torchvision/densenet121": on_array(weights.transforms())}
    write_inputs("torchvision", script, versions, own)

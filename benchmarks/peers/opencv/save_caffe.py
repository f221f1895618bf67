"""Writes Caffe models filled by formula, and what OpenCV's reader of Caffe answers for them.

With --samples in place of FOLDER: narrow networks, the small files of `tests/parity/files/caffe/`.

Run: benchmarks/peers/install.sh opencv
     cd benchmarks/peers/opencv; .venv/bin/python save_caffe.py FOLDER [MODEL ...] | --samples
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from caffe_writer import save_caffe
from formula_logits import formula_images

from densepath.models.catalogue import find_spec
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec

SAMPLES = Path(__file__).resolve().parents[3] / "tests" / "parity" / "files" / "caffe"
MODELS = ("densenet121", "densenet161", "densenet169", "densenet201", "densenet264", "dpn68")
NARROW = (
    ModelSpec("densenet", DenseNetArch(4, (2, 1), 6, bottleneck=2), 64, "narrow"),
    ModelSpec("dpn", DPNArch(5, 3, 8, 2, (2, 1), (4, 3), base_factor=1), 64, "narrow"),
)


def main(folder: Path, chosen: list[str], *, samples: bool) -> None:
    """Write every model and its logits."""
    specs = NARROW if samples else [find_spec(name) for name in chosen or MODELS]
    num_classes, side = (5, 64) if samples else (1000, 224)
    logits = {}
    for spec in specs:
        save_caffe(spec, num_classes, side, folder / spec.name)
        files = (str(folder / f"{spec.name}{ending}") for ending in (".prototxt", ".caffemodel"))
        net = cv2.dnn.readNetFromCaffe(*files)
        net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        net.enableWinograd(False)
        net.setInput(formula_images(1, side, side))
        logits[spec.name] = net.forward().reshape(-1)
        print(spec.name, float(np.abs(logits[spec.name]).max()), flush=True)
    about = json.dumps({"opencv": cv2.__version__, "numpy": np.__version__}, sort_keys=True)
    np.savez_compressed(folder / "logits.npz", about=np.array(about), **logits)


if __name__ == "__main__":
    is_samples = sys.argv[1] == "--samples"
    main(SAMPLES if is_samples else Path(sys.argv[1]), sys.argv[2:], samples=is_samples)

"""A Bundle's ONNX file behind a plain server: what the two `server.py` share.

As one writes it for a single network, with NumPy, Pillow and ONNX Runtime alone: no densepath.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at the import
import onnxruntime  # isort: skip

BEST = 5


class Classifier:
    """From the bytes of an image file to its five best classes."""

    def __init__(self, bundle: Path, threads: int) -> None:
        """`threads` are those of one run of the network."""
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        self._labels = manifest["labels"]
        values = manifest["preprocess"]
        self._size, self._resize_short = values["size"], values["resize_short"]
        self._method = Image.Resampling[values["interpolation"].upper()]
        self._mean = np.array(values["mean"], np.float32)
        self._std = np.array(values["std"], np.float32)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            bundle / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def preprocess(self, data: bytes) -> np.ndarray:
        """The bytes of a file → float32 [3, height, width]."""
        image = Image.open(io.BytesIO(data)).convert("RGB")
        short, (height, width) = self._resize_short, self._size
        scale = short / min(image.size)
        image = image.resize([max(short, int(side * scale)) for side in image.size], self._method)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image, np.float32) / 255
        return ((pixels - self._mean) / self._std).transpose(2, 0, 1)

    def run(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, 3, height, width] → logits [N, classes]."""
        return self._session.run(None, {self._input: images})[0]

    def best(self, logits: np.ndarray) -> dict[str, Any]:
        """The answer for one row of logits, ready for JSON."""
        powers = np.exp(logits - logits.max())
        scores = powers / powers.sum()
        ids = np.argsort(-scores)[:BEST].tolist()
        return {
            "class_ids": ids,
            "labels": [self._labels[i] for i in ids],
            "scores": [round(float(scores[i]), 6) for i in ids],
        }


def parse_options(description: str | None) -> argparse.Namespace:
    """The options of both servers."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2, help="of one run of the network")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with its network")
    parser.add_argument("--max-batch", type=int, default=1, help="LitServe alone has batches")
    parser.add_argument("--batch-timeout", type=float, default=0.01, help="seconds")
    return parser.parse_args()

"""A Bundle's preprocess graph as a function, on the runtime that its format is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.engines.openvino import executor_options, shared_core
from densepath.images.preprocess import Image

# uint8 HWC → float32 [1, C, H, W] and uint8 [H, W, C].
Fit: TypeAlias = Callable[[Image], tuple[NDArray[np.float32], Image]]


def on_onnxruntime(path: Path) -> Fit:
    """The graph of the format `onnx`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def fit(image: Image) -> tuple[NDArray[np.float32], Image]:
        images, pixels = session.run(["images", "pixels"], {"image": np.ascontiguousarray(image)})
        return images, pixels

    return fit


def on_openvino(path: Path) -> Fit:
    """The graph of the format `openvino`."""
    # bfloat16, the default of some processors, has too few bits for the weights of a resize.
    graph = shared_core().compile_model(
        path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **executor_options()}
    )

    def fit(image: Image) -> tuple[NDArray[np.float32], Image]:
        found = graph({"image": np.ascontiguousarray(image)})
        return np.array(found["images"]), np.array(found["pixels"])

    return fit

"""Our engines on a Bundle, and plain exports on their runtimes, as workers; see inference.py.

`plain-openvino` and `plain-onnxruntime` are the network as it is, exported by the vendor's own
converter and opened with the vendor's settings for latency: what a user does without densepath.

Run: .venv/bin/python benchmarks/latency_ours.py BUNDLE SYSTEM float32|bfloat16 THREADS
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from latency_worker import SIDE, serve

Run = Callable[[np.ndarray], np.ndarray]


def open_engine(bundle: str, engine: str, precision: str, threads: int) -> Run:
    """`densepath.load(bundle, engine=...)`, its network alone."""
    import densepath

    predictor = densepath.load(bundle, engine=engine, precision=precision, threads=threads)
    return predictor.engine.run_tensor


def plain_openvino(bundle: str, precision: str, threads: int) -> Run:
    """`openvino.convert_model` of the network as it is, with the latency hint."""
    import openvino
    import torch

    network = openvino.convert_model(_network(bundle), example_input=torch.zeros(1, 3, SIDE, SIDE))
    types = {"float32": "f32", "bfloat16": "bf16"}
    compiled = openvino.Core().compile_model(
        network,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": types[precision],
            "INFERENCE_NUM_THREADS": threads,
        },
    )
    return lambda images: compiled(images)[0]


def plain_onnxruntime(bundle: str, precision: str, threads: int) -> Run:
    """`torch.onnx.export` of the network as it is, on ONNX Runtime as it comes."""
    import io

    import onnxruntime
    import torch

    program = torch.onnx.export(
        _network(bundle),
        (torch.zeros(2, 3, SIDE, SIDE),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    )
    file = io.BytesIO()
    program.save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file.getvalue(), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _network(bundle: str):
    """The checkpoint's own network, not rewritten."""
    from densepath.bundle.bundle import Bundle
    from densepath.weights.checkpoint import Checkpoint

    return Checkpoint.load(Bundle.open(bundle).path_of("torch")).to_model()


PLAIN = {"plain-openvino": plain_openvino, "plain-onnxruntime": plain_onnxruntime}

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the exporters' own
    bundle, system, precision, threads = sys.argv[1:]
    versions = {name: version(name) for name in ("densepath", "torch", "openvino", "onnxruntime")}
    if system in PLAIN:
        serve(PLAIN[system](bundle, precision, int(threads)), versions)
    else:
        serve(open_engine(bundle, system, precision, int(threads)), versions)

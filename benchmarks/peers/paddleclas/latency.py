"""PaddleClas's network on Paddle Inference, with oneDNN, as a worker to be timed; see inference.py.

Run: benchmarks/peers/paddleclas/.venv/bin/python benchmarks/peers/paddleclas/latency.py
     DenseNet121 inference float32|bfloat16 THREADS
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

# The program form of PaddleClas 2.6's own export; as in predict.py.
os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112  Paddle's own spelling

import paddle
from logits import build
from paddle import inference

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from latency_worker import serve


def open_network(model: str, precision: str, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Images → logits, on a predictor that is set up as PaddleClas sets up its own."""
    with tempfile.TemporaryDirectory() as folder:
        images = paddle.static.InputSpec([None, 3, 224, 224], "float32", "x")
        program = paddle.jit.to_static(build(model), input_spec=[images], full_graph=True)
        paddle.jit.save(program, f"{folder}/inference")
        config = inference.Config(f"{folder}/inference.pdmodel", f"{folder}/inference.pdiparams")
        config.disable_gpu()
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(10)
        config.set_cpu_math_library_num_threads(threads)
        config.switch_ir_optim(True)
        config.enable_memory_optim()
        config.switch_use_feed_fetch_ops(False)
        config.disable_glog_info()
        if precision == "bfloat16":
            config.enable_mkldnn_bfloat16()
        predictor = inference.create_predictor(config)
    entry = predictor.get_input_handle(predictor.get_input_names()[0])
    result = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(images: np.ndarray) -> np.ndarray:
        entry.reshape(images.shape)
        entry.copy_from_cpu(images)
        predictor.run()
        return result.copy_to_cpu()

    return run


if __name__ == "__main__":
    name, _, precision, threads = sys.argv[1:]
    versions = {package: version(package) for package in ("paddleclas", "paddlepaddle")}
    serve(open_network(name, precision, int(threads)), versions)

"""Times PaddleClas's own way of prediction over a folder of images, as its package goes it.

DenseNet121 with the formula's parameters is exported for Paddle Inference; then the package's
`PaddleClas(inference_model_dir=...)` predicts: its own reading and preprocessing of images,
Paddle Inference with oneDNN, its own top 5. Prints one JSON line; `seconds` is from the start of
prediction to the last answer, `load_seconds` the making of the predictor.

Run: cd benchmarks/peers/paddleclas; .venv/bin/python predict.py FOLDER [--batch-size 16]
     [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

# PaddleClas 2.6 asks for the older of Paddle's two program forms (inference.pdmodel).
os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112  Paddle's own spelling

import paddle
from logits import build
from paddleclas import PaddleClas

MODEL = "DenseNet121"


def export_model(folder: Path) -> None:
    """The folder holds `inference.pdmodel` and `inference.pdiparams`, as `export_model.py` does.

    The exported network ends in a softmax there, as in PaddleClas's own export.
    """
    network = paddle.nn.Sequential(build(MODEL), paddle.nn.Softmax())
    network.eval()
    images = paddle.static.InputSpec([None, 3, 224, 224], "float32", "x")
    program = paddle.jit.to_static(network, input_spec=[images], full_graph=True)
    paddle.jit.save(program, str(folder / "inference"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export_model(Path(folder))
        start = time.perf_counter()
        predictor = PaddleClas(
            inference_model_dir=folder,
            use_gpu=False,
            enable_mkldnn=True,
            cpu_num_threads=options.threads,
            batch_size=options.batch_size,
            topk=5,
        )
        load_seconds = time.perf_counter() - start
        start = time.perf_counter()
        answers = [row for batch in predictor.predict(options.folder) for row in batch]
        seconds = time.perf_counter() - start
    row = {
        "peer": "paddleclas",
        "model": MODEL,
        "images": len(answers),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(answers) / seconds, 2),
        "load_seconds": round(load_seconds, 3),
        "options": {"batch_size": options.batch_size, "threads": options.threads},
        "versions": {name: version(name) for name in ("paddleclas", "paddlepaddle")},
    }
    print(json.dumps(row))

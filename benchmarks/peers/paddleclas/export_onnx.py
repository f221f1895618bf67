"""Converts inference models to ONNX by Paddle2ONNX, as PaddleClas's documents do for deployment.

Paddle2ONNX lies beside Paddle, on PYTHONPATH, for its wheel asks for other packages than Paddle's.
With --samples in place of FOLDER TARGET: the narrow networks of `tests/parity/files/`.

Run: cd benchmarks/peers/paddleclas
     pip install --no-deps --target p2o paddle2onnx==2.1.0 onnx==1.21.0 ml_dtypes typing_extensions
     PYTHONPATH=p2o .venv/bin/python export_onnx.py FOLDER TARGET | --samples
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import paddle2onnx

FILES = Path(__file__).resolve().parents[3] / "tests" / "parity" / "files"
OPSET = 17


def main(folder: Path, target: Path, models: tuple[str, ...] = ()) -> None:
    """Convert the model in each folder of `folder`, or those of these names."""
    target.mkdir(parents=True, exist_ok=True)
    for program in sorted(folder.glob("*/inference.json")):
        name = program.parent.name
        if models and name not in models:
            continue
        file = str(target / f"paddle2onnx-{name}.onnx")
        paddle2onnx.export(
            str(program), str(program.with_suffix(".pdiparams")), file, opset_version=OPSET
        )
        print(name, flush=True)
    versions = {name: version(name) for name in ("paddle2onnx", "paddlepaddle", "onnx")}
    if not models:
        (target / "about.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--samples":
        main(FILES / "paddle_inference", FILES / "onnx", ("densenet", "dpn", "multi_label"))
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))

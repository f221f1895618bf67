"""Exports timm's and torchvision's own networks, filled by formula, as ONNX files, with logits.

Each network is exported by both of PyTorch's exporters, the old one with a batch of any size; beside
the files lies `logits.npz` with what the networks answer to the formula's images, and `about.json`.

Run: benchmarks/peers/install.sh timm
     cd benchmarks/peers/timm; .venv/bin/python export_onnx.py FOLDER [MODEL ...]
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import operators  # noqa: F401  before torchvision
import timm
import torch
import torchvision
from logits import TIMM_MODELS, TORCHVISION_MODELS, build

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import inputs

PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxscript")
PEERS = (
    ("torchvision", TORCHVISION_MODELS, torchvision.models.get_model),
    ("timm", TIMM_MODELS, timm.create_model),
)


def export(network: torch.nn.Module, stem: Path) -> None:
    """The network by the TorchScript exporter, opset 17, and by that of `torch.export`, opset 18."""
    images = torch.zeros(1, 3, 224, 224)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (images,),
            f"{stem}.torchscript.onnx",
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
        )
        torch.onnx.export(
            network, (images,), f"{stem}.dynamo.onnx", dynamo=True, opset_version=18, verbose=False
        )


def main(folder: Path, chosen: list[str]) -> None:
    """Export every model that is asked for, by default all."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    for peer, models, create in PEERS:
        for model in models:
            if chosen and model not in chosen:
                continue
            network = build(create, model)
            export(network, folder / f"{peer}-{model}")
            with torch.inference_mode():
                for size, images in inputs():
                    arrays[f"{peer}-{model}/{size}"] = network(torch.from_numpy(images))[0].numpy()
            print(peer, model, flush=True)
            np.savez_compressed(folder / "logits.npz", **arrays)
    versions = {name: version(name) for name in PACKAGES}
    (folder / "about.json").write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

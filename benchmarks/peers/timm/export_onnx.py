"""Exports timm's and torchvision's own networks, filled by formula, as ONNX files, with logits.

Each network is exported by both of PyTorch's exporters, the old one with a batch of any size;
beside the files lies `logits.npz` with what the networks answer to the formula's images, and
`about.json`. With --samples in place of FOLDER: a narrow network of torchvision's layers, as the
small files of `tests/parity/files/onnx/`.

Run: benchmarks/peers/install.sh timm
     cd benchmarks/peers/timm; .venv/bin/python export_onnx.py FOLDER [MODEL ...] | --samples
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import operators  # noqa: F401  before torchvision
import timm
import torch
import torchvision
from logits import TIMM_MODELS, TORCHVISION_MODELS, build

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import formula_images, inputs

SAMPLES = Path(__file__).resolve().parents[3] / "tests" / "parity" / "files" / "onnx"
SIDE = 64
NARROW = {
    "growth_rate": 4,
    "block_config": (2, 1),
    "num_init_features": 6,
    "bn_size": 2,
    "num_classes": 5,
}
PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxscript")
PEERS = (
    ("torchvision", TORCHVISION_MODELS, torchvision.models.get_model),
    ("timm", TIMM_MODELS, timm.create_model),
)


def export(network: torch.nn.Module, stem: Path, side: int = 224) -> None:
    """The network by the TorchScript exporter, opset 17, and the one of `torch.export`, 18."""
    images = torch.zeros(1, 3, side, side)
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
            network,
            (images,),
            f"{stem}.dynamo.onnx",
            dynamo=True,
            opset_version=18,
            verbose=False,
            external_data=side == 224,
        )


def forget_places(path: Path) -> None:
    """Take out of a file what it says of this machine's sources."""
    model = onnx.load(str(path))
    for item in (model.graph, *model.graph.node, *model.graph.value_info):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    onnx.save(model, str(path))


def save_samples() -> None:
    """A narrow network of torchvision's layers by both exporters, and its logits."""
    network = build(lambda _: torchvision.models.DenseNet(**NARROW), "").eval()
    export(network, SAMPLES / "torchvision-densenet", SIDE)
    forget_places(SAMPLES / "torchvision-densenet.dynamo.onnx")
    with torch.inference_mode():
        logits = network(torch.from_numpy(formula_images(2, SIDE, SIDE))).numpy()
    np.savez_compressed(SAMPLES / "logits.npz", densenet=logits)


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
    if sys.argv[1] == "--samples":
        save_samples()
    else:
        main(Path(sys.argv[1]), sys.argv[2:])

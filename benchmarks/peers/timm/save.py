"""Saves timm's and torchvision's own networks, filled by formula, in the forms people share.

With the option --samples instead of FOLDER it writes the stem's tensors alone, as the small
files of `tests/parity/files/`.

Run: cd benchmarks/peers/timm; .venv/bin/python save.py FOLDER | --samples
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import operators  # noqa: F401  before torchvision
import safetensors.torch
import timm
import torch
import torchvision
from logits import TIMM_MODELS, TORCHVISION_MODELS, build

SAMPLES = Path(__file__).resolve().parents[3] / "tests" / "parity" / "files"


def save_other_forms(network: torch.nn.Module, stem: Path) -> None:
    """The same weights as old files, training programs and torchvision 0.1 stored them."""
    state = network.state_dict()
    torch.save(state, f"{stem}.legacy.pth", _use_new_zipfile_serialization=False)
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    args = argparse.Namespace(model=stem.name, lr=0.1)
    torch.save({"epoch": 9, "state_dict": parallel, "args": args}, f"{stem}.training.pth")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(old, f"{stem}.oldnames.pth", _use_new_zipfile_serialization=False)


def save_samples() -> None:
    """The stem of torchvision's densenet121 in today's and in the old form, and for the hub."""
    SAMPLES.mkdir(exist_ok=True)
    state = build(torchvision.models.get_model, "densenet121").state_dict()
    stem = {
        name: tensor.clone()
        for name, tensor in state.items()
        if name.startswith(("features.conv0", "features.norm0"))
    }
    torch.save(stem, SAMPLES / "zip.pth")
    torch.save(stem, SAMPLES / "legacy.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(stem, str(SAMPLES / "hub.safetensors"))


def save_all(parent: Path) -> None:
    """Every model in a file of its own, and two of them in all forms."""
    for peer, models, create in (
        ("timm", TIMM_MODELS, timm.create_model),
        ("torchvision", TORCHVISION_MODELS, torchvision.models.get_model),
    ):
        folder = parent / peer
        folder.mkdir(parents=True, exist_ok=True)
        for model in models:
            network = build(create, model)
            if peer == "timm":
                state = network.state_dict()
                safetensors.torch.save_file(state, str(folder / f"{model}.hub.safetensors"))
            else:
                torch.save(network.state_dict(), folder / f"{model}.zip.pth")
            if model in ("densenet121", "dpn68b"):
                save_other_forms(network, folder / model)
            print(peer, model, flush=True)


if __name__ == "__main__":
    save_samples() if sys.argv[1] == "--samples" else save_all(Path(sys.argv[1]))

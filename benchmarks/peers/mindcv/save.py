"""Saves MindCV's own networks, filled by formula, as MindSpore writes them.

With the option --samples instead of FOLDER it writes the stem's tensors alone, as the small
files of `tests/parity/files/`.

Run: cd benchmarks/peers/mindcv; .venv/bin/python save.py FOLDER | --samples
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mindspore
from logits import MODELS, build
from mindspore import nn

SAMPLES = Path(__file__).resolve().parents[3] / "tests" / "parity" / "files"


def save_samples() -> None:
    """The stem of densenet121, without and with a checksum, and in bfloat16."""
    SAMPLES.mkdir(exist_ok=True)
    parameters = {p.name: p for p in build("densenet121").get_parameters()}
    stem = [
        {"name": name, "data": parameter}
        for name, parameter in parameters.items()
        if name.startswith(("features.conv0", "features.norm0"))
    ]
    mindspore.save_checkpoint(stem, str(SAMPLES / "plain.ckpt"))
    mindspore.save_checkpoint(stem, str(SAMPLES / "crc.ckpt"), crc_check=True)
    halves = [
        {"name": row["name"], "data": mindspore.Tensor(row["data"].asnumpy(), mindspore.bfloat16)}
        for row in stem
    ]
    mindspore.save_checkpoint(halves, str(SAMPLES / "bfloat16.ckpt"))


def save_all(folder: Path) -> None:
    """Every model in a file of its own, one of them also with checksum and in training."""
    folder.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        network = build(model)
        mindspore.save_checkpoint(network, str(folder / f"{model}.plain.ckpt"))
        if model == "densenet121":
            mindspore.save_checkpoint(network, str(folder / f"{model}.crc.ckpt"), crc_check=True)
            # What MindCV's trainer saves: the network inside a training step with its optimiser.
            optimizer = nn.Momentum(network.trainable_params(), 0.1, 0.9)
            loss = nn.WithLossCell(network, nn.SoftmaxCrossEntropyWithLogits(sparse=True))
            step = nn.TrainOneStepCell(loss, optimizer)
            mindspore.save_checkpoint(step, str(folder / f"{model}.training.ckpt"))
        print(model, flush=True)


if __name__ == "__main__":
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE, device_target="CPU")
    save_samples() if sys.argv[1] == "--samples" else save_all(Path(sys.argv[1]) / "mindcv")
    sys.stdout.flush()
    os._exit(0)  # MindSpore's threads do not end by themselves

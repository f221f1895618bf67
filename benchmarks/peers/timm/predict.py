"""Times timm's own way of prediction over a folder of images, as its `inference.py` goes it.

DenseNet-121 with the formula's parameters is written to disk and loaded by timm's
`create_model(checkpoint_path=...)`; then timm's dataset, transform and loader, softmax and top 5.
Prints one JSON line; `seconds` is from the start of the loader to the last answer, `load_seconds`
the making of the model.

Run: cd benchmarks/peers/timm; .venv/bin/python predict.py FOLDER [--batch-size 16]
     [--workers 2] [--threads 2] [--channels-last]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import operators  # noqa: F401  before torchvision
import safetensors.torch
import timm
import torch
from logits import build
from timm.data import create_dataset, create_loader, resolve_data_config

MODEL = "densenet121"


def load_model(channels_last: bool) -> tuple[torch.nn.Module, float]:
    """timm's network with weights from a file, and the seconds that its making took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        safetensors.torch.save_file(build(timm.create_model, MODEL).state_dict(), str(path))
        start = time.perf_counter()
        model = timm.create_model(MODEL, checkpoint_path=str(path)).eval()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model, time.perf_counter() - start


def predict(model: torch.nn.Module, folder: str, options: argparse.Namespace) -> list[dict]:
    """The five best classes of every image, in the order of timm's dataset."""
    dataset = create_dataset("", root=folder)
    loader = create_loader(
        dataset,
        batch_size=options.batch_size,
        use_prefetcher=False,
        num_workers=options.workers,
        device=torch.device("cpu"),
        **{
            key: value
            for key, value in resolve_data_config({}, model=model).items()
            if key in ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
        },
    )
    answers, names = [], iter(dataset.filenames(basename=True))
    with torch.inference_mode():
        for images, _ in loader:
            if options.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            scores, classes = model(images).softmax(-1).topk(5)
            for row in zip(scores.tolist(), classes.tolist(), strict=True):
                answers.append({"file_name": next(names), "scores": row[0], "class_ids": row[1]})
    return answers


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, load_seconds = load_model(options.channels_last)
    start = time.perf_counter()
    answers = predict(model, options.folder, options)
    seconds = time.perf_counter() - start
    row = {
        "peer": "timm",
        "model": MODEL,
        "images": len(answers),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(answers) / seconds, 2),
        "load_seconds": round(load_seconds, 3),
        "options": {key: value for key, value in vars(options).items() if key != "folder"},
        "versions": {name: version(name) for name in ("timm", "torch", "torchvision")},
    }
    print(json.dumps(row))

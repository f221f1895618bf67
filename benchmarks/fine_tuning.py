"""Five classes of CIFAR-10 from a network trained on the other five, against from scratch.

A small DenseNet learns five classes from many images. Then the other five are learned from a few
images a class, for the same number of epochs: from scratch, and from that network with nothing, the
stem, two stages, and all but the classifier frozen. Each epoch is judged on test images; the
last one's score counts, so that nothing is chosen by them. The seconds of the steps are kept.

Writes `benchmarks/results/DATE-fine-tuning.json` and `.md`, and `docs/images/fine-tuning.png`.

Run: .venv/bin/python benchmarks/fine_tuning.py cifar10.zip
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch
from harness import Results, add_options, figure_path
from PIL import Image

import densepath
from densepath.drawing.picture import LINE, new_figure, save_picture

MODEL = "densenet_bc_22_12"
KNOWN = ("airplane", "automobile", "bird", "cat", "deer")
NEW = ("dog", "frog", "horse", "ship", "truck")
FIRST_IMAGES, FIRST_EPOCHS = 1000, 4  # a class
FEW_IMAGES, EPOCHS = 30, 15
JUDGED = 100  # test images a class
SEEDS = (0, 1)
ARMS: dict[str, dict[str, Any]] = {
    "from scratch": {},
    "fine-tuned": {},
    "--freeze stem": {"model.freeze": "stem"},
    "--freeze 2": {"model.freeze": 2},
    "--freeze features": {"model.freeze": "features"},
}
# Not searched for, and the same in all arms: only the first weights and what is kept differ.
COMMON = {
    "data.batch_size": 30,
    "optimizer.lr": 0.1,
    "data.evaluate_on": "test",
    "optimizer.weight_decay": 2e-4,
    "optimizer.decay_norm_and_bias": False,
    "schedule.name": "one_cycle",
    "compute.channels_last": True,
}
COLOURS = ("#8a8f98", "#0b6e99", "#2e8b57", "#c2410c", "#8172b2")


def write_folder(archive: Path, root: Path, classes: Sequence[str], each: int) -> Path:
    """Class folders of the first `each` training images and `JUDGED` test images a class."""
    for split, most in (("train", each), ("test", JUDGED)):
        dataset = densepath.open_dataset(str(archive), split=split)
        left = dict.fromkeys(classes, most)
        for index in range(len(dataset)):
            sample = dataset.load(index)
            name = dataset.class_names[sample.target]
            if left.get(name):
                left[name] -= 1
                path = root / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(sample.image).save(path)
            if not any(left.values()):
                break
    return root


def train(data: Path, folder: Path, epochs: int, seed: int, fields: dict[str, Any]) -> Path:
    """A run folder."""
    weights = "model.weights" in fields
    densepath.train(
        None if weights else MODEL,
        data=data,
        epochs=epochs,
        output=folder,
        settings={**COMMON, "seed": seed, **fields},
        workers=0,
        device="cpu",
        progress="lines",
    )
    return folder


def read_curve(folder: Path) -> dict[str, list[float]]:
    """The columns of `metrics.csv` that the page and the picture show."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in ("top1", "loss", "seconds")}


def draw(results: Results) -> Any:
    """Top-1 over the epochs: the mean of the seeds, and between them."""
    figure = new_figure(
        9,
        5,
        "Five new classes of CIFAR-10 from few images",
        f"{MODEL}, {FEW_IMAGES} images a class, {EPOCHS} epochs; judged on {JUDGED} test images a "
        f"class. Lines are means over seeds {', '.join(map(str, SEEDS))}, bands reach from the "
        "lowest to the highest. Trained weights come from the other five classes "
        f"({FIRST_IMAGES:,} images a class, {FIRST_EPOCHS} epochs).",
    )
    axes = figure.subplots()
    for name, colour in zip(ARMS, COLOURS, strict=True):
        curves = [results.parts[f"{name}, seed {seed}"]["top1"] for seed in SEEDS]
        columns = list(zip(*curves, strict=True))
        epochs = range(1, EPOCHS + 1)
        axes.plot(epochs, [100 * mean(column) for column in columns], color=colour, label=name)
        low, high = ([100 * pick(column) for column in columns] for pick in (min, max))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("top-1, %")
    axes.grid(color=LINE, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8.5, framealpha=0.85, edgecolor="none")
    return figure


def report(results: Results, picture: str) -> str:
    """The page."""
    first = results.parts["first"]
    lines = ["# Fine-tuning against training from scratch", "", results.header(), ""]
    lines += [
        f"{MODEL} learned {', '.join(KNOWN)} from {FIRST_IMAGES:,} images a class in "
        f"{FIRST_EPOCHS} epochs ({first['seconds'][-1]:.0f} s, top-1 "
        f"{100 * first['top1'][-1]:.1f} % of its own {len(KNOWN) * JUDGED:,} test images). Below, "
        f"{', '.join(NEW)} from {FEW_IMAGES} images a class, {EPOCHS} epochs each: the last "
        f"epoch's top-1 on {len(NEW) * JUDGED:,} test images, which chose nothing, and the seconds "
        "of the whole training with its judging, on a busy machine.",
        "",
        "| | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean | seconds |",
        "|---|" + "--:|" * (len(SEEDS) + 2),
    ]
    for name in ARMS:
        parts = [results.parts[f"{name}, seed {seed}"] for seed in SEEDS]
        tops = [100 * part["top1"][-1] for part in parts]
        seconds = mean(part["seconds"][-1] for part in parts)
        cells = [*(f"{top:.1f} %" for top in tops), f"{mean(tops):.1f} %", f"{seconds:.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    spread = max(
        pstdev(100 * results.parts[f"{name}, seed {seed}"]["top1"][-1] for seed in SEEDS)
        for name in ARMS
    )
    lines += [
        "",
        f"The seeds of an arm lie at most {2 * spread:.1f} points apart. All arms have the same "
        f"settings (SGD, one cycle up to {COMMON['optimizer.lr']:g}, batches of "
        f"{COMMON['data.batch_size']}), which were not searched for.",
        "",
        f"![top-1 over the epochs]({picture})",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Trains what the results lack, and writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="CIFAR-10, as `densepath train --data` takes it")
    add_options(parser, "fine-tuning")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Results(options.output, options)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        known = write_folder(options.archive, root / "known", KNOWN, FIRST_IMAGES)
        few = write_folder(options.archive, root / "few", NEW, FEW_IMAGES)
        first = train(known, root / "first", FIRST_EPOCHS, 0, {})
        results.add("first", read_curve(first))
        for seed in SEEDS:
            for name, fields in ARMS.items():
                given = dict(fields)
                if name != "from scratch":
                    given["model.weights"] = str(first / "last.safetensors")
                run = train(few, root / f"{name} {seed}", EPOCHS, seed, given)
                results.add(f"{name}, seed {seed}", read_curve(run))
    figure = figure_path(options.output)
    save_picture(figure, lambda: draw(results), dpi=150)
    shown = f"../../docs/images/{figure.name}" if figure.parent.name == "images" else figure.name
    results.write_report(report(results, shown))
    print(report(results, shown))


if __name__ == "__main__":
    main()

"""On pure noise: the figure of a training and the one of `densepath evaluate RUN` are one number.

Nobody can know an image of noise that was not trained on, so a leak shows as a figure far above
chance. Twelve data sets of different shapes, each with a seed and a held-out share of its own:
trained by the command line, then measured by `evaluate RUN` alone, by its validation split, and on
the images that were trained on, which it must say. A figure is of the same images when every one of
them is among those that the run's best epoch was chosen on, and there are as many.

Writes `benchmarks/results/DATE-noise.json` after each, from which the same command goes on, and
`.md`; exits with 1 where two figures differ.

Run: .venv/bin/python benchmarks/noise.py [--epochs 8]
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from harness import Budget, Results, add_options, table
from PIL import Image

from densepath.data.cifar10 import CLASS_NAMES

MODEL = "densenet_bc_22_12"
Shape = tuple[Callable[[Path, np.random.Generator], str], dict[str, Any]]


def image(rng: np.random.Generator, kind: str = "PNG") -> bytes:
    """A file of 32 × 32 pixels of noise."""
    made = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(made, kind)
    return made.getvalue()


def write_images(root: Path, rng: np.random.Generator, counts: Mapping[str, int]) -> list[str]:
    """So many images in each folder; their names below `root`."""
    names = [f"{folder}/{number}.png" for folder, n in counts.items() for number in range(n)]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(image(rng))
    return names


def folders(*counts: tuple[str, int]) -> Callable[[Path, np.random.Generator], str]:
    """A shape of nothing but folders."""

    def make(root: Path, rng: np.random.Generator) -> str:
        write_images(root, rng, dict(counts))
        return str(root)

    return make


def splits(names: Iterable[str], classes: str, each: int) -> list[tuple[str, int]]:
    """`SPLIT/CLASS` folders with as many images."""
    return [(f"{split}/{name}", each) for split in names for name in classes]


def csv(columns: str, row: Callable[[int], str]) -> Callable[[Path, np.random.Generator], str]:
    """A table of 120 images."""

    def make(root: Path, rng: np.random.Generator) -> str:
        names = write_images(root, rng, {"images": 120})
        lines = [columns, *(f"{name},{row(number)}" for number, name in enumerate(names))]
        (root / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(root / "table.csv")

    return make


def lists(root: Path, rng: np.random.Generator) -> str:
    """PaddleClas's lists for training and validation, with a file of names."""
    names = write_images(root, rng, {"images": 120})
    for name, chosen in (("train", slice(0, 90)), ("val", slice(90, 120))):
        lines = [f"{file} {number % 3}" for number, file in enumerate(names)][chosen]
        (root / f"{name}_list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "label_list.txt").write_text("0 oak\n1 elm\n2 ash\n", encoding="utf-8")
    return str(root / "train_list.txt")


def cifar_zip(root: Path, rng: np.random.Generator) -> str:
    """A zip of JPEGs in CIFAR-10's folders."""
    root.mkdir(parents=True)
    with zipfile.ZipFile(root / "noise.zip", "w") as archive:
        for split, each in (("train", 12), ("test", 4)):
            for name in CLASS_NAMES:
                for number in range(each):
                    archive.writestr(f"{split}/{name}/{number}.jpg", image(rng, "JPEG"))
    return str(root / "noise.zip")


def shapes() -> dict[str, Shape]:
    """What is trained on, by name, with its settings."""
    held = "data.validation_fraction"
    flat = folders(("oak", 40), ("elm", 40), ("ash", 40))
    return {
        "folder, no splits": (flat, {"seed": 1, held: 0.2}),
        "folder, no splits, half held out": (flat, {"seed": 7, held: 0.5}),
        "train and test": (folders(*splits(("train", "test"), "abc", 25)), {"seed": 2}),
        "Training and Testing, judged on test": (
            folders(*splits(("Training", "Testing"), "abc", 20)),
            {"seed": 3, "data.evaluate_on": "test", held: 0},
        ),
        "train and Val": (folders(*splits(("train", "Val"), "abc", 20)), {"seed": 4}),
        "unbalanced": (
            folders(("oak", 90), ("elm", 25), ("ash", 5), ("fir", 2)),
            {"seed": 5, held: 0.25},
        ),
        "nested": (
            folders(*((f"set/dataset/{c}/{y}/x", 15) for c in "abc" for y in (2024, 2025))),
            {"seed": 6, held: 0.15},
        ),
        "CSV, no splits": (csv("path,label", lambda n: "ab"[n % 2]), {"seed": 8, held: 0.3}),
        "CSV with splits": (
            csv("path,label,split", lambda n: f"{'abc'[n % 3]},{('train', 'dev')[n % 5 == 0]}"),
            {"seed": 9},
        ),
        "CSV with groups": (
            csv("path,label,patient", lambda n: f"{'ab'[n % 2]},p{n % 31}"),
            {"seed": 10, held: 0.2, "data.group_column": "patient"},
        ),
        "lists": (lists, {"seed": 11}),
        "CIFAR-like zip": (cifar_zip, {"seed": 12, held: 0.2}),
    }


def call(*words: str) -> dict[str, Any]:
    """What a command answers as JSON; its error ends this."""
    program = str(Path(sys.executable).with_name("densepath"))
    run = subprocess.run([program, *words, "--json"], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"densepath {' '.join(words)}:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout)


def measure(source: str, run: str, epochs: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one data set."""
    given = {"data.batch_size": 16, **settings}
    words = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    trained = call(
        "train", MODEL, "--data", source, "--output", run, "--epochs", str(epochs), *words
    )
    judged = str(settings.get("data.evaluate_on", "validation"))
    usual, same, seen = (
        call("evaluate", run, *split) for split in ((), ("--split", judged), ("--split", "train"))
    )
    readme = Path(run, "README.md").read_text(encoding="utf-8")
    return {
        "training": trained["best_top1"],
        "training_says": next(s for s in readme.splitlines() if s.startswith("Measured on")),
        "same": same["top1"],
        "images": same["images"],
        "chosen_by": same["chosen_by"],
        "evaluate_says": f"{same['about']} ({same['settings']['rule']})".replace(run, "RUN"),
        "usual": usual["top1"],
        "usual_split": usual["settings"]["split"],
        "usual_trained_on": usual["trained_on"],
        "trained_on": seen["top1"],
        "trained_on_said": seen["trained_on"] == seen["images"],
    }


def is_right(part: Mapping[str, Any]) -> bool:
    """Whether training and evaluation agree, of the same images, none of them trained on."""
    same = part["training"] == part["same"] and part["images"] == part["chosen_by"]
    return same and part["usual_trained_on"] == 0 and part["trained_on_said"]


def report(results: Results) -> str:
    """The whole page."""
    rows = [
        [
            name,
            f"{part['images']:,}",
            *(f"{part[key]:.2%}".replace("%", " %") for key in ("training", "same")),
            f"{part['usual']:.2%} ({part['usual_split']})".replace("%", " %"),
            f"{part['trained_on']:.2%}".replace("%", " %"),
            "yes" if is_right(part) else "**no**",
        ]
        for name, part in results.parts.items()
    ]
    said = [
        f"- **{name}**\n  - training: {part['training_says'].partition(' The best')[0]}\n"
        f"  - evaluate: {part['evaluate_says']}"
        for name, part in results.parts.items()
    ]
    head = [
        "data set of noise",
        "judged images",
        "training's best",
        "evaluate, same split",
        "`evaluate RUN`",
        "on images trained on",
        "the same, and no leak",
    ]
    lines = [
        "# Figures of pure noise",
        "",
        results.header(),
        "",
        f"{MODEL} on images of 32 × 32 pixels of noise, through the command line. The best epoch "
        "is chosen on few images, so it lies above chance; what matters is that evaluation finds "
        "the same number on the same images. Where a set has test images of its own, `evaluate "
        "RUN` takes those, which had no part in the training.",
        "",
        table(head, rows),
        "What both say of the images:",
        "",
        *said,
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Trains on each and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=8)
    add_options(parser, "noise")
    options = parser.parse_args()
    results, budget = Results(options.output, options), Budget(options.minutes)
    for number, (name, (make, settings)) in enumerate(shapes().items()):
        if name in results.parts or budget.is_spent():
            continue
        with tempfile.TemporaryDirectory() as scratch:
            source = make(Path(scratch, "data"), np.random.default_rng(number))
            part = measure(source, str(Path(scratch, "run")), options.epochs, settings)
        told = json.loads(json.dumps(part).replace(scratch, "SCRATCH"))
        results.add(name, told)
        print(f"{'ok ' if is_right(part) else 'NO '} {name}: {told}", flush=True)
    results.write_report(report(results))
    if not all(map(is_right, results.parts.values())):
        sys.exit("figures of training and evaluation differ, or images trained on are not said")


if __name__ == "__main__":
    main()

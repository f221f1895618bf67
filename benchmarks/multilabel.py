"""Training on labels some of which are not known: masked against taken for a no.

Pairs of CIFAR-10 images side by side; a picture has the classes of both. A share of the labels of
training and validation images is blanked at random; those of the test images are whole. Behind the
frozen features of the network that ships with densepath, trained on single CIFAR-10 images, a new
classifier learns from all labels, from those that are left (the others masked), and with each blank
taken for a no. On the validation images, as each training knows them, a threshold for each class
(best F1) and a temperature are chosen; all is measured on the same test images.

Writes `benchmarks/results/DATE-multilabel.json` and `.md`, and `docs/images/multilabel.png`.

Run: .venv/bin/python benchmarks/multilabel.py cifar10.zip
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import Results, add_options, figure_path, table
from PIL import Image

import densepath
from densepath.data.open import open_dataset
from densepath.drawing.picture import BLUE, FAINT, GREEN, INK, RED, new_figure, save_picture

SIZES = {"train": 4000, "validation": 800, "test": 1500}
BLANKED = 0.5
TRAININGS = {
    "all labels": ("whole", FAINT),
    "masked": ("blanked", BLUE),
    "blank is a no": ("as-noes", RED),
}
SETTINGS = {
    "preprocess.size": (32, 64),
    "data.batch_size": 32,
    "augment.crop": "pad_crop",
    "augment.padding": 2,
    "model.freeze": "features",
    "optimizer.lr": 0.5,
    "checkpoint.monitor": "macro_auroc",
    "seed": 1,
}


def make_pairs(archive: Path, root: Path, scale: float) -> None:
    """PNG files of pairs, and a table for each way to read their labels."""
    random = np.random.default_rng(0)
    rows: list[list[str]] = []
    names: list[str] = []
    for split, count in SIZES.items():
        source = open_dataset(archive, split="test" if split == "test" else "train")
        names = source.class_names
        (root / split).mkdir(parents=True)
        chosen = random.permutation(len(source))[: 2 * max(int(count * scale), 20)].reshape(-1, 2)
        if split == "validation":  # of the training images those that no training pair has
            chosen = random.permutation(len(source))[-chosen.size :].reshape(-1, 2)
        for number, (left, right) in enumerate(chosen):
            pair = [source.load(int(index)) for index in (left, right)]
            file = f"{split}/{number:04}.png"
            Image.fromarray(np.concatenate([one.image for one in pair], 1)).save(root / file)
            there = {int(one.target) for one in pair}
            rows.append([file, split, *("1" if c in there else "0" for c in range(len(names)))])
    write_tables(root, rows, names, random)


def write_tables(
    root: Path, rows: list[list[str]], names: list[str], random: np.random.Generator
) -> None:
    """`whole.csv`, `blanked.csv` and `as-noes.csv`: the same blanks in the latter two."""
    for kind in ("whole", "blanked", "as-noes"):
        with (root / f"{kind}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(["path", "split", *names])
    for row in rows:
        blank = random.random(len(names)) < BLANKED
        for kind, cell in (("whole", None), ("blanked", ""), ("as-noes", "0")):
            cells = row[2:]
            if cell is not None and row[1] != "test":
                cells = [cell if gone else own for own, gone in zip(cells, blank, strict=True)]
            with (root / f"{kind}.csv").open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow([*row[:2], *cells])


def run(root: Path, kind: str, model: str, epochs: int) -> dict[str, Any]:
    """One training, what is chosen on its validation images, and its figures on the test images."""
    folder, labels = root / f"run-{kind}", root / f"{kind}.csv"
    result = densepath.train(
        model, data=labels, epochs=epochs, output=folder, settings=SETTINGS, progress="lines"
    )
    plain = densepath.evaluate(folder, root / "whole.csv", split="test")
    chosen = densepath.evaluate(folder, labels, choose_thresholds="f1", calibrate=True)
    tuned = densepath.evaluate(folder, root / "whole.csv", split="test")
    tuned.save(root / f"report-{kind}")
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        epochs_seen = [float(row["macro_auroc"]) for row in csv.DictReader(file)]
    return {
        "best epoch": result.best_epoch,
        "validation AUROC by epoch": epochs_seen,
        "plain": {k: v for k, v in plain.figures.items() if v is not None},
        "tuned": {k: v for k, v in tuned.figures.items() if v is not None},
        "calibration on validation": chosen.settings["calibration"],
        "per class": [
            {
                name: row[name]
                for name in ("label", "auroc", "auroc_low", "auroc_high", "threshold", "f1")
            }
            for row in tuned.per_class
        ],
    }


def draw(parts: dict[str, Any], path: Path) -> None:
    """AUROC over the epochs, and of each class on the test images with its interval."""

    def figure() -> Any:
        """The two panels."""
        from matplotlib.ticker import MaxNLocator

        caption = (
            "Pairs of CIFAR-10 images, half of the training labels blanked at random; classifiers "
            "behind frozen features of single CIFAR-10 images. Left: mean "
            "AUROC on each training's own validation labels, after each epoch. Right: AUROC of "
            "each class on the same test images, whose labels are all known; bars: 95 % of the "
            "resamples of the images. In the legend macro-F1 at a threshold of 0.5, and at those "
            "that were chosen on validation images."
        )
        made = new_figure(11, 5.6, "Labels that are not known: masked, or taken for a no", caption)
        left, right = made.subplots(1, 2, width_ratios=(1, 1.5))
        shifts = np.linspace(-0.24, 0.24, len(parts))
        for shift, (name, part) in zip(shifts, parts.items(), strict=True):
            colour = {**{n: c for n, (_, c) in TRAININGS.items()}, "all labels": GREEN}[name]
            curve = part["validation AUROC by epoch"]
            left.plot(range(1, len(curve) + 1), curve, color=colour, marker="o", markersize=3)
            rows = part["per class"]
            values = np.array([row["auroc"] for row in rows])
            ends = np.array([[row["auroc_low"], row["auroc_high"]] for row in rows]).T
            label = (
                f"{name}: F1 {part['plain']['macro_f1']:.3f}, chosen "
                f"{part['tuned']['macro_f1']:.3f}"
            )
            right.errorbar(
                np.arange(len(rows)) + shift,
                values,
                yerr=np.abs(ends - values),
                fmt="o",
                markersize=4,
                color=colour,
                linewidth=1.2,
                label=label,
            )
        left.set(xlabel="epoch", ylabel="mean AUROC (validation)")
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set(ylabel="AUROC (test)")
        right.set_xticks(
            range(len(rows)), [row["label"] for row in rows], rotation=40, ha="right", color=INK
        )
        right.legend(frameon=False, fontsize=8, loc="lower right")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", alpha=0.3)
        return made

    if save_picture(path, figure) is not None:
        sys.exit("the picture could not be drawn")


def report(results: Results, picture: str) -> str:
    """The whole page."""
    head = [
        "training", "macro AUROC (95 %)", "mean AP (95 %)", "macro-F1 at 0.5",
        "macro-F1, chosen", "ECE before", "ECE after",
    ]  # fmt: skip
    rows, classes = [], []
    for name, part in results.parts.items():
        plain, tuned = part["plain"], part["tuned"]
        spans = [
            f"{plain[f]:.4f} ({plain[f + '_low']:.4f}–{plain[f + '_high']:.4f})"
            for f in ("macro_auroc", "mean_average_precision")
        ]
        shares = (plain["macro_f1"], tuned["macro_f1"])
        errors = (plain["calibration_error"], tuned["calibration_error"])
        cells = [f"{value:.4f}" for value in (*shares, *errors)]
        rows.append([name, *spans, *cells])
        classes.append([name, *(f"{row['threshold']:.2f}" for row in part["per class"])])
    labels = [row["label"] for row in next(iter(results.parts.values()))["per class"]]
    return "\n".join(
        [
            "# Labels that are not known: masked, or taken for a no",
            "",
            results.header(),
            "",
            f"Pairs of CIFAR-10 images side by side; {BLANKED:.0%} of the labels of training and "
            "validation images blanked at random, and a new classifier trained on what is left, "
            "behind the frozen features of the network that ships (of single CIFAR-10 images). "
            "Figures are of the same test images, whose labels are all known. Thresholds (best "
            "F1) and temperature were chosen on each training's own validation labels; ECE: "
            "expected calibration error over all classes, on test images.",
            "",
            table(head, rows),
            "",
            "Thresholds of the classes:",
            "",
            table(["training", *labels], classes),
            "",
            f"![AUROC over the epochs, and of each class]({picture})",
            "",
        ]
    )


def main() -> None:
    """Trains, chooses, measures and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="cifar10.zip")
    parser.add_argument("--model", default="cifar10/densenet_bc_22_12")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of images")
    parser.add_argument("--keep", type=Path, help="where reports and pictures of the runs stay")
    add_options(parser, "multilabel")
    options = parser.parse_args()
    results = Results(options.output, options)
    left = [name for name in TRAININGS if name not in results.parts]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if left:
            make_pairs(options.archive, root, options.scale)
        for name in left:
            kind, _ = TRAININGS[name]
            results.add(name, run(root, kind, options.model, options.epochs))
            if options.keep is not None:
                shutil.copytree(root / f"report-{kind}", options.keep / kind, dirs_exist_ok=True)
    figure = figure_path(options.output)
    draw(results.parts, figure)
    shown = f"../../docs/images/{figure.name}" if figure.parent.name == "images" else figure.name
    results.write_report(report(results, shown))
    print(report(results, shown))


if __name__ == "__main__":
    main()

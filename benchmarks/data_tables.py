"""What training prints before it begins, for data sets of different shapes; and a picture of one.

A folder with splits (and what lies beside them), one without, a table with groups and an imbalanced
folder, all of noise: a training of one epoch each by the command line, and what it prints. Then
`densepath data inspect digits --output`.

Writes `benchmarks/results/DATE-data-tables.json` and `.md`, and `docs/images/data-tables.png`.

Run: .venv/bin/python benchmarks/data_tables.py
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from harness import Results, add_options, figure_path
from noise import MODEL, splits, write_images

PROGRAM = str(Path(sys.executable).with_name("densepath"))


def with_splits(root: Path, rng: np.random.Generator) -> list[str]:
    """Training and test folders in the only folder, and what an archive from a Mac brings."""
    counts = dict(splits(("Training", "Testing"), ("oak", "elm", "ash"), 30))
    write_images(root / "pack", rng, counts | {"__MACOSX/Training/oak": 3, "papers": 2})
    copied = root / "pack" / "Training" / "oak" / "0.png"
    shutil.copy(copied, root / "pack" / "Testing" / "elm" / "again.png")
    return ["leaves"]


def without_splits(root: Path, rng: np.random.Generator) -> list[str]:
    """Class folders, and files that are no images."""
    write_images(root, rng, {"oak": 40, "elm": 40, "ash": 40})
    (root / "elm" / "notes.txt").write_text("of June\n", encoding="utf-8")
    return ["leaves", "--seed", "1", "--set", "data.validation_fraction=0.2"]


def with_groups(root: Path, rng: np.random.Generator) -> list[str]:
    """A table of several images a patient."""
    names = write_images(root, rng, {"images": 120})
    rows = [f"{name},{'flu' if n % 3 else 'none'},p{n // 4},{n}" for n, name in enumerate(names)]
    text = "\n".join(["image,finding,patient,age", *rows, "images/120.png,flu,p30,1"])
    (root / "xrays.csv").write_text(text, encoding="utf-8")
    columns = ("data.label_column=finding", "data.group_column=patient", "data.on_error=skip")
    return ["leaves/xrays.csv", *(word for column in columns for word in ("--set", column))]


def imbalanced(root: Path, rng: np.random.Generator) -> list[str]:
    """Twenty-six classes of 40 to 1 images, and one without any."""
    write_images(root, rng, {f"class {n:02}": max(40 - 2 * n, 1) for n in range(26)})
    (root / "nothing yet").mkdir()
    return ["leaves"]


MAKERS = {
    "A folder with splits": with_splits,
    "A folder without": without_splits,
    "A table with groups": with_groups,
    "An imbalanced set": imbalanced,
}


def call(words: list[str], place: Path) -> str:
    """What a command prints on standard error; its error ends this."""
    run = subprocess.run([PROGRAM, *words], capture_output=True, text=True, cwd=place)
    if run.returncode:
        sys.exit(f"densepath {' '.join(words)}:\n{run.stderr[-2000:]}")
    return run.stderr.replace(str(place), "...")


def report(results: Results, picture: str) -> str:
    """The whole page."""
    lines = ["# What training says of its images", "", results.header(), ""]
    for name, part in results.parts.items():
        lines += [f"## {name}", "", "```text", f"$ {part['command']}"]
        lines += [part["said"].rstrip(), "```", ""]
    lines += ["## Samples of each class", "", "`densepath data inspect digits --output`:", ""]
    return "\n".join([*lines, f"![digits, some of each class]({picture})", ""])


def main() -> None:
    """Trains on each and keeps what is said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, "data-tables")
    options = parser.parse_args()
    results = Results(options.output, options)
    for number, (name, make) in enumerate(MAKERS.items()):
        with tempfile.TemporaryDirectory() as scratch:
            data = make(Path(scratch, "leaves"), np.random.default_rng(number))
            words = ["train", MODEL, "--data", *data, "--epochs", "1", "--output", "run"]
            said = call([*words, "--set", "data.batch_size=16"], Path(scratch))
            results.add(name, {"command": f"densepath {' '.join(words)}", "said": said})
    figure = figure_path(options.output)
    call(["data", "inspect", "digits", "--output", str(figure)], Path.cwd())
    shown = f"../../docs/images/{figure.name}" if figure.parent.name == "images" else figure.name
    results.write_report(report(results, shown))
    print(report(results, shown))


if __name__ == "__main__":
    main()

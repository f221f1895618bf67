"""The main job on real images, in about a minute on two quiet cores: `make demo`.

Trains a small DenseNet-BC on scikit-learn's handwritten digits, choosing the best epoch by images
that it holds out, evaluates it on the test images, which had no part in that, and asks it about
PNG files. Each step is a command that you can type yourself.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

OUTPUT = Path("demo-output")
LEAST_ACCURACY = 0.97


def main() -> None:
    """Runs the commands one after another; stops with an error when one fails."""
    started = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    run = OUTPUT / "run"
    densepath(f"train recipe:digits --output {run}")
    report = OUTPUT / "report"
    densepath(f"evaluate {run} --output {report}")
    images = write_test_images(OUTPUT / "images", count=8)
    densepath(f"predict {run} {images} --top-k 3 --explain {OUTPUT / 'explained'}")
    top1 = read_top1(report)
    seconds = time.monotonic() - started
    print(
        f"\nTest accuracy: {100 * top1:.2f} % of images that had no part in the training "
        f"({seconds:.0f} s)."
    )
    print("Now look at:")
    for place, what in (
        (run / "curves.png", "how the training went"),
        (report / "confusion.png", "which digits were mistaken for which"),
        (report / "README.md", "all figures and pictures of the evaluation, explained"),
        (OUTPUT / "explained", "where the network looked (Grad-CAM)"),
        (run / "README.md", "the run: what it was trained on, and how to use it"),
    ):
        print(f"  {place!s:<35}{what}")
    if top1 < LEAST_ACCURACY:
        sys.exit(f"error: the demo should reach {LEAST_ACCURACY:.0%}; this is a bug.")


def densepath(arguments: str) -> None:
    """Prints and runs one `densepath` command."""
    print(f"\n$ densepath {arguments}", flush=True)
    program = Path(sys.executable).with_name("densepath")
    status = subprocess.run([program, *shlex.split(arguments)], check=False).returncode
    if status:
        sys.exit(status)


def write_test_images(folder: Path, *, count: int) -> Path:
    """The folder holds `count` test digits as PNG files, the true class in each name."""
    from PIL import Image

    from densepath import open_dataset

    dataset = open_dataset("digits", split="test")
    folder.mkdir(parents=True)
    for position in range(count):
        index = position * len(dataset) // count
        sample = dataset.load(index)
        name = f"{position:02d}-is-a-{dataset.class_names[int(sample.target)]}.png"
        Image.fromarray(sample.image.squeeze()).save(folder / name)
    return folder


def read_top1(report: Path) -> float:
    """The test accuracy that `densepath evaluate` wrote, as a share."""
    import json

    return float(json.loads((report / "report.json").read_text(encoding="utf-8"))["top1"])


if __name__ == "__main__":
    main()

"""Resident memory over many images: it must not grow.

The images of a folder or zip, again and again in an order that changes by a seed, go through
`densepath.load(bundle).predict(...)`; after each 500 the resident set is read. The slope after the
first tenth is fitted by least squares and given with its standard error.

Writes `benchmarks/results/DATE-memory.md` and `.json`, and `docs/images/memory.png`.

Run: .venv/bin/python benchmarks/memory.py IMAGES.zip|FOLDER [--images 20000] [--engine auto]
     [--model densenet121]
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from formula_bundle import formula_bundle
from predict_throughput import HERE, hardware

EVERY = 500


def resident_bytes() -> int:
    """Of this process, as Linux counts it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def repeated(paths: list[str], count: int) -> Iterator[str]:
    """`count` of the paths, each round in another order."""
    order = random.Random(0)
    while count > 0:
        order.shuffle(paths)
        yield from paths[:count]
        count -= len(paths)


def watch(bundle: str, paths: list[str], count: int, engine: str) -> tuple[list, dict]:
    """[images, bytes] after each EVERY, and what ran."""
    import densepath

    samples, start = [], time.perf_counter()
    with densepath.load(bundle, engine=engine) as predictor:
        info = predictor.engine.info
        for done, answer in enumerate(predictor.predict(repeated(paths, count)), start=1):
            assert answer.error is None, answer.error
            if done % EVERY == 0:
                samples.append([done, resident_bytes()])
                rate = done / (time.perf_counter() - start)
                print(f"{done:,} images, {samples[-1][1] / 1e6:.1f} MB, {rate:.1f}/s", flush=True)
    return samples, {"engine": info.name, "images_per_second": round(rate, 2)}


def slope(samples: list) -> tuple[float, float]:
    """kB a thousand images after the first tenth, and its standard error."""
    kept = np.array(samples[len(samples) // 10 :], float)
    x, y = kept[:, 0] / 1e3, kept[:, 1] / 1e3
    design = np.stack([x, np.ones_like(x)], 1)
    found, residuals, *_ = np.linalg.lstsq(design, y, rcond=None)
    variance = residuals[0] / max(len(x) - 2, 1) / ((x - x.mean()) ** 2).sum()
    return float(found[0]), float(np.sqrt(variance))


def draw(samples: list, title: str) -> None:
    """Memory against images."""
    import matplotlib.pyplot as plt

    x, y = np.array(samples, float).T
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(x, y / 1e6, marker=".")
    axes.set(xlabel="images", ylabel="resident memory, MB", ylim=(0, None), title=title)
    axes.grid(alpha=0.3)
    figure.savefig(HERE.parent / "docs" / "images" / "memory.png", dpi=110)


def main() -> None:
    """Watches, fits, draws, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images")
    parser.add_argument("--images", dest="count", type=int, default=20_000)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--model", default="densenet121")
    options = parser.parse_args()
    place = {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "command": "python benchmarks/memory.py " + " ".join(Path(a).name for a in sys.argv[1:]),
    }
    given = Path(options.images)
    with tempfile.TemporaryDirectory() as scratch:
        if given.suffix == ".zip":
            with zipfile.ZipFile(given) as archive:
                archive.extractall(f"{scratch}/images")
            given = Path(scratch) / "images"
        paths = sorted(str(p) for p in given.rglob("*") if p.suffix.lower() in (".jpeg", ".jpg"))
        bundle = str(formula_bundle(options.model, Path(scratch) / "bundle"))
        samples, what = watch(bundle, paths, options.count, options.engine)
    rise, error = slope(samples)
    title = f"{options.model}, {what['engine']}: {rise:.0f} ± {error:.0f} kB a thousand images"
    draw(samples, title)
    stem = HERE / "results" / f"{place['date']}-memory"
    values = {**place, **what, "kb_per_1000_images": rise, "error": error, "samples": samples}
    stem.with_suffix(".json").write_text(json.dumps(values) + "\n")
    lines = [
        "# Resident memory over many images",
        "",
        f"{place['date']}; {place['hardware']}.",
        f"`{place['command']}`",
        "",
        f"{options.model} on {what['engine']}, {len(paths)} photos repeated to {options.count:,} "
        f"images at {what['images_per_second']}/s.",
        f"After the first tenth: {rise:.1f} ± {error:.1f} kB a thousand images; "
        f"{samples[len(samples) // 10][1] / 1e6:.1f} MB then, {samples[-1][1] / 1e6:.1f} MB at the "
        "end.",
        "",
        "![resident memory](../../docs/images/memory.png)",
    ]
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print(stem.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()

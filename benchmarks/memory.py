"""Resident memory over many images: it must not grow.

The images of a folder or zip, again and again in an order that changes by a seed, go through
`densepath.load(bundle).predict(...)`, an engine each in a process of its own; after each 500 images
the resident set is read. The slope after the first fifth is fitted by least squares and given with
its standard error.

Writes `benchmarks/results/DATE-memory.json` after each engine, from which the same command goes on,
`.md` and `docs/images/memory.png`.

Run: .venv/bin/python benchmarks/memory.py IMAGES.zip|FOLDER [--images 20000]
     [--engines native,openvino,onnxruntime] [--model densenet121]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from formula_bundle import formula_bundle
from harness import (
    OUR_ENVIRONMENT,
    Budget,
    Results,
    add_options,
    figure_path,
    list_photos,
    photos,
    table,
)

EVERY = 500


def resident_bytes() -> int:
    """Of this process, as Linux counts it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def repeated(paths: list[str], count: int) -> Iterator[str]:
    """`count` of the paths, each round in another order."""
    order = random.Random(0)
    while count > 0:
        order.shuffle(paths)
        yield from paths[:count]
        count -= len(paths)


def watch(bundle: str, paths: list[str], count: int, engine: str, threads: int) -> dict:
    """[images, bytes] after each EVERY, and how fast."""
    import densepath

    samples, start = [], time.perf_counter()
    with densepath.load(bundle, engine=engine, threads=threads) as predictor:
        for done, answer in enumerate(predictor.predict(repeated(paths, count)), start=1):
            assert answer.error is None, answer.error
            if done % EVERY == 0:
                samples.append([done, resident_bytes()])
                rate = done / (time.perf_counter() - start)
                said = f"{engine}: {done:,} images, {samples[-1][1] / 1e6:.1f} MB, {rate:.1f}/s"
                print(said, file=sys.stderr, flush=True)
    rate = count / (time.perf_counter() - start)
    return {"samples": samples, "images_per_second": round(rate, 2)}


def watch_apart(bundle: str, engine: str, options: argparse.Namespace, folder: Path) -> dict:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--one", engine, "--bundle", bundle]
    command += ["--images", str(options.count), "--threads", str(options.threads)]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **OUR_ENVIRONMENT}
    )
    if run.returncode:
        sys.exit(f"{engine} failed")
    return json.loads(run.stdout.splitlines()[-1])


def settled(samples: list) -> np.ndarray:
    """Without the first fifth."""
    return np.array(samples[len(samples) // 5 :], float)


def slope(samples: list) -> tuple[float, float]:
    """kB a thousand images, and its standard error."""
    kept = settled(samples)
    x, y = kept[:, 0] / 1e3, kept[:, 1] / 1e3
    design = np.stack([x, np.ones_like(x)], 1)
    found, residuals, *_ = np.linalg.lstsq(design, y, rcond=None)
    variance = residuals[0] / max(len(x) - 2, 1) / ((x - x.mean()) ** 2).sum()
    return float(found[0]), float(np.sqrt(variance))


def draw(parts: dict[str, dict], path: Path) -> None:
    """Memory against images, a line an engine."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for name, part in parts.items():
        x, y = np.array(part["samples"], float).T
        axes.plot(x, y / 1e6, marker=".", label=name)
    axes.set(xlabel="images", ylabel="resident memory, MB", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def report(results: Results, model: str, num_photos: int) -> str:
    """The whole page."""
    rows = []
    for name, part in results.parts.items():
        rise, error = slope(part["samples"])
        kept = settled(part["samples"])
        rows.append(
            [
                name,
                f"{part['samples'][-1][0]:,}",
                f"{part['images_per_second']:.1f}",
                f"{kept[0, 1] / 1e6:.1f}",
                f"{kept[-1, 1] / 1e6:.1f}",
                f"{kept[:, 1].max() / 1e6:.1f}",
                f"{rise:.1f} ± {error:.1f}",
            ]
        )
    head = ["engine", "images", "images/s", "MB after a fifth", "MB at the end", "most MB"]
    lines = [
        "# Resident memory over many images",
        "",
        results.header(),
        "",
        f"{model}, {num_photos} photos again and again; the slope is that after the first fifth.",
        "",
        table([*head, "kB a thousand images"], rows),
        "![resident memory](../../docs/images/memory.png)",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Watches each engine, or with --one this one, in this process; fits, draws, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", dest="count", type=int, default=20_000)
    parser.add_argument("--engines", default="native,openvino,onnxruntime")
    parser.add_argument("--model", default="densenet121")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--bundle", help=argparse.SUPPRESS)
    add_options(parser, "memory")
    options = parser.parse_args()
    if options.one:
        paths = list_photos(options.photos)
        part = watch(options.bundle, paths, options.count, options.one, options.threads)
        print(json.dumps(part))
        return
    results, budget = Results(options.output, options), Budget(options.minutes)
    with photos(options.photos) as folder, formula_bundle(options.model, options.bundles) as bundle:
        for engine in options.engines.split(","):
            if engine not in results.parts and not budget.is_spent():
                results.add(engine, watch_apart(str(bundle), engine, options, folder))
        if results.parts:
            draw(results.parts, figure_path(options.output))
            results.write_report(report(results, options.model, len(list_photos(folder))))
            print(report(results, options.model, len(list_photos(folder))))


if __name__ == "__main__":
    main()

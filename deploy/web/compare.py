"""The page's answers beside those of `densepath predict`, on a folder or zip of photographs.

Both get the same bundle and the same files: the page in headless Chromium, through its own file
field. Prints how many images have the same five classes in the same order, the largest difference
of a class's score, and the page's times.

Run: python deploy/web/compare.py BUNDLE IMAGES.zip|FOLDER [--engine onnxruntime]; the page must be
built, see docs/web.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from statistics import median
from typing import Any

from chromium import Chromium, PageError
from serve import HERE, server

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
STEPS = ("decode", "preprocess", "network")
TIMEOUT_S = 3600
# Keeps the milliseconds that a card shows beside the answer that `answers()` gives.
TIMES = "[...document.querySelectorAll('.times')].map(line => line.textContent)"


def find_images(given: Path, scratch: Path) -> list[Path]:
    """The images of a folder, or of a zip that is unpacked into `scratch`."""
    if given.is_file():
        with zipfile.ZipFile(given) as archive:
            archive.extractall(scratch)
        given = scratch
    return sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES)


def ask_page(bundle: Path, images: list[Path]) -> dict[str, Any]:
    """The page's answers in the images' order, its lines of times and the seconds of everything."""
    with server(bundle, quiet=True) as running, Chromium(timeout_s=TIMEOUT_S) as browser:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        start = time.perf_counter()
        browser.open(f"http://127.0.0.1:{running.server_address[1]}/")
        browser.run("densepath.ready.then(() => true)")
        load_seconds = time.perf_counter() - start
        start = time.perf_counter()
        browser.choose_files("#files", images)
        browser.wait_for(f"densepath.answers().length === {len(images)}")
        browser.wait_for("densepath.answers().every(Boolean)")
        seconds = time.perf_counter() - start
        answers, times = browser.run("densepath.answers()"), browser.run(TIMES)
        threads = browser.run("crossOriginIsolated ? navigator.hardwareConcurrency : 1")
        running.shutdown()
    return {
        "answers": answers,
        "times": times,
        "load_seconds": load_seconds,
        "seconds": seconds,
        "threads": threads,
    }


def ask_program(bundle: Path, images: list[Path], engine: str) -> list[dict[str, Any]]:
    """The answers of `densepath predict` in the images' order."""
    program = Path(sys.executable).with_name("densepath")
    command = [program, "predict", bundle, "-", "--json", "--engine", engine]
    names = "".join(f"{image}\n" for image in images)
    run = subprocess.run(command, input=names, capture_output=True, text=True, encoding="utf-8")
    if not run.stdout:
        raise SystemExit(run.stderr)
    return [json.loads(line) for line in run.stdout.splitlines()]


def compare(page: list[dict[str, Any]], program: list[dict[str, Any]]) -> dict[str, Any]:
    """What is the same, and how far the scores of the same class are apart."""
    same, apart, refused = 0, 0.0, []
    for ours, theirs in zip(page, program, strict=True):
        if "error" in ours or "error" in theirs:
            refused.append((ours["path"], ours.get("error"), theirs.get("error")))
            continue
        same += ours["class_ids"] == theirs["class_ids"]
        scores = dict(zip(theirs["class_ids"], theirs["scores"], strict=True))
        for class_id, score in zip(ours["class_ids"], ours["scores"], strict=True):
            if class_id in scores:
                apart = max(apart, abs(score - scores[class_id]))
    return {
        "num_images": len(page),
        "num_same_top_5": same,
        "largest_score_difference": apart,
        "refused": refused,
    }


def step_medians(lines: list[str]) -> dict[str, float]:
    """Milliseconds of each step: `decode 12 ms · preprocess 4.0 ms · …` of each image."""
    parts = [part.split("\xa0") for line in lines for part in line.split(" · ")]
    return {step: median(float(words[1]) for words in parts if words[0] == step) for step in STEPS}


def main() -> None:
    """Compare, and print what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--engine", default="onnxruntime", help="of `densepath predict`")
    given = parser.parse_args()
    if not (HERE / "vendor").is_dir():
        parser.error("the page is not built: npm ci && npm run build")
    with tempfile.TemporaryDirectory() as scratch:
        images = find_images(given.images, Path(scratch))
        if not images:
            parser.error(f"no images in {given.images}")
        try:
            page = ask_page(given.bundle, images)
        except PageError as error:
            raise SystemExit(f"error: {error}") from error
        result = compare(page["answers"], ask_program(given.bundle, images, given.engine))
    result["page"] = {
        "median_milliseconds": step_medians(page["times"]),
        **{name: page[name] for name in ("seconds", "load_seconds", "threads")},
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()

"""Two processes under torchrun and under mpirun train as one process does."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
TORCHRUN = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", "-m", "densepath"]
MPIRUN = [
    str(BIN / "mpirun"),
    "-n",
    "2",
    "--oversubscribe",
    "--bind-to",
    "none",
    sys.executable,
    "-m",
    "densepath",
]
TIMEOUT_SECONDS = 300

# 1,442 training images are six steps of 240 or 241, and 355 test images divide by nothing.
TRAINING = [
    "train",
    "densenet_bc_22_12",
    "--data",
    "digits",
    "--epochs",
    "2",
    "--batch-size",
    "256",
    "--lr",
    "0.01",
    "--device",
    "cpu",
    "--progress",
    "none",
    "--set",
    "data.channels=1",
    "--set",
    "preprocess.size=8",
    "--set",
    "augment.padding=1",
    "--set",
    "data.evaluate_on=test",
]
SYNC = ["--set", "distributed.sync_bn=true"]
# At a low rate: where our kernels round a value to the other side of a ReLU's kink its gradient
# differs, and a step at a high one would blow that up beyond what is compared.
FUSED = ["--set", "compute.block=fused", "--lr", "0.001"]


def launch(command: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        # Open MPI asks a root user, as in a container, to say that it is meant.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
        env=environment,
    )


def curve(folder: Path) -> list[dict[str, float]]:
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> list[dict[str, float]]:
    folder = tmp_path_factory.mktemp("runs") / "one"
    run = launch([sys.executable, "-m", "densepath"], *TRAINING, *SYNC, "--output", str(folder))
    assert run.returncode == 0, run.stderr
    return curve(folder)


def assert_same_curve(folder: Path, reference: list[dict[str, float]]) -> None:
    """The same numbers up to float32 rounding.

    Two processes add up the same gradients and statistics in another order: 6e-8 of relative
    error a sum, over some 60 sums a step and 10 steps. 1e-5 of the loss is above that (the
    curves have agreed in all six digits of metrics.csv) and below what separate BatchNorm
    statistics change (1.3e-4) or an image counted twice would (7e-4 of a batch).
    """
    rows = curve(folder)
    assert len(rows) == len(reference) == 2
    for row, expected in zip(rows, reference, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert row["count"] == expected["count"]
        assert row["lr"] == expected["lr"]


@pytest.mark.parametrize("launcher", [TORCHRUN, MPIRUN], ids=["torchrun", "mpirun"])
def test_two_processes_have_the_curve_of_one_at_the_same_batch(launcher, one_process, tmp_path):
    if not shutil.which(launcher[0]):
        pytest.skip(f"{Path(launcher[0]).name} is not installed here")
    run = launch(launcher, *TRAINING, *SYNC, "--output", str(tmp_path / "two"))
    assert run.returncode == 0, run.stderr
    assert_same_curve(tmp_path / "two", one_process)


def test_two_processes_of_fused_blocks_have_the_curve_of_one(tmp_path):
    """Where BatchNorms count the images of both; no block is left to its modules."""
    for name, command in (("one", [sys.executable, "-m", "densepath"]), ("two", TORCHRUN)):
        run = launch(command, *TRAINING, *SYNC, *FUSED, "--output", str(tmp_path / name))
        assert run.returncode == 0, run.stderr
        log = (tmp_path / name / "train.log").read_text()
        assert log.count("compute.block") == log.count("blocks are one operation each") == 1
    assert_same_curve(tmp_path / "two", curve(tmp_path / "one"))


def test_two_processes_have_the_same_curve_with_fused_blocks(tmp_path):
    """Each with the statistics of its own images; what differs is rounding alone."""
    for block in ("plain", "fused"):
        chosen = ["--set", f"compute.block={block}", "--output", str(tmp_path / block)]
        run = launch(TORCHRUN, *TRAINING, *chosen)
        assert run.returncode == 0, run.stderr
    plain, fused = curve(tmp_path / "plain"), curve(tmp_path / "fused")
    for name in ("train_loss", "loss"):
        found = [row[name] for row in fused]
        assert found == pytest.approx([row[name] for row in plain], rel=1e-4)


@pytest.fixture
def images_with_one_broken(tmp_path) -> Path:
    """Two classes; of 26 training images number 20 is no image, of 13 test images one."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 13), ("val", 7)):
        for name in ("dark", "light"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count - (split == "val" and name == "light")):
                low = 0 if name == "dark" else 128
                pixels = rng.integers(low, low + 128, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
        (tmp_path / "data" / split / "light" / "3.png").write_bytes(b"no image")
    return tmp_path / "data"


def training_on(data: Path, output: Path, on_error: str) -> list[str]:
    return [
        "train",
        "densenet_bc_22_12",
        "--data",
        str(data),
        "--output",
        str(output),
        "--epochs",
        "2",
        "--batch-size",
        "26",
        "--lr",
        "0.01",
        "--device",
        "cpu",
        "--progress",
        "none",
        "--on-error",
        on_error,
        *SYNC,
    ]


def test_broken_images_are_counted_once_and_weigh_nothing(images_with_one_broken, tmp_path):
    """One process has 13 images of the step, the other 12: the mean is still over 25."""
    for name, launcher in (("one", [sys.executable, "-m", "densepath"]), ("two", TORCHRUN)):
        run = launch(launcher, *training_on(images_with_one_broken, tmp_path / name, "skip"))
        assert run.returncode == 0, run.stderr
        log = (tmp_path / name / "train.log").read_text()
        assert log.count("light/3.png: ") == log.count("could not be read") == 2
    two = curve(tmp_path / "two")
    assert [(r["train_skipped"], r["count"], r["skipped"]) for r in two] == [(1, 12, 1)] * 2
    assert_same_curve(tmp_path / "two", curve(tmp_path / "one"))


@pytest.fixture
def images_mostly_broken(tmp_path) -> Path:
    """12 training images of 8 × 8 pixels, five of which can be read, and four to evaluate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for number in range(count):
            path = tmp_path / "data" / split / ("dark", "light")[number % 2] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            low = 128 * (number % 2)
            pixels = rng.integers(low, low + 128, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            if split == "train" and number % 12 in (0, 1, 3, 4, 6, 9, 10):
                path.write_bytes(b"no image")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("size", "sync"), [(8, SYNC), (4, SYNC), (4, []), (8, SYNC + FUSED), (4, SYNC + FUSED)]
)
def test_steps_that_have_shrunk_to_one_image_or_none_end_no_process(
    images_mostly_broken, tmp_path, size, sync
):
    """Batches of 4, of which a process can often read one image or none.

    At 4 pixels the last maps are 1 × 1, and BatchNorm needs two images. Statistics of two
    values magnify rounding without bound, so the curves are compared at 8 pixels.
    """
    rows = []
    for name, launcher in (("one", [sys.executable, "-m", "densepath"]), ("two", TORCHRUN)):
        output = tmp_path / name
        command = training_on(images_mostly_broken, output, "skip")[: -len(SYNC)]
        command[command.index("--batch-size") + 1] = "4"
        command[command.index("--epochs") + 1] = "5"
        command += ["--set", f"preprocess.size={size}", "--set", "augment.crop=none", *sync]
        run = launch(launcher, *command)
        assert run.returncode == 0, run.stderr
        rows.append(curve(output))
    one, two = rows
    skipped = [row["train_skipped"] for row in two]
    assert len(two) == 5
    # Without a loss is an epoch in which no process had two images at once.
    assert all(np.isfinite(r["train_loss"]) == (r["train_skipped"] < 12) for r in two)
    if size == 8:
        assert skipped == [7] * 5
        losses = [[row["train_loss"] for row in run] for run in rows]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    elif SYNC[1] in sync:
        assert skipped == [row["train_skipped"] for row in one]
    else:
        assert all(7 <= count <= 12 for count in skipped)


def test_an_error_in_one_process_ends_all_with_one_message(images_with_one_broken, tmp_path):
    run = launch(TORCHRUN, *training_on(images_with_one_broken, tmp_path / "run", "fail"))
    assert run.returncode != 0
    said = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1, run.stderr
    assert "3.png" in run.stderr


def test_ctrl_c_stops_two_processes_after_a_step_with_their_state_written(tmp_path):
    folder = tmp_path / "run"
    arguments = [*TRAINING, "--output", str(folder), "--set", "schedule.name=constant"]
    arguments[arguments.index("--epochs") + 1] = "500"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*TORCHRUN, *arguments], stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (folder / "metrics.csv").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode != 0
    assert err.count("SIGINT: stopping after") == 1, err
    assert f"stopped by SIGINT, state written. Go on with: densepath train {folder}" in err
    assert (folder / "state" / "state.safetensors").exists()


def test_two_processes_train_for_int8_as_one_does(tmp_path):
    """The first process's images make the ranges, so the grids differ by a little."""
    start, base = tmp_path / "float", [sys.executable, "-m", "densepath"]
    assert launch(base, *TRAINING, "--output", str(start)).returncode == 0
    data = ["--data", "digits", "--batch-size", "256", "--epochs", "2", "--device", "cpu"]
    data += ["--set", "data.evaluate_on=test"]
    options = [*data, "--progress", "none", "--set", "augment.padding=1"]
    losses = []
    for name, launcher in (("one", base), ("two", TORCHRUN)):
        folder = tmp_path / name
        run = launch(launcher, "train", "--qat", str(start), *options, "--output", str(folder))
        assert run.returncode == 0, run.stderr
        assert "Grad strides" not in run.stderr
        losses.append([row["train_loss"] for row in curve(folder)])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_the_mean_is_over_the_labels_that_any_process_knows(tmp_path):
    """The first half of each step knows next to all of its labels, the other next to none."""
    random = np.random.default_rng(0)
    rows = ["path,split,red,green,blue"]
    for number in range(60):
        there = random.random(3) < 0.5
        pixels = random.integers(0, 120, (8, 8, 3)) + 90 * there
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        known = random.random(3) < (0.9 if number % 3 else 0.1)
        cells = [str(int(yes)) if seen else "" for yes, seen in zip(there, known, strict=True)]
        rows.append(f"{number}.png,{'val' if number % 5 == 0 else 'train'},{','.join(cells)}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    words = ["train", "densenet_bc_22_12", "--data", str(tmp_path / "t.csv"), "--epochs", "2"]
    words += ["--batch-size", "16", "--lr", "0.1", "--device", "cpu", "--progress", "none"]
    for setting in ("preprocess.size=8", "model.freeze=features", "loss.pos_weight=balanced"):
        words += ["--set", setting]
    curves = []
    for name, command in (("one", [sys.executable, "-m", "densepath"]), ("two", TORCHRUN)):
        made = launch(command, *words, "--output", str(tmp_path / name))
        assert made.returncode == 0, made.stderr
        curves.append(curve(tmp_path / name))
    for one, two in zip(*curves, strict=True):
        for figure in ("train_loss", "loss", "top1", "macro_auroc", "mean_average_precision"):
            assert two[figure] == pytest.approx(one[figure], rel=1e-5), figure

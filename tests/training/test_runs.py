"""Run folders side by side: what each has come to, read while it is written, too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from densepath.errors import DatasetError, DivergedError
from densepath.training.at_work import at_work, is_at_work
from densepath.training.runs import find_runs, read_run
from fixtures.runs import DIGITS, train_quietly


@pytest.fixture
def folder(digits_run, tmp_path) -> Path:
    """Three run folders: one better than the others, one in a folder with an odd name."""
    for name, factor in (("low", "0.1"), ("über all/high", "0.9"), ("middle", "0.5")):
        path = Path(shutil.copytree(digits_run, tmp_path / name))
        rows = (path / "metrics.csv").read_text().splitlines()
        place = rows[0].split(",").index("top1")
        for line in (1, 2):
            cells = rows[line].split(",")
            cells[place] = factor
            rows[line] = ",".join(cells)
        (path / "metrics.csv").write_text("\n".join(rows) + "\n")
    recipe = tmp_path / "low" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 0.1", "lr: 0.3"))
    return tmp_path


def test_runs_are_listed_by_their_figure_with_what_differs_alone(folder):
    listed = find_runs(folder)
    assert [run.folder.name for run in listed.found] == ["high", "middle", "low"]
    assert [run.best for run in listed.found] == [0.9, 0.5, 0.1]
    assert listed.differences == ["optimizer.lr"]
    assert [value["recipe"] for value in listed.to_dicts()] == [
        {"optimizer.lr": 0.1},
        {"optimizer.lr": 0.1},
        {"optimizer.lr": 0.3},
    ]
    # Of equal figures the first epoch is the best, as in the training.
    assert {(run.state, run.best_epoch, run.epochs) for run in listed.found} == {("finished", 1, 2)}
    assert {run.num_images for run in listed.found} == {(1298, 144)}


def test_the_figures_are_those_of_the_training(digits_run):
    run = read_run(digits_run)
    readme = (digits_run / "README.md").read_text()
    assert f"| best | {run.best_epoch} | {100 * run.best:.2f} % |" in readme
    assert run.seconds > 0


def test_the_best_epoch_is_that_of_the_figure_that_the_training_watched(folder):
    """Losses are better the lower they are, and a recipe that says nothing watches top-1."""
    for name, monitor in (("low", "loss"), ("middle", "train_loss")):
        recipe = folder / name / "recipe.yaml"
        text = recipe.read_text()
        recipe.write_text(text.replace("checkpoint: {", f"checkpoint: {{monitor: {monitor}, "))
    listed = find_runs(folder)
    assert listed.found[0].folder.name == "high"
    assert listed.broken == []
    scores = {run.folder.name: run.score for run in listed.found}
    assert scores == {"high": "top-1", "low": "loss", "middle": "train loss"}
    rows = (folder / "low" / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("loss")
    losses = [float(row.split(",")[place]) for row in rows[1:]]
    low = next(run for run in listed.found if run.folder.name == "low")
    assert (low.best, low.best_epoch) == (min(losses), losses.index(min(losses)) + 1)
    watched = {value["recipe"]["checkpoint.monitor"] for value in listed.to_dicts()}
    assert watched == {None, "loss", "train_loss"}


def test_a_training_that_ended_early_is_finished_and_says_why(folder):
    log = folder / "low" / "train.log"
    text = log.read_text().removesuffix("finished\n")
    log.write_text(text + "ended early after epoch 2 of 9: top1 has not become better\n")
    recipe = folder / "low" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 2", "epochs: 9", 1))
    run = read_run(folder / "low")
    assert (run.state, run.note.split(":")[0]) == ("finished", "ended early after epoch 2 of 9")


def test_a_folder_that_cannot_be_read_is_named_with_the_reason_and_the_others_are_listed(folder):
    (folder / "low" / "recipe.yaml").write_text("epochs: [1")
    (folder / "middle" / "metrics.csv").write_text("epoch,top1\nx,y\n")
    (folder / "lost").mkdir()
    (folder / "lost" / "train.log").write_text("2026-01-01 00:00:00 started\n")
    (folder / "mine").mkdir()
    (folder / "mine" / "recipe.yaml").write_text("epochs: 1\n")
    listed = find_runs(folder)
    assert [run.folder.name for run in listed.found] == ["high"]
    reasons = {path.name: reason for path, reason in listed.broken}
    assert "is not YAML" in reasons["low"]
    assert "damaged" in reasons["middle"]
    assert "no recipe.yaml" in reasons["lost"]
    assert "no training began" in reasons["mine"]
    assert [value["folder"] for value in listed.to_dicts() if "error" in value] == [
        str(path) for path, _ in listed.broken
    ]


def test_a_training_counts_as_running_while_its_process_lives(digits_run, tmp_path):
    path = Path(shutil.copytree(digits_run, tmp_path / "run"))
    log = path / "train.log"
    log.write_text(log.read_text().replace("finished", "epoch 3"))
    metrics = (path / "metrics.csv").read_text().splitlines()
    (path / "metrics.csv").write_text("\n".join(metrics[:2]) + "\n")
    with at_work(path):
        assert is_at_work(path)
        assert read_run(path).state == "running"
    assert not is_at_work(path)
    assert read_run(path).note == "killed: its log has no end"
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from densepath.training.at_work import at_work\n"
        "with at_work(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False)
    assert read_run(path).state == "stopped"


def test_a_live_folder_is_read_while_it_is_trained_and_says_so(tmp_path):
    """The loop's own view asks at the end of each epoch."""
    from densepath.training import train as module

    seen = []
    kept = module.run

    def watched(training):
        end_epoch = training.progress.end_epoch
        training.progress.end_epoch = lambda row: (seen.append(find_runs(tmp_path)), end_epoch(row))
        kept(training)

    module.run = watched
    try:
        train_quietly("digits", tmp_path / "run", DIGITS, epochs=2)
    finally:
        module.run = kept
    assert [(runs.found[0].state, runs.found[0].epochs) for runs in seen] == [
        ("running", 1),
        ("running", 2),
    ]
    assert find_runs(tmp_path).found[0].state == "finished"


def test_a_training_that_diverged_says_how(tmp_path):
    with pytest.raises(DivergedError):
        train_quietly("digits", tmp_path / "run", {**DIGITS, "optimizer.lr": 1000.0})
    run = read_run(tmp_path / "run")
    assert (run.state, run.epochs, run.best) == ("diverged", 0, None)
    assert run.note.startswith("the loss became")


def test_a_stopped_training_says_by_what(digits_run, tmp_path):
    path = Path(shutil.copytree(digits_run, tmp_path / "run"))
    metrics = (path / "metrics.csv").read_text().splitlines()
    (path / "metrics.csv").write_text("\n".join(metrics[:2]) + "\n")
    log = path / "train.log"
    log.write_text(log.read_text().replace("finished", "stopped by SIGINT"))
    assert (read_run(path).state, read_run(path).note) == ("stopped", "stopped by SIGINT")


@pytest.mark.parametrize(("name", "part"), [("empty", "holds no run folder"), ("x", "no such")])
def test_a_folder_without_runs_is_an_error_with_a_cure(name, part, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=part):
        find_runs(tmp_path / name)

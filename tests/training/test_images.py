"""What a run remembers of its images: judged on, recognised, compared on a resume, and said."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from densepath import Checkpoint, evaluate, train
from densepath.data.record import Record
from densepath.errors import CheckpointError, DatasetError, RecipeError, UsageError
from densepath.training.recipe_file import make_recipe
from densepath.training.resolve import resolve
from densepath.training.run_folder import read_run_recipe
from fixtures.pictures import write_noise
from fixtures.runs import train_quietly

CLASSES = ("ant", "bee", "cat")


def make_folder(root: Path, parts=("",), each=10, classes=CLASSES, seed=0) -> Path:
    """Folders of pure noise: nobody can know an image that was not trained on."""
    rng = np.random.default_rng(seed)
    for part in parts:
        for name in classes:
            for number in range(each):
                write_noise(root / part / name / f"{number}.png", seed=rng)
    return root


def make_table(root: Path, columns: str, row) -> Path:
    """A CSV of 40 noise images; `row(number)` is a row."""
    rng = np.random.default_rng(1)
    lines = [columns]
    for number in range(40):
        write_noise(root / f"{number}.png", seed=rng)
        lines.append(row(number))
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root / "table.csv"


def train_on(data, output, **settings):
    fields = {"data.batch_size": 16, "preprocess.size": 32, "optimizer.lr": 0.05}
    return train_quietly(data, output, fields, **settings)


def go_on(run, **settings):
    fields = {name.replace("__", "."): value for name, value in settings.items()}
    return train(run, settings=fields, device="cpu", progress="none")


def evaluated(subject, data=None, **options):
    return evaluate(subject, data, device="cpu", **options)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder without splits, and a run on it with another seed and fraction than the default."""
    root = tmp_path_factory.mktemp("plain")
    data = make_folder(root / "data", each=20)
    train_on(data, root / "run", seed=1, data__validation_fraction=0.2)
    return root


@pytest.fixture
def copied(plain, tmp_path):
    """A copy of both that a test may change."""
    shutil.copytree(plain / "data", tmp_path / "data")
    shutil.copytree(plain / "run", tmp_path / "run")
    return tmp_path


def _lists(root: Path) -> Path:
    rng = np.random.default_rng(2)
    for name, count in (("train_list", 24), ("val_list", 8), ("test_list", 8)):
        lines = []
        for number in range(count):
            write_noise(root / name / f"{number}.png", seed=rng)
            lines.append(f"{name}/{number}.png {number % 3}")
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root / "train_list.txt"


SHAPES = {
    "two classes, no splits": (lambda r: make_folder(r, classes=("a", "b"), each=15), 7, 0.35),
    "no splits, a large part held out": (lambda r: make_folder(r), 3, 0.5),
    "train alone": (lambda r: make_folder(r, ("train",)), 2, 0.2),
    "train and test": (lambda r: make_folder(r, ("train", "test")), 5, 0.25),
    "train and val": (lambda r: make_folder(r, ("train", "val"), each=6), 0, None),
    "all three": (lambda r: make_folder(r, ("train", "val", "test"), each=6), 11, None),
    "lists": (_lists, 4, None),
    "a table": (lambda r: make_table(r, "path,label", lambda n: f"{n}.png,{n % 2}x"), 9, 0.15),
    "a table with a split column": (
        lambda r: make_table(
            r,
            "path,label,split",
            lambda n: f"{n}.png,{n % 2}x,{('train', 'train', 'train', 'val')[n // 2 % 4]}",
        ),
        1,
        None,
    ),
    "a table of several labels": (
        lambda r: make_table(r, "path,x,y", lambda n: f"{n}.png,{n % 2},{n // 2 % 2}"),
        6,
        0.3,
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_is_judged_on_the_same_images_in_training_and_afterwards(shape, tmp_path):
    make, seed, fraction = SHAPES[shape]
    data = make(tmp_path / "data")
    result = train_on(data, tmp_path / "run", seed=seed, data__validation_fraction=fraction)
    readme = (tmp_path / "run" / "README.md").read_text()
    usual = evaluated(tmp_path / "run")
    assert usual.overlap.trained_on == 0
    figure = "micro_f1" if shape == "a table of several labels" else "top1"
    for source in (None, data):
        report = evaluated(tmp_path / "run", source, split="validation")
        assert report.figures[figure] == pytest.approx(result.best_top1, abs=1e-9)
        assert report.figures["loss"] == pytest.approx(result.loss, rel=1e-5)
        assert report.overlap.trained_on == 0
        assert f"none of the {report.images} images was trained on" in str(report.overlap)
        assert f"Measured on the {report.images:,} validation images" in readme
        assert report.settings["rule"] in readme


def test_a_table_read_by_named_columns_is_read_so_again(tmp_path):
    data = make_table(
        tmp_path / "data",
        "image_file,patient,finding",
        lambda n: f"{n}.png,p{n // 4},{'ill' if n % 3 else 'well'}",
    )
    result = train_on(
        data,
        tmp_path / "run",
        data__path_column="image_file",
        data__label_column="finding",
        data__group_column="patient",
        data__validation_fraction=0.25,
        seed=2,
    )
    for source in (None, data):
        report = evaluated(tmp_path / "run", source, split="validation")
        assert report.figures["top1"] == pytest.approx(result.best_top1)
        assert report.overlap.trained_on == 0


def test_the_usual_split_of_a_runs_own_folder_is_what_it_held_out(plain):
    report = evaluated(plain / "run", plain / "data")
    assert (report.images, report.overlap.trained_on) == (12, 0)
    assert report.settings["split"] == "validation"


@pytest.mark.parametrize(("split", "seen", "total"), [("test", 48, 60), ("train", 48, 48)])
def test_images_that_were_trained_on_are_counted_in_the_first_line(plain, split, seen, total):
    report = evaluated(plain / "run", plain / "data", split=split)
    assert (report.overlap.trained_on, report.images) == (seen, total)
    said = str(report.overlap)
    assert said.endswith("were trained on: this figure is not about new images.")
    assert said.startswith("all 48 images" if seen == total else "48 of 60 images")
    values = report.to_dict()
    assert next(iter(values)) == "about"
    assert values["trained_on"] == seen


def test_the_report_says_it_before_any_figure(plain, tmp_path):
    evaluated(plain / "run", plain / "data", split="test").save(tmp_path / "report")
    lines = (tmp_path / "report" / "README.md").read_text().splitlines()
    assert lines[2] == "48 of 60 images were trained on: this figure is not about new images."
    assert (
        (tmp_path / "report" / "report.json")
        .read_text()
        .splitlines()[1]
        .strip()
        .startswith('"about": "48 of 60 images were trained on')
    )


def test_new_images_are_said_to_be_new(plain, tmp_path):
    data = make_folder(tmp_path / "other", each=3, seed=5)
    report = evaluated(plain / "run", data)
    assert str(report.overlap) == "none of the 9 images was trained on."


def test_renamed_copies_in_another_place_are_recognised(plain, tmp_path):
    data = make_folder(tmp_path / "other", each=2, seed=5)
    shutil.copy(plain / "data" / "ant" / "3.png", data / "bee" / "renamed.png")
    shutil.copy(plain / "data" / "cat" / "4.png", data / "cat" / "again.PNG")
    kept = Record.load(plain / "run" / "images.npz").parts["train"].names
    seen = len({"ant/3.png", "cat/4.png"} & set(kept))
    assert evaluated(plain / "run", data).overlap.trained_on == seen


def test_a_copied_checkpoint_recognises_its_images_without_the_run_folder(plain, tmp_path):
    alone = tmp_path / "alone.safetensors"
    shutil.copy(plain / "run" / "best.safetensors", alone)
    shutil.copytree(plain / "data", tmp_path / "moved")
    assert evaluated(alone, tmp_path / "moved", split="test").overlap.trained_on == 48
    held = evaluated(alone, tmp_path / "moved")
    assert (held.images, held.overlap.trained_on) == (12, 0)
    assert evaluated(alone).images == 12


def test_a_checkpoint_of_another_origin_says_that_it_is_not_known(plain, tmp_path):
    from dataclasses import replace

    loaded = Checkpoint.load(plain / "run" / "best.safetensors")
    replace(loaded, trained_on=None).save(tmp_path / "foreign.safetensors")
    report = evaluated(tmp_path / "foreign.safetensors", plain / "data")
    assert str(report.overlap).startswith("it is not known whether the 60 images were trained on")
    assert report.to_dict()["trained_on"] is None
    with pytest.raises(UsageError, match="--data SOURCE"):
        evaluated(tmp_path / "foreign.safetensors")


def test_more_images_than_a_checkpoint_keeps_are_known_by_the_run_folder(
    copied, tmp_path, monkeypatch
):
    from densepath.weights import trained_on

    monkeypatch.setattr(trained_on, "MOST_FINGERPRINTS", 10)
    loaded = Checkpoint.load(copied / "run" / "best.safetensors")
    loaded.save(copied / "run" / "best.safetensors")
    assert Checkpoint.load(copied / "run" / "best.safetensors").trained_on.trained is None
    shutil.copy(copied / "run" / "best.safetensors", tmp_path / "alone.safetensors")
    assert evaluated(copied / "run", copied / "data", split="test").overlap.trained_on == 48
    lonely = evaluated(tmp_path / "alone.safetensors", copied / "data", split="test")
    assert lonely.overlap.trained_on is None
    assert "too many for the checkpoint to keep" in str(lonely.overlap)


def test_images_added_since_do_not_bring_trained_ones_into_what_is_held_out(copied):
    rng = np.random.default_rng(77)
    for name in CLASSES:
        for number in range(7):
            write_noise(copied / "data" / name / f"new{number}.png", seed=rng)
    report = evaluated(copied / "run", copied / "data", split="validation")
    assert (report.images, report.overlap.trained_on) == (12 + 21, 0)
    assert "changed since the training" in report.settings["rule"]


def test_a_changed_copy_is_not_measured_on_images_that_were_trained_on(copied):
    """A copy that lacks some of the held-out images, or another set with some of the images."""
    known = np.load(copied / "run" / "images.npz")
    held_out = known["validation.names"].tobytes().decode().split("\0")
    for name in held_out[:3]:
        (copied / "data" / name).unlink()
    (copied / "data" / "ant").rename(copied / "data" / "old")
    (copied / "data" / "old").rename(copied / "data" / "ant")
    shutil.copytree(copied / "data", copied / "elsewhere")
    report = evaluated(copied / "run", copied / "elsewhere", split="validation")
    assert (report.images, report.overlap.trained_on) == (12 - 3, 0)
    assert "not trained on" in report.settings["rule"]


def test_an_exported_bundle_keeps_no_images_and_says_so(plain, tmp_path):
    from densepath import export

    export(plain / "run", tmp_path / "bundle", to=["torch"], num_images=2)
    assert Checkpoint.load(tmp_path / "bundle" / "model.safetensors").trained_on is None
    report = evaluated(tmp_path / "bundle", plain / "data")
    assert "a bundle does not keep" in str(report.overlap)


def test_what_the_first_weights_had_seen_counts_too(plain, tmp_path):
    """Fine-tuned on other images, then measured on those of the first training."""
    data = make_folder(tmp_path / "other", each=6, seed=9)
    train(
        data=data,
        epochs=1,
        output=tmp_path / "tuned",
        settings={"model.weights": str(plain / "run"), "data.batch_size": 8},
        device="cpu",
        progress="none",
    )
    report = evaluated(tmp_path / "tuned", plain / "data", split="test")
    assert report.overlap.trained_on == 48


def test_judging_fine_tuned_weights_on_what_they_were_trained_on_is_said(plain, tmp_path, capsys):
    train(
        data=plain / "data",
        epochs=1,
        output=tmp_path / "tuned",
        settings={"model.weights": str(plain / "run"), "seed": 5, "data.batch_size": 16},
        device="cpu",
        progress="lines",
    )
    err = capsys.readouterr().err
    assert "were trained on" in err
    assert "of the 6 validation images: the scores lean upwards" in err


def test_the_readme_of_a_run_does_not_call_images_new_that_were_trained_on(tmp_path):
    """A copy of a training image among the test images; then weights that know some of them."""
    data = make_folder(tmp_path / "data", ("train", "test"), each=10)
    options = {"seed": 1, "data__validation": "train", "data__train": "test"}
    train_on(data, tmp_path / "first", **options)
    shutil.copy(data / "train" / "bee" / "1.png", data / "test" / "bee" / "again.png")
    known = {"model.weights": str(tmp_path / "first"), "preprocess.size": 32, "data.batch_size": 16}
    run = tmp_path / "run"
    train(data=data, epochs=1, output=run, settings=known, device="cpu", progress="none")
    said = (run / "README.md").read_text()
    assert "neither trained on nor" not in said
    assert "31 of the 31 test images\nwere trained on" in said
    assert "were trained on 30 of the 31 test images" in said  # by the first weights
    train(
        data=data / "train",
        epochs=1,
        output=tmp_path / "second",
        settings=known | {"model.weights": str(run), "seed": 9},
        device="cpu",
        progress="none",
    )
    said = (tmp_path / "second" / "README.md").read_text()
    assert "of them were trained on, here or for the first weights" in said


def _rename_class(root: Path) -> None:
    (root / "data" / "bee").rename(root / "data" / "dog")


def _relabel(root: Path) -> None:
    (root / "data" / "ant" / "3.png").rename(root / "data" / "bee" / "x3.png")
    (root / "data" / "bee" / "4.png").rename(root / "data" / "ant" / "x4.png")


def _remove(root: Path) -> None:
    for number in (1, 2, 3):
        (root / "data" / "ant" / f"{number}.png").unlink()


def _overwrite(root: Path) -> None:
    write_noise(root / "data" / "cat" / "0.png", seed=123)


def _add(root: Path) -> None:
    write_noise(root / "data" / "cat" / "more.png", seed=124)


def _new_class(root: Path) -> None:
    write_noise(root / "data" / "elk" / "0.png", seed=5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_rename_class, "class bee is now dog"),
        (_relabel, r"ant/3\.png was ant, is bee \(as bee/x3\.png\)"),
        (_remove, r"3 (training )?images are gone: ant/1\.png, ant/2\.png, ant/3\.png\."),
        (_add, r": 1 (training |validation )?image is new: cat/more\.png\."),
        (_overwrite, r"1 (training|validation) image has other contents: cat/0\.png"),
        (_new_class, "1 class is new: elk"),
    ],
)
def test_a_resume_on_other_images_is_refused_and_names_them(copied, change, said):
    moved = {"data__source": str(copied / "data")}
    assert go_on(copied / "run", **moved).finished
    change(copied)
    before = (copied / "run" / "last.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=said) as caught:
        go_on(copied / "run", **moved)
    assert "was trained on other images" in str(caught.value)
    assert (copied / "run" / "last.safetensors").read_bytes() == before


def test_a_label_changed_in_a_table_is_refused_and_named(tmp_path):
    data = make_table(tmp_path / "data", "path,label", lambda n: f"{n}.png,{'ab'[n % 2]}")
    train_on(data, tmp_path / "run")
    data.write_text(data.read_text().replace("\n7.png,b", "\n7.png,a"))
    # Held-out parts are drawn by class: another label may move other images too.
    with pytest.raises(CheckpointError, match=r"7\.png|(is|are) (gone|new)"):
        go_on(tmp_path / "run")


def test_a_label_changed_in_a_table_with_splits_is_named_with_both_classes(tmp_path):
    data = make_table(
        tmp_path / "data",
        "path,label,split",
        lambda n: f"{n}.png,{'ab'[n % 2]},{'train' if n < 30 else 'val'}",
    )
    train_on(data, tmp_path / "run")
    data.write_text(data.read_text().replace("\n7.png,b", "\n7.png,a"))
    with pytest.raises(CheckpointError, match=r"7\.png was b, is a"):
        go_on(tmp_path / "run")


def test_a_label_changed_in_a_list_is_named(tmp_path):
    data = _lists(tmp_path / "data")
    train_on(data, tmp_path / "run")
    data.write_text(data.read_text().replace("train_list/4.png 1", "train_list/4.png 2"))
    with pytest.raises(CheckpointError, match=r"train_list/4\.png was 1, is 2"):
        go_on(tmp_path / "run")


def test_rows_of_a_table_in_another_order_are_refused(tmp_path):
    """The order of the images decides the order of the steps."""
    data = make_table(
        tmp_path / "data",
        "path,label,split",
        lambda n: f"{n}.png,{'ab'[n % 2]},{'train' if n < 30 else 'val'}",
    )
    train_on(data, tmp_path / "run")
    head, first, second, *rest = data.read_text().splitlines()
    data.write_text("\n".join([head, second, first, *rest]) + "\n")
    with pytest.raises(CheckpointError, match="training images stand in another order"):
        go_on(tmp_path / "run")


def test_several_labels_changed_are_named(tmp_path):
    data = make_table(
        tmp_path / "data",
        "path,x,y,split",
        lambda n: f"{n}.png,{n % 2},{n // 2 % 2},{'train' if n < 30 else 'val'}",
    )
    train_on(data, tmp_path / "run")
    data.write_text(data.read_text().replace("\n3.png,1,1", "\n3.png,0,1"))
    with pytest.raises(CheckpointError, match=r"3\.png was x\|y, is y"):
        go_on(tmp_path / "run")


def test_a_run_of_before_the_record_is_compared_by_number_and_that_is_said(copied, capsys):
    (copied / "run" / "images.npz").unlink()
    recipe = copied / "run" / "recipe.yaml"
    text = recipe.read_text()
    source = read_run_recipe(copied / "run").data.source
    assert text.count("epochs: 1\n") == 1
    text = text.replace("epochs: 1\n", "epochs: 2\n")  # so that something is left to train
    recipe.write_text(text.replace(source, str(copied / "data")))
    train(copied / "run", device="cpu", progress="lines")
    assert "did not keep which images it trained on" in capsys.readouterr().err
    (copied / "data" / "ant" / "1.png").unlink()
    with pytest.raises(CheckpointError, match=r"images; .* now has"):
        go_on(copied / "run")


def test_a_run_on_a_relative_folder_goes_on_from_inside_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(Path("data"), each=4)
    train_on("data", "runs/first", data__validation_fraction=0.25)
    monkeypatch.chdir(tmp_path / "runs" / "first")
    assert go_on(".").finished
    assert evaluated(".").overlap.trained_on == 0
    assert read_run_recipe(".").data.source == str(tmp_path / "data")
    train("recipe.yaml", output="../again", device="cpu", progress="none")
    assert (tmp_path / "runs" / "again" / "best.safetensors").is_file()


def test_a_run_that_moved_with_its_images_finds_them(plain, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    make_folder(old / "data", each=4)
    train_on(old / "data", old / "runs" / "x", data__validation_fraction=0.25)
    old.rename(new)
    assert evaluated(new / "runs" / "x").overlap.trained_on == 0
    assert go_on(new / "runs" / "x").finished
    assert read_run_recipe(new / "runs" / "x").data.source == str(new / "data")


def test_images_that_moved_alone_are_asked_for_and_taken_when_they_are_the_same(copied):
    shutil.copytree(copied / "data", copied / "elsewhere")
    recipe = copied / "run" / "recipe.yaml"
    source = read_run_recipe(copied / "run").data.source
    recipe.write_text(recipe.read_text().replace(source, str(copied / "nowhere")))
    with pytest.raises(DatasetError, match=r"--set data\.source=PLACE"):
        go_on(copied / "run")
    assert go_on(copied / "run", data__source=str(copied / "elsewhere")).finished
    assert go_on(copied / "run").finished
    assert "elsewhere" in (copied / "run" / "train.log").read_text()
    assert "elsewhere" in evaluated(copied / "run").data
    other = make_folder(copied / "others", each=20, seed=8)
    with pytest.raises(CheckpointError, match="other contents"):
        go_on(copied / "run", data__source=str(other))


def test_only_the_place_of_the_images_may_change_on_the_way(copied):
    with pytest.raises(UsageError, match="cannot be changed on the way"):
        go_on(copied / "run", data__source=str(copied / "data"), optimizer__lr=0.2)


@pytest.mark.parametrize(
    ("field", "value"), [("source", "data"), ("root", "data"), ("test", "more"), ("train", "data")]
)
def test_every_place_in_a_resolved_recipe_is_absolute(field, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data", "more"):
        (tmp_path / name).mkdir()
    given = {"model": {"name": "densenet_bc_22_12"}, "data": {"source": "digits", field: value}}
    assert getattr(resolve(make_recipe(given), None).data, field) == str(tmp_path / value)


def test_a_folder_inside_the_source_keeps_its_name_in_a_resolved_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "Training").mkdir(parents=True)
    given = {
        "model": {"name": "densenet_bc_22_12"},
        "data": {"source": "data", "train": "Training"},
    }
    assert resolve(make_recipe(given), None).data.train == "Training"


def test_relative_weights_are_found_from_any_folder(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(plain)
    train(
        data="data",
        epochs=1,
        output=tmp_path / "tuned",
        settings={"model.weights": "run", "data.batch_size": 16},
        device="cpu",
        progress="none",
    )
    assert read_run_recipe(tmp_path / "tuned").model.weights == str(plain / "run")


def test_the_table_is_said_once_on_standard_error_and_kept_in_the_readme(tmp_path, capsys):
    data = make_folder(tmp_path / "data", ("train", "test"), each=5)
    shutil.copy(data / "train" / "ant" / "0.png", data / "test" / "ant" / "copy.png")
    train(
        "densenet_bc_22_12",
        data=data,
        epochs=1,
        output=tmp_path / "run",
        settings={"data.batch_size": 8, "data.validation_fraction": 0.2},
        device="cpu",
        progress="lines",
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("data: ") == 1
    for said in ("20 % of the training images, drawn by class with seed 0", "copy.png"):
        assert said in err
    assert "16 test images are kept for `densepath evaluate`" in err
    assert err.partition("epoch 1/1")[0].strip() in (tmp_path / "run" / "README.md").read_text()


def test_no_progress_leaves_standard_error_and_output_empty(tmp_path, capsys):
    make_folder(tmp_path / "data", each=3)
    train_on(tmp_path / "data", tmp_path / "run", data__validation_fraction=0.4)
    assert capsys.readouterr() == ("", "")


def test_train_and_test_alone_leave_the_test_images_for_evaluate(tmp_path):
    data = make_folder(tmp_path / "data", ("train", "test"), each=10)
    train_on(data, tmp_path / "run", epochs=2)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert rows[0]["count"] == "3"
    report = evaluated(tmp_path / "run")
    assert report.settings["split"] == "test"
    assert str(report.overlap) == "none of the 30 images was trained on."
    readme = " ".join((tmp_path / "run" / "README.md").read_text().split())
    assert "The best epoch was chosen on them, so its score leans upwards" in readme
    assert "the 30 test images were neither trained on nor chosen by" in readme


def test_judging_on_the_test_images_trains_on_all_others_and_says_what_that_means(tmp_path):
    data = make_folder(tmp_path / "data", ("train", "test"), each=5)
    train_on(data, tmp_path / "run", data__evaluate_on="test", epochs=2)
    assert len(Record.load(tmp_path / "run" / "images.npz").parts["train"]) == 15
    readme = " ".join((tmp_path / "run" / "README.md").read_text().split())
    assert "The best epoch was chosen on these test images" in readme
    said = str(evaluated(tmp_path / "run").overlap)
    assert "the best epoch was chosen on them, so the figure leans upwards" in said
    loaded = Checkpoint.load(tmp_path / "run" / "last.safetensors")
    assert loaded.trained_on.judged_on == "test"


def test_a_set_without_test_images_cannot_be_judged_on_them(tmp_path):
    data = make_folder(tmp_path / "data", each=4)
    with pytest.raises(RecipeError, match=r"data\.evaluate_on=validation"):
        train_on(data, tmp_path / "run", data__evaluate_on="test")
    with pytest.raises(RecipeError, match="nothing to judge an epoch on"):
        train_on(data, tmp_path / "run", data__validation_fraction=0)
    assert not (tmp_path / "run").exists()

"""`densepath evaluate` as a user meets it, on folders of small images."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from fixtures.networks import LABELS, checkpoint_of, new_network


@pytest.fixture(scope="module")
def model():
    """The network of `weights`."""
    return new_network()


def make_folder(root, classes, images_each=3):
    """A folder a class with noise of different lightness."""
    generator = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(images_each):
            noise = generator.integers(0, 80 * (i + 1), (36, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def photos(tmp_path):
    return make_folder(tmp_path / "photos", LABELS)


def test_the_report_is_one_json_object_and_its_counts_agree(run, weights, photos):
    code, out, _ = run("evaluate", weights, "--data", photos, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["images"] == 9
    assert [row["support"] for row in report["per_class"]] == [3, 3, 3]
    recalls = [row["recall"] for row in report["per_class"]]
    assert report["top1"] == pytest.approx(sum(recalls) / 3)
    assert len(report["mistakes"]) == round(9 * (1 - report["top1"]))


def test_the_figures_are_those_of_the_network_itself(run, model, weights, photos):
    _, out, _ = run("evaluate", weights, "--data", photos, "--json")
    files = sorted(photos.rglob("*.png"))
    from densepath.images.preprocess import Preprocess

    inputs = [Preprocess((32, 32))(np.asarray(Image.open(file))) for file in files]
    with torch.inference_mode():
        logits = model(torch.from_numpy(np.stack(inputs)))
    targets = torch.tensor([LABELS.index(file.parent.name) for file in files])
    report = json.loads(out)
    assert report["top1"] == pytest.approx((logits.argmax(1) == targets).float().mean().item())
    loss = torch.nn.functional.cross_entropy(logits, targets).item()
    assert report["loss"] == pytest.approx(loss, rel=1e-5)


def test_the_output_folder_has_tables_pictures_and_a_readme_that_names_them(
    run, weights, photos, tmp_path
):
    folder = tmp_path / "report"
    code, out, err = run("evaluate", weights, "--data", photos, "--output", folder)
    assert code == 0
    assert "top1" in out
    assert str(folder) in err
    names = {path.name for path in folder.iterdir()}
    pictures = {"confusion.png", "mistakes.png", "per_class.png", "reliability.png"}
    pictures |= {"roc.png", "precision_recall.png"}
    tables = {"report.json", "README.md", "per_class.csv", "confusion.csv"}
    assert names == tables | pictures
    for name in pictures:
        assert f"({name})" in (folder / "README.md").read_text(encoding="utf-8")
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 400
    rows = list(csv.DictReader(io.StringIO((folder / "confusion.csv").read_text())))
    assert [row["true"] for row in rows] == LABELS
    assert sum(int(row[label]) for row in rows for label in LABELS) == 9


def test_a_missing_class_folder_is_refused_by_name(run, weights, tmp_path):
    folder = make_folder(tmp_path / "less", ["ant", "cat"])
    code, out, err = run("evaluate", weights, "--data", folder)
    assert (code, out) == (1, "")
    assert "lacks 'bee'" in err


def test_a_missing_class_folder_that_is_allowed_changes_no_other_class(
    run, weights, photos, tmp_path
):
    less = tmp_path / "less"
    less.mkdir()
    for name in ("ant", "cat"):
        (less / name).symlink_to(photos / name)
    _, whole, _ = run("evaluate", weights, "--data", photos, "--json")
    options = ("--missing-classes", "allow", "--json")
    code, part, _ = run("evaluate", weights, "--data", less, *options)
    assert code == 0
    whole, part = (json.loads(text)["per_class"] for text in (whole, part))
    assert [row["recall"] for row in part] == [whole[0]["recall"], None, whole[2]["recall"]]


def test_an_unknown_class_folder_is_refused_by_name(run, weights, tmp_path):
    folder = make_folder(tmp_path / "more", [*LABELS, "dog"])
    code, _, err = run("evaluate", weights, "--data", folder)
    assert code == 1
    assert "does not know 'dog'" in err


def test_a_broken_image_stops_the_evaluation_unless_it_may_be_skipped(run, weights, photos):
    (photos / "bee" / "1.png").write_bytes(b"")
    code, _, err = run("evaluate", weights, "--data", photos)
    assert code == 1
    assert "1.png: the file is empty" in err
    code, out, err = run("evaluate", weights, "--data", photos, "--on-error", "skip", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["images"] == 8
    assert report["skipped"] == [
        {"path": str(photos / "bee" / "1.png"), "error": "the file is empty"}
    ]
    assert "could not be read" in err


def test_another_size_crop_and_pooling_are_used_and_reported(run, weights, photos):
    options = ("--size", 48, "--crop-pct", 0.75, "--test-pooling", "mean-max", "--json")
    _, plain, _ = run("evaluate", weights, "--data", photos, "--json")
    code, out, _ = run("evaluate", weights, "--data", photos, *options)
    assert code == 0
    report = json.loads(out)
    assert report["settings"]["size"] == [48, 48]
    assert report["settings"]["resize_short"] == 64
    assert report["settings"]["test_pooling"] == "mean_max"
    assert report["loss"] != json.loads(plain)["loss"]


def test_a_multi_label_network_gets_multi_label_figures(run, model, photos, tmp_path):
    weights = tmp_path / "multi.safetensors"
    checkpoint_of(model, labels=LABELS, multi_label=True).save(weights)
    table = tmp_path / "table.csv"
    lines = ["path,ant,bee,cat", "photos/ant/0.png,1,1,0", "photos/bee/0.png,0,1,0"]
    lines += ["photos/cat/0.png,0,0,1", "photos/cat/1.png,1,0,0"]
    table.write_text("\n".join(lines) + "\n")
    folder = tmp_path / "report"
    options = ("--threshold", 0.3, "--json", "--output", folder)
    code, out, _ = run("evaluate", weights, "--data", table, *options)
    assert code == 0
    report = json.loads(out)
    assert report["threshold"] == 0.3
    assert {"macro_auroc", "mean_average_precision", "micro_f1"} <= set(report)
    assert [row["support"] for row in report["per_class"]] == [2, 2, 1]
    assert not (folder / "confusion.csv").exists()
    assert "auroc" in (folder / "per_class.csv").read_text().splitlines()[0]


def test_one_label_an_image_and_several_are_not_mixed_up(run, model, photos, tmp_path):
    weights = tmp_path / "multi.safetensors"
    checkpoint_of(model, labels=LABELS, multi_label=True).save(weights)
    code, _, err = run("evaluate", weights, "--data", photos)
    assert code == 1
    assert "one label an image; the checkpoint was trained for several" in err


def test_a_table_without_an_image_of_two_labels_is_read_as_the_network_needs_it(
    run, model, photos, tmp_path
):
    weights = tmp_path / "multi.safetensors"
    checkpoint_of(model, labels=LABELS, multi_label=True).save(weights)
    table = tmp_path / "table.csv"
    lines = [
        "file_name,kind",
        *(f"photos/{name}/{i}.png,{name}" for name in LABELS for i in (0, 1)),
    ]
    table.write_text("\n".join(lines) + "\n")
    columns = ("--path-column", "file_name", "--label-column", "kind")
    code, out, err = run("evaluate", weights, "--data", table, *columns, "--json")
    assert code == 0, err
    assert [row["support"] for row in json.loads(out)["per_class"]] == [2, 2, 2]
    assert "micro_f1" in json.loads(out)
    # Likewise a list; a file that stands in it twice has both classes.
    entries = [f"photos/{name}/{i}.png {n}" for n, name in enumerate(LABELS) for i in (0, 1)]
    (tmp_path / "list.txt").write_text("\n".join([*entries, f"photos/{LABELS[0]}/0.png 1"]))
    (tmp_path / "label_list.txt").write_text("\n".join(LABELS))
    code, out, err = run("evaluate", weights, "--data", tmp_path / "list.txt", "--json")
    assert code == 0, err
    assert [row["support"] for row in json.loads(out)["per_class"]] == [2, 3, 2]


def test_the_first_line_says_whether_the_images_were_trained_on(run, weights, photos):
    code, out, _ = run("evaluate", weights, "--data", photos)
    assert code == 0
    assert out.splitlines()[0] == (
        "it is not known whether the 9 images were trained on: its weights do not say what they "
        "were trained on."
    )


def test_without_data_a_checkpoint_of_another_origin_asks_for_them(run, weights):
    code, out, err = run("evaluate", weights)
    assert (code, out) == (2, "")
    assert "--data SOURCE" in err


def test_an_impossible_threshold_is_a_usage_error(run, weights, photos):
    code, _, err = run("evaluate", weights, "--data", photos, "--threshold", 1.5)
    assert code == 2
    assert "between 0 and 1" in err


STRANGE = ["$x^$", "[bold]a\\b[", "|`<b>"]


def test_classes_with_any_name_are_in_tables_pictures_and_readme_as_they_stand(
    run, model, tmp_path
):
    """`$x^$` is no formula, `[bold]` no markup and `|` no new column."""
    path = tmp_path / "strange.safetensors"
    checkpoint_of(model, labels=STRANGE).save(path)
    photos = make_folder(tmp_path / "$photos^$", STRANGE)
    folder = tmp_path / "$report^$"
    code, out, err = run("evaluate", path, "--data", photos, "--output", folder)
    assert code == 0
    for name in STRANGE:
        assert name in out
    assert "top5" not in out
    assert err.endswith(f" report, tables and pictures in {folder}")
    pictures = {"confusion.png", "mistakes.png", "per_class.png", "reliability.png"}
    pictures |= {"roc.png", "precision_recall.png"}
    assert {path.name for path in folder.glob("*.png")} == pictures
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "\\[bold\\]a\\\\b\\[" in text
    assert "&lt;b&gt;" in text


def test_names_of_classes_are_no_markup_and_no_emoji(run, model, tmp_path):
    strange = [":cat:", "x[/]y", "\x1b[31mred"]
    path = tmp_path / "strange.safetensors"
    checkpoint_of(model, labels=strange).save(path)
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 1\nc.png 2\n")
    for number, name in enumerate("abc"):
        Image.new("RGB", (32, 32), (80 * number, 9, 9)).save(tmp_path / f"{name}.png")
    code, out, _ = run("evaluate", path, "--data", tmp_path / "list.txt")
    assert code == 0
    assert ":cat:" in out
    assert "x[/]y" in out
    assert "\x1b" not in out


def test_pictures_that_cannot_be_drawn_are_a_note_and_all_else_is_there(
    run, weights, photos, tmp_path, monkeypatch
):
    from matplotlib.figure import Figure

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    folder = tmp_path / "report"
    code, out, err = run("evaluate", weights, "--data", photos, "--output", folder)
    assert code == 0
    assert "top1" in out
    assert "confusion.png: No space left on device" in err
    assert "Traceback" not in err
    names = {path.name for path in folder.iterdir()}
    assert names == {"report.json", "README.md", "per_class.csv", "confusion.csv"}
    assert ".png" not in (folder / "README.md").read_text(encoding="utf-8")
    assert err.endswith(f"report and tables in {folder}, without pictures")


def test_pictures_of_which_one_fails_are_counted(run, weights, photos, tmp_path):
    folder = tmp_path / "report"
    (folder / "confusion.png").mkdir(parents=True)
    code, _, err = run("evaluate", weights, "--data", photos, "--output", folder)
    assert code == 0
    assert err.endswith(f"report, tables and 5 of 6 pictures in {folder}")

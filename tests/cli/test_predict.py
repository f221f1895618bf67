"""`densepath predict` as a user meets it: names in, answers out, exit codes."""

from __future__ import annotations

import base64
import csv
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
from PIL import Image

from densepath.images.preprocess import Preprocess
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import LABELS, new_network


@pytest.fixture
def photos(tmp_path):
    """Two images, a text file and a hidden image in a folder, and one image below it."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for name in ("b.png", "a.jpg", ".hidden.png", "more/c.png"):
        Image.fromarray(noise).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_is_answered_in_the_order_of_its_names_without_hidden_and_other_files(
    run, weights, photos
):
    code, out, err = run("predict", weights, photos, "--json")
    assert code == 0
    answers = objects(out)
    names = ["a.jpg", "b.png", "more/c.png"]
    assert [a["path"] for a in answers] == [str(photos / name) for name in names]
    for found in answers:
        assert list(found) == ["path", "class_ids", "labels", "scores"]
        assert found["labels"] == [LABELS[i] for i in found["class_ids"]]
        assert sum(found["scores"]) == pytest.approx(1, abs=1e-5)
        assert found["scores"] == sorted(found["scores"], reverse=True)
    assert "3 answered" in err


def test_an_unreadable_file_is_answered_with_its_error_and_the_rest_goes_on(run, weights, photos):
    broken = photos / "aa.png"
    broken.write_bytes(b"")
    code, out, err = run("predict", weights, photos, "--json")
    assert code == 0
    assert objects(out)[1] == {"path": str(broken), "error": "the file is empty"}
    assert f"could not be read: {broken}" in err
    assert "1 could not be read" in err


def test_on_error_fail_stops_at_the_first_unreadable_file_with_exit_code_1(
    run, weights, photos, tmp_path
):
    (photos / "aa.png").write_bytes(b"")
    target = tmp_path / "answers.json"
    code, out, err = run("predict", weights, photos, "--on-error", "fail", "--output", target)
    assert code == 1
    assert "the file is empty" in err
    assert out == ""
    assert not target.exists()


def test_nothing_readable_is_exit_code_1(run, weights, tmp_path):
    code, out, err = run("predict", weights, tmp_path / "none.png", "--json")
    assert code == 1
    assert "no such file" in objects(out)[0]["error"]
    assert "no image was answered" in err


def test_names_on_standard_input_and_globs_are_taken(run, weights, photos):
    lines = f"{photos / 'b.png'}\n\n{photos / 'more'}\n"
    code, out, _ = run("predict", weights, "-", photos / "*.jpg", "--json", stdin=lines)
    assert code == 0
    names = ["b.png", "more/c.png", "a.jpg"]
    assert [a["path"] for a in objects(out)] == [str(photos / name) for name in names]


def test_what_a_folder_has_besides_images_is_counted_and_named_on_standard_error(
    run, weights, photos
):
    for name in ("x.cr2", "y.cr2", "more/z.NEF", "labels.csv", "more/page.pdf"):
        (photos / name).write_bytes(b"x")
    code, out, err = run("predict", weights, photos, "--json")
    assert code == 0
    assert len(objects(out)) == 3
    assert "passed over: 3 raw photos (2 .cr2, 1 .nef): save them as JPEG or PNG" in err
    assert "1 picture of a kind that is not read (1 .pdf)" in err
    assert "2 files that are no images (1 .csv, 1 .txt)" in err


def test_a_folder_of_images_alone_has_nothing_said_of_it(run, weights, photos):
    (photos / "notes.txt").unlink()
    _, _, err = run("predict", weights, photos, "--json")
    assert "passed over" not in err


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_a_name_that_is_not_utf8_is_answered_in_every_form_by_folder_list_and_pattern(
    form, weights, photos, tmp_path
):
    odd = os.fsencode(photos) + b"/caf\xe9 \xff.png"
    shutil.copy(photos / "b.png", odd)
    command = [sys.executable, "-m", "densepath", "predict", weights, "--format", form]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    target = tmp_path / "answers.txt"
    for output in ((), ("--output", target)):
        done = subprocess.run(
            [*command, photos, odd, "-", *output],
            input=odd + b"\n",
            capture_output=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers = (target.read_bytes() if output else done.stdout).decode("utf-8")
        assert answers.replace("\\\\", "\\").count("caf\\xe9 \\xff.png") == 3
        if form == "json":
            named = [one["path_base64"] for one in objects(answers) if "path_base64" in one]
            assert [base64.b64decode(name) for name in named] == [odd] * 3


def test_a_network_of_four_channels_says_what_takes_its_images(run, photos, tmp_path):
    path = tmp_path / "four.safetensors"
    model = new_network(in_channels=4)
    preprocess = Preprocess((32, 32), mean=(0.5,) * 4, std=(0.5,) * 4)
    Checkpoint.of(model, preprocess=preprocess, labels=LABELS).save(path)
    code, out, _ = run("predict", path, photos)
    assert code == 1
    assert "the network takes 4; give it a TIFF with a page for each, or an .npy array" in out


def test_a_folder_without_images_says_what_an_image_is(run, weights, tmp_path):
    code, _, err = run("predict", weights, tmp_path)
    assert code == 1
    assert "no images in this folder" in err
    assert ".jpeg" in err


def test_a_pattern_that_matches_nothing_is_an_error(run, weights, tmp_path):
    code, _, err = run("predict", weights, tmp_path / "*.jpg")
    assert code == 1
    assert "nothing matches this pattern" in err


def test_csv_goes_to_a_file_whole_and_by_its_suffix(run, weights, photos, tmp_path):
    target = tmp_path / "answers.csv"
    code, out, _ = run("predict", weights, photos, "--output", target, "--top-k", 1)
    assert (code, out) == (0, "")
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8"))))
    assert len(rows) == 3
    assert list(rows[0]) == ["path", "error", "class_id_1", "label_1", "score_1"]
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_the_table_is_the_default(run, weights, photos):
    code, out, _ = run("predict", weights, photos / "a.jpg", "--top-k", 2)
    assert code == 0
    assert len(out.splitlines()) == 3
    assert out.splitlines()[1].endswith("a.jpg")


def test_two_formats_at_once_are_a_usage_error(run, weights, photos):
    code, _, err = run("predict", weights, photos, "--json", "--csv")
    assert code == 2
    assert "not csv and json" in err


def test_pictures_of_the_grounds_have_names_that_are_safe_and_never_collide(
    run, weights, photos, tmp_path
):
    for name in ("more/a.jpg", "naïve ..name.png"):
        (photos / name).write_bytes((photos / "a.jpg").read_bytes())
    (photos / "z.png").write_bytes(b"")
    folder = tmp_path / "grounds"
    code, out, _ = run("predict", weights, photos, "--explain", folder, "--json")
    assert code == 0
    assert len(objects(out)) == 6
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "000000-a.png",
        "000001-b.png",
        "000002-a.png",
        "000003-c.png",
        "000004-na_ve_name.png",
    ]
    with Image.open(folder / names[0]) as picture:
        assert picture.width > 2 * picture.height * 0.8


@pytest.mark.parametrize("target", ["cat", "CAT", "2"])
def test_a_class_can_be_chosen_to_be_explained(run, weights, photos, tmp_path, target):
    folder = tmp_path / "grounds"
    chosen = ("--explain", folder, "--target", target)
    code, out, err = run("predict", weights, photos, "--json", *chosen)
    assert code == 0
    assert len(objects(out)) == len(list(folder.iterdir())) == 3
    assert f"3 pictures in {folder}" in err
    _, plain, _ = run("predict", weights, photos, "--json")
    assert [one["class_ids"] for one in objects(plain)] == [o["class_ids"] for o in objects(out)]


@pytest.mark.parametrize(
    ("target", "message"),
    [("cta", "Did you mean cat?"), ("7", "numbered from 0 to 2"), ("", "unknown class ''")],
)
def test_a_class_that_is_not_there_is_refused_before_anything_is_answered(
    run, weights, photos, tmp_path, target, message
):
    chosen = ("--explain", tmp_path / "g", "--target", target)
    code, out, err = run("predict", weights, photos, *chosen)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "g").exists()


def test_a_class_to_explain_without_a_folder_is_refused(run, weights, photos):
    code, out, err = run("predict", weights, photos, "--target", "cat")
    assert (code, out) == (2, "")
    assert "--explain DIR" in err


def test_answers_outlive_their_pictures(run, weights, photos, tmp_path):
    """None can be written: all is answered, the first reason is said, and the exit code tells."""
    (tmp_path / "file").write_text("x")
    code, out, err = run("predict", weights, photos, "--json", "--explain", tmp_path / "file" / "g")
    assert code == 1
    assert len(objects(out)) == 3
    assert err.count("no picture") == 1
    assert "none of the 3 pictures could be made" in err


def test_some_pictures_that_fail_are_counted(run, weights, photos, tmp_path):
    folder = tmp_path / "grounds"
    (folder / "000001-b.png").mkdir(parents=True)
    code, out, err = run("predict", weights, photos, "--json", "--explain", folder)
    assert code == 0
    assert len(objects(out)) == 3
    assert "000001-b.png: Is a directory" in err
    assert "2 pictures" in err
    assert "1 could not be made" in err


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_an_image_with_a_name_that_is_no_text_has_its_picture(run, weights, photos, tmp_path):
    name = os.fsdecode(b"\xff\n$^.jpg")
    (photos / name).write_bytes((photos / "a.jpg").read_bytes())
    folder = tmp_path / "grounds"
    code, out, _ = run("predict", weights, photos, "--json", "--explain", folder)
    assert code == 0
    assert len(objects(out)) == len(list(folder.iterdir())) == 4


def test_explaining_changes_no_answer(run, weights, photos, tmp_path):
    _, plain, _ = run("predict", weights, photos, "--json")
    _, explained, _ = run("predict", weights, photos, "--json", "--explain", tmp_path / "e")
    for one, other in zip(objects(plain), objects(explained), strict=True):
        assert one["class_ids"] == other["class_ids"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_another_size_and_pooling_are_used(run, weights, photos):
    _, plain, _ = run("predict", weights, photos / "a.jpg", "--json")
    options = ("--size", 64, "--test-pooling", "mean-max", "--json")
    code, other, _ = run("predict", weights, photos / "a.jpg", *options)
    assert code == 0
    assert objects(plain)[0]["scores"] != objects(other)[0]["scores"]


def test_an_unknown_device_is_a_usage_error_with_the_choices(run, weights, photos):
    code, _, err = run("predict", weights, photos, "--device", "tpu")
    assert code == 2
    assert "Choices: auto, cpu" in err


def test_an_unknown_subject_is_a_usage_error(run, photos):
    code, _, err = run("predict", "densnet121", photos)
    assert code == 2
    assert "densenet121" in err


@pytest.fixture
def address(photos):
    """The photos by http on this machine."""
    handler = partial(_Quiet, directory=str(photos))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""

    def do_GET(self):
        if self.path == "/away.png":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/a.png")
            self.end_headers()
        else:
            super().do_GET()


def test_urls_are_refused_unless_asked_for(run, weights, address):
    code, out, err = run("predict", weights, f"{address}/a.jpg")
    assert (code, out) == (2, "")
    assert "--allow-urls" in err


def test_urls_in_a_list_are_answered_with_their_refusal(run, weights, photos, address):
    lines = f"{address}/a.jpg\n{photos / 'a.jpg'}\n"
    code, out, _ = run("predict", weights, "-", "--json", stdin=lines)
    assert code == 0
    assert ["error" in found for found in objects(out)] == [True, False]


def test_urls_that_are_asked_for_are_downloaded_and_failures_named(run, weights, address):
    names = [f"{address}/{name}" for name in ("a.jpg", "none.png", "notes.txt", "away.png")]
    code, out, _ = run("predict", weights, *names, "--allow-urls", "--json")
    assert code == 0
    good, missing, text, away = objects(out)
    assert good["path"] == names[0]
    assert "404" in missing["error"]
    assert "not an image" in text["error"]
    assert "not http" in away["error"]


def test_a_download_over_the_bound_is_given_up(run, weights, address, monkeypatch):
    monkeypatch.setattr("densepath.images.download.MOST_BYTES", 100)
    code, out, _ = run("predict", weights, f"{address}/a.jpg", "--allow-urls", "--json")
    assert code == 1
    assert "MiB that are downloaded" in objects(out)[0]["error"]


@pytest.mark.parametrize("form", [(), ("--json",), ("--csv",)])
@pytest.mark.parametrize("terminal", [True, False])
def test_what_cannot_be_read_is_named_once_for_a_person(
    run, weights, photos, monkeypatch, terminal, form
):
    """On a terminal the answers show it; elsewhere standard error does, for they may be a file."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    names = ("missing.jpg", "gone.png")
    code, out, err = run("predict", weights, photos / "b.png", *names, *form)
    assert code == 0
    for name in names:
        assert out.count(name) == 1
        assert err.count(name) == (0 if terminal else 1)
    assert "3 images" in err
    assert err.rstrip().endswith("1 answered; 2 could not be read")


def test_one_image_is_one_image(run, weights, photos):
    _, _, err = run("predict", weights, photos / "b.png")
    assert "1 image, " in err

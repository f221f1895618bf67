"""Files of more than 8 bits, from a look at them to answers: the verbs that read images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image as Pillow

from densepath.images.find import find_images
from densepath.images.image_files import PassedOver
from densepath.images.intensity import Intensity
from densepath.images.preprocess import Preprocess
from densepath.weights.checkpoint import Checkpoint
from fixtures.bundles import flowers
from fixtures.deep_files import dicom, needs_pydicom, npy, tiff


def scans(folder, levels=(("healthy", 900), ("ill", 1600)), count=6, write=None):
    """Two classes of 12-bit images that differ in what their upper 8 bits hardly tell."""
    rng = np.random.default_rng(0)
    for label, level in levels:
        (folder / label).mkdir(parents=True)
        for i in range(count):
            values = np.clip(rng.normal(level, 300, (32, 32)), 0, 4095).astype(np.uint16)
            path = folder / label / f"{i}.png"
            if write is None:
                Pillow.fromarray(values).save(path)
            else:
                suffix, encode = write
                path.with_suffix(suffix).write_bytes(encode(values))
    return folder


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    """The program, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run


def test_data_inspect_says_the_bits_and_suggests_a_setting(run, tmp_path):
    scans(tmp_path / "xrays")
    code, out, _ = run("data", "inspect", "xrays")
    assert code == 0
    said = " ".join(out.split())
    assert "of 11 images looked at, 11 with more than 8 bits (11 × a PNG image of 16 bits" in said
    assert "which values count: preprocess.intensity=range:0,4095." in said
    code, out, _ = run("data", "inspect", "xrays", "--json")
    found = json.loads(out)
    assert found["suggested_intensity"] == "range:0,4095"
    assert found["more_than_8_bits"][0]["count"] == 11


@needs_pydicom
def test_a_folder_of_dicom_files_alone_is_looked_at_by_a_setting(run, tmp_path):
    scans(tmp_path / "cts", write=(".DCM", lambda values: dicom(values, intercept="-1024")))
    code, _, err = run("data", "inspect", "cts")
    assert code == 1
    assert "12 DICOM files (12 .dcm): networks that have the setting intensity read them" in err
    code, out, _ = run("data", "inspect", "cts", "--intensity", "file")
    assert code == 0
    said = " ".join(out.split())
    assert "values -1,024 to" in said
    assert "They are read by the intensity file." in said
    code, _, err = run("data", "inspect", "cts", "--intensity", "fil")
    assert code == 2
    assert "Did you mean file?" in err


def test_arrays_and_dicom_are_images_of_a_folder_for_those_who_read_them_only(tmp_path):
    for name in ("a.png", "b.npy", "c.DCM", "d.dicom", "e.txt"):
        (tmp_path / name).write_bytes(b"x")
    passed_over = PassedOver()
    assert list(find_images([str(tmp_path)], passed_over=passed_over)) == [str(tmp_path / "a.png")]
    assert "2 DICOM files (1 .dcm, 1 .dicom)" in str(passed_over)
    found = find_images([str(tmp_path)], values=True)
    assert [str(name)[-5:] for name in found] == ["a.png", "b.npy", "c.DCM", "dicom"]


@needs_pydicom
def test_predict_reads_a_folder_of_mixed_files_by_their_values(run, tmp_path):
    gray = Preprocess((32, 32), mean=(0.5,), std=(0.2,), intensity=Intensity.parse("range:0,4095"))
    flowers(gray).save("ct.safetensors")
    values = np.random.default_rng(0).integers(0, 4096, (40, 40), np.uint16)
    folder = tmp_path / "mixed"
    folder.mkdir()
    Pillow.fromarray(values).save(folder / "a.png")
    (folder / "b.npy").write_bytes(npy(values))
    (folder / "c.DCM").write_bytes(dicom(values))
    (folder / "d.tif").write_bytes(tiff([values]))
    Pillow.new("L", (40, 40), 99).save(folder / "e.jpg")
    code, out, _ = run("predict", "ct.safetensors", "mixed", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(rows) == 5
    assert rows[0]["scores"] == rows[1]["scores"] == rows[2]["scores"] == rows[3]["scores"]
    assert "for files of measured values" in rows[4]["error"]


def test_networks_without_the_setting_pass_arrays_over_as_ever(run, tmp_path):
    flowers().save("plain.safetensors")
    folder = tmp_path / "photos"
    folder.mkdir()
    Pillow.new("RGB", (40, 40)).save(folder / "a.png")
    np.save(folder / "features.npy", np.zeros((40, 40, 3), np.uint8))
    code, out, err = run("predict", "plain.safetensors", "photos", "--json")
    assert (code, len(out.splitlines())) == (0, 1)
    assert "1 file that is no image (1 .npy)" in err


def test_predict_reads_pages_as_channels(run, tmp_path):
    flowers(Preprocess((32, 32), mean=(0.5,) * 5, std=(0.2,) * 5)).save("five.safetensors")
    pages = [np.full((40, 40), 40 * i, np.uint8) for i in range(5)]
    (tmp_path / "stack.tif").write_bytes(tiff(pages))
    (tmp_path / "stack.npy").write_bytes(npy(np.stack(pages)))
    code, out, _ = run("predict", "five.safetensors", "stack.tif", "stack.npy", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert rows[0]["scores"] == rows[1]["scores"]


@pytest.mark.slow
def test_a_training_s_setting_goes_with_its_weights_through_every_verb(run, tmp_path):
    scans(tmp_path / "xrays", count=12)
    code, _, err = run(
        "train", "recipe:digits", "--data", "xrays", "--epochs", 1, "--output", "runs/xrays",
        "--set", "data.channels=1", "--set", "preprocess.intensity=range:0,4095",
        "--set", "data.batch_size=8", "--set", "schedule.name=cosine",
    )  # fmt: skip
    assert code == 0, err
    best = Checkpoint.load(tmp_path / "runs" / "xrays" / "best.safetensors")
    assert best.preprocess.intensity == Intensity.parse("range:0,4095")
    code, _, err = run("evaluate", "runs/xrays", "--output", "report")
    assert code == 0, err
    quantize = ("quantize", "runs/xrays", "--data", "xrays", "--to", "native", "-o", "bundles/int8")
    code, _, err = run(*quantize)
    assert code == 0, err
    answers = []
    for subject in ("runs/xrays", "bundles/int8"):
        code, out, err = run("predict", subject, "xrays/ill/0.png", "--json")
        assert code == 0, err
        answers.append(json.loads(out)["scores"])
    np.testing.assert_allclose(*answers, atol=0.2)
    (tmp_path / "deep.npy").write_bytes(
        npy(np.asarray(Pillow.open(tmp_path / "xrays" / "ill" / "0.png")).astype(np.uint16))
    )
    code, out, _ = run("predict", "runs/xrays", "deep.npy", "--json")
    assert json.loads(out)["scores"] == answers[0]

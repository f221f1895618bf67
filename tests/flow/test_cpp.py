"""The C++ program from end to end: the same answers and errors as `densepath predict`."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from densepath.errors import ImageError
from densepath.images.decode import open_image
from densepath.images.find import find_images
from densepath.images.image_files import PassedOver
from densepath.predict.answers import Prediction, write_json_lines

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DENSEPATH = Path(sys.executable).with_name("densepath")
PHOTOS = Path(sklearn.datasets.__file__).parent / "images"
STRANGE = ROOT / "tests" / "images" / "test_decode_strange_images.py"
# Kinds that this program leaves to Python.
ELSEWHERE = "a kind that this program does not read"
FORMATS = {"native": "torch", "openvino": "openvino", "onnxruntime": "onnx"}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """The trained network for 32 × 32 pixels that ships with densepath, exported."""
    folder = tmp_path_factory.mktemp("bundles") / "small"
    run = run_program(
        DENSEPATH,
        "export",
        "cifar10/densenet_bc_22_12",
        "-o",
        folder,
        "--to",
        "onnx,openvino,torch",
        "--batch-sizes",
        "4",
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """The strange and broken files of the decoder's test, and two photographs."""
    spec = importlib.util.spec_from_file_location("strange", STRANGE)
    assert spec is not None
    assert spec.loader is not None
    strange = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(strange)
    folder = tmp_path_factory.mktemp("images")
    for table in (strange.READ, strange.REFUSED):
        for name, row in table.items():
            (folder / name).write_bytes(row[0])
    for photo in PHOTOS.glob("*.jpg"):
        shutil.copy(photo, folder)
    return folder


def run_program(program, *words, lines=None, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(os.fspath, words)],
        input=lines,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        **options,
    )


def answers(run: subprocess.CompletedProcess[str]) -> list[dict]:
    return [json.loads(line) for line in run.stdout.splitlines()]


def changed_copy(bundle: Path, folder: Path, change) -> Path:
    """A copy of the bundle with another manifest, whose hash is right again."""
    copy = Path(shutil.copytree(bundle, folder / "changed"))
    rewrite_manifest(copy, change)
    return copy


def rewrite_manifest(copy, change) -> None:
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    change(manifest)
    text = json.dumps(manifest).encode()
    (copy / "manifest.json").write_bytes(text)
    line = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n"
    (copy / "manifest.json.sha256").write_text(line, encoding="ascii")


def skip_without(cpp, backend):
    if backend not in cpp.backends:
        pytest.skip(f"the C++ program was built without {backend}: docs/cpp.md says what it needs")


@pytest.mark.parametrize("backend", FORMATS)
def test_answers_are_those_of_the_python_program(cpp, bundle, images, backend):
    skip_without(cpp, backend)
    options = ("--precision", "float32")  # else each its own: by the times of the bundle, or not
    words = ("--json", "--engine", backend, *options)
    python = run_program(DENSEPATH, "predict", bundle, images, *words)
    ours = run_program(cpp.predict, bundle, images, "--backend", backend, *options)
    assert ours.returncode == 0, ours.stderr
    compared = 0
    for expected, found in zip(answers(python), answers(ours), strict=True):
        assert list(found) == (
            ["path", "error"] if "error" in found else ["path", "class_ids", "labels", "scores"]
        )
        assert found["path"] == expected["path"]
        if ELSEWHERE in found.get("error", ""):
            continue
        assert found.get("labels") == expected.get("labels"), found["path"]
        assert found.get("class_ids") == expected.get("class_ids")
        assert found.get("scores", []) == pytest.approx(expected.get("scores", []), abs=1e-3)
        compared += 1
    assert compared > 60


PREPROCESS = {
    "bicubic": {"size": [32, 32], "resize_short": 36, "interpolation": "bicubic"},
    "as PaddleClas": {
        "size": [32, 32],
        "resize_short": 37,
        "interpolation": "cv2_bilinear",
        "side_rounding": "round",
        "crop_rounding": "floor",
    },
    "straight to an oblong": {"size": [33, 48], "resize_short": None},
    "an oblong crop": {"size": [48, 32], "resize_short": 33, "crop_rounding": "floor"},
}


@pytest.mark.parametrize("case", PREPROCESS)
def test_our_kernels_see_the_same_pixels_as_in_python(cpp, bundle, images, tmp_path, case):
    """Without a graph: what resizes is written in both languages."""
    skip_without(cpp, "native")

    def change(manifest):
        manifest["preprocess"].update(PREPROCESS[case])
        manifest["input"]["shape"] = [None, 3, *PREPROCESS[case]["size"]]

    copy = changed_copy(bundle, tmp_path, change)
    extreme = tmp_path / "extreme"
    extreme.mkdir()
    random = np.random.default_rng(0)
    # Larger than Pillow resizes whole; a box of it; enlarged; of the size already.
    for height, width in ((1, 9000), (5000, 2), (3, 3), (32, 32), (33, 48), (700, 41)):
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(extreme / f"{height}x{width}.png")
    words = [copy, images, extreme]
    python = answers(run_program(DENSEPATH, "predict", *words, "--json", "--engine", "native"))
    ours = answers(run_program(cpp.predict, *words, "--backend", "native"))
    compared = 0
    for expected, found in zip(python, ours, strict=True):
        if ELSEWHERE in found.get("error", ""):
            continue
        assert found.get("class_ids") == expected.get("class_ids"), found["path"]
        assert found.get("scores", []) == pytest.approx(expected.get("scores", []), abs=2e-6)
        compared += 1
    assert compared > 60


def test_scores_of_several_labels_are_those_of_the_python_program(cpp, bundle, tmp_path):
    copy = changed_copy(bundle, tmp_path, lambda manifest: manifest.update(multi_label=True))
    options = [copy, PHOTOS, "--top-k", "10", "--precision", "float32"]
    words = ["predict", *options, "--json", "--engine", "openvino"]
    python = answers(run_program(DENSEPATH, *words))
    ours = answers(run_program(cpp.predict, *options, "--backend", "openvino"))
    assert len(ours) == 2
    for expected, found in zip(python, ours, strict=True):
        assert found["class_ids"] == expected["class_ids"]
        assert found["scores"] == pytest.approx(expected["scores"], abs=1e-3)
        assert sum(found["scores"]) != pytest.approx(1, abs=0.05)


def test_thresholds_and_a_temperature_are_those_of_the_python_program(cpp, bundle, tmp_path):
    chosen = {"multi_label": True, "temperature": 1.7}

    def change(manifest):
        manifest.update(chosen, thresholds=[0.2, 0.5] + [0.05] * (len(manifest["labels"]) - 2))

    copy = changed_copy(bundle, tmp_path, change)
    python = answers(run_program(DENSEPATH, "predict", copy, PHOTOS, "--json", "--top-k", "1"))
    ours = answers(run_program(cpp.predict, copy, PHOTOS, "--top-k", "1"))
    assert len(ours) == 2
    for expected, found in zip(python, ours, strict=True):
        assert found["scores"] == pytest.approx(expected["scores"], abs=1e-3)
        assert len(found["class_ids"]) == 1
        assert found["positive_ids"] == expected["positive_ids"]
        assert found["positive_labels"] == expected["positive_labels"]
    assert any(len(found["positive_ids"]) > 1 for found in ours)


def test_a_file_is_refused_with_the_words_of_the_python_program(cpp, bundle, images):
    found = answers(run_program(cpp.predict, bundle, images))
    compared = 0
    for answer in found:
        if "error" not in answer or ELSEWHERE in answer["error"]:
            continue
        with pytest.raises(ImageError) as caught:
            open_image(answer["path"])
        assert answer["error"] == caught.value.reason.replace(
            ", GIF, WEBP, BMP, TIFF, PPM, AVIF, HEIF", ""
        )
        compared += 1
    assert compared > 20


def test_lines_are_those_of_python_whatever_a_name_holds(cpp, bundle, tmp_path):
    # Every character that a name may have and that Unicode 14 knows, beside plain ones; and
    # bytes that are no UTF-8.
    points = [
        *(p for p in range(1, 0x3400) if chr(p) not in "\r\n"),
        *range(0xA000, 0xA4D0),
        *range(0xE000, 0x10000),
        *range(0x10000, 0x14680, 7),
        0x110BD,
        0x110CD,
        0x13430,
        0x13438,
        0x1BCA0,
        0x1D173,
        0x1F600,
        0x20000,
        0xE0001,
        0xE007F,
        0xF0000,
        0x10FFFD,
    ]
    names = ["x" + chr(p) + "y" for p in points if unicodedata.category(chr(p)) != "Cn"]
    names = [n for n in names if not n.startswith("x/")]
    names += [os.fsdecode(n) for n in (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80")]
    names += [os.fsdecode(b"\xe2\x82"), 'a"b\\c', "https://no.where/x.jpg"]
    lines = "".join(f"{n}\n" for n in names).encode("utf-8", "surrogateescape")
    run = subprocess.run([cpp.predict, bundle, "-"], input=lines, capture_output=True, cwd=tmp_path)
    errors = ["no such file or directory"] * (len(names) - 1)
    errors.append("URLs are not downloaded by this program")
    expected = io.StringIO()
    failures = (Prediction.failed(n, e) for n, e in zip(names, errors, strict=True))
    write_json_lines(failures, expected, 5)
    assert run.stdout.decode() == expected.getvalue()
    assert run.returncode == 1
    assert f"no image was answered; {len(names):,} could not be read." in run.stderr.decode()


def test_folders_are_gone_through_as_in_python(cpp, bundle, tmp_path):
    for name in ("b.png", "a/z.JPG", "a/b/c.tif", "B.gif", "c.txt", ".hidden.png", "no suffix"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    for name in (".hidden/x.png", "a.png/y.png", "é/ü.jpeg", "~.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "link.png").symlink_to(tmp_path / "a", target_is_directory=True)
    run = run_program(cpp.predict, bundle, ".", f"{tmp_path}/a", cwd=tmp_path)
    previous = Path.cwd()
    os.chdir(tmp_path)
    try:
        expected = list(find_images([".", f"{tmp_path}/a"]))
    finally:
        os.chdir(previous)
    assert [answer["path"] for answer in answers(run)] == expected


def test_what_folders_have_besides_images_is_said_in_pythons_words(cpp, bundle, tmp_path):
    names = [
        "a.png",
        "b.txt",
        "b.TXT ",
        "c.dng",
        "d/e.NEF",
        "f.svg",
        "no suffix",
        "g.tar.gz",
        "..h",
    ]
    names += ["Thumbs.db", "@eaDir/x.jpg", "lost+found/y.jpg", ".k.jpg", "Dr. Who", "é.ü", "l.a_b"]
    names += [f"{i}.x{i}" for i in range(9)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "link").symlink_to(tmp_path / "d", target_is_directory=True)
    passed_over = PassedOver()
    found = list(find_images([str(tmp_path)], passed_over=passed_over))
    run = run_program(cpp.predict, bundle, tmp_path)
    assert [answer["path"] for answer in answers(run)] == found
    assert str(passed_over) in run.stderr.splitlines()
    (tmp_path / "a.png").unlink()
    run = run_program(cpp.predict, bundle, tmp_path)
    assert f"{tmp_path}: no images in this folder; {passed_over}. Images have" in run.stderr


def test_heic_photos_are_passed_over_by_name_with_what_makes_them_readable(cpp, bundle, tmp_path):
    for name in ("a.HEIC", "b.heif", "c.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    run = run_program(cpp.predict, bundle, tmp_path)
    said = "passed over: 2 HEIC photos (1 .heic, 1 .heif): save them as JPEG to have them read"
    assert said in run.stderr.splitlines()


def test_a_folder_without_images_is_an_error(cpp, bundle, tmp_path):
    run = run_program(cpp.predict, bundle, tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    assert f"{tmp_path}: no images in this folder. Images have one of the suffixes" in run.stderr


def test_names_come_from_a_list_and_from_standard_input(cpp, bundle, images, tmp_path):
    names = ["baseline.jpg", "rgba.png", "", "empty.jpg", "baseline.jpg"]
    lines = "\r\n".join(str(images / n) if n else "" for n in names)
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    by_file = run_program(cpp.predict, bundle, "--list", tmp_path / "list.txt")
    by_input = run_program(cpp.predict, bundle, "-", lines=lines)
    by_option = run_program(cpp.predict, "--list=-", "--", bundle, lines=lines)
    assert by_file.stdout == by_input.stdout == by_option.stdout
    found = answers(by_file)
    assert [Path(answer["path"]).name for answer in found] == [n for n in names if n]
    assert found[0] == found[3]
    assert "error" in found[2]
    assert "could not be read: " in by_file.stderr
    assert "4 images, " in by_file.stderr
    assert "3 answered; 1 could not be read" in by_file.stderr


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_answers_do_not_depend_on_the_batch_or_the_threads(cpp, bundle, images, batch_size):
    usual = answers(run_program(cpp.predict, bundle, images, "--top-k", "3"))
    other = answers(
        run_program(
            cpp.predict,
            bundle,
            images,
            "--top-k=3",
            "--threads",
            "3",
            "--batch-size",
            str(batch_size),
        )
    )
    for one, two in zip(usual, other, strict=True):
        assert one.get("labels") == two.get("labels")
        assert len(one.get("labels", [1, 2, 3])) == 3
        assert one.get("scores", []) == pytest.approx(two.get("scores", []), abs=1e-5)
        assert one.get("error") == two.get("error")


def set_version(manifest):
    manifest["schema_version"] = 2


def set_format(manifest):
    manifest["format"] = "something-else"


def add_field(manifest):
    manifest["extra"] = 1


def drop_labels(manifest):
    del manifest["labels"]


def drop_a_label(manifest):
    manifest["labels"].pop()


def climb_out(manifest):
    manifest["formats"]["openvino"]["model"] = "../model.xml"


def spoil_type(manifest):
    manifest["multi_label"] = "no"


def list_no_files(manifest):
    manifest["files"] = {}


CHANGED = {
    "another version": (set_version, "its schema version is 2; this densepath reads version 1"),
    "another format": (set_format, "does not say that it describes a densepath-bundle"),
    "an unknown field": (add_field, "extra is a field that version 1 does not have"),
    "no labels": (drop_labels, "labels is missing"),
    "a label too few": (drop_a_label, "labels has 9 names for 10 logits"),
    "a file outside": (climb_out, 'is "../model.xml", not a plain name of a file'),
    "a wrong type": (spoil_type, "multi_label must be true or false"),
    "no files": (list_no_files, "files lacks model.xml, which the format openvino needs"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_manifest_that_is_wrong_is_refused(cpp, bundle, images, tmp_path, case):
    change, message = CHANGED[case]
    copy = changed_copy(bundle, tmp_path, change)
    run = run_program(cpp.predict, copy, images, "--backend", "openvino")
    assert (run.returncode, run.stdout) == (1, "")
    assert message in run.stderr


def append_byte(folder):
    with (folder / "model.bin").open("ab") as file:
        file.write(b"\0")


def flip_byte(folder):
    data = bytearray((folder / "model.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.bin").write_bytes(data)


def cut_weights(folder):
    data = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(data[: len(data) // 2])


def edit_manifest(folder):
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    (folder / "manifest.json").write_text(text + " ", encoding="utf-8")


def drop_hash(folder):
    (folder / "manifest.json.sha256").unlink()


def link_weights(folder):
    (folder / "model.bin").rename(folder / "elsewhere.bin")
    (folder / "model.bin").symlink_to("elsewhere.bin")


def no_json(folder):
    (folder / "manifest.json").write_bytes(b"[1, 2")
    line = f"{hashlib.sha256(b'[1, 2').hexdigest()}  manifest.json\n"
    (folder / "manifest.json.sha256").write_text(line, encoding="ascii")


DAMAGED = {
    "bytes added": (append_byte, " of the manifest; copy the bundle again"),
    "a byte changed": (flip_byte, "model.bin was changed: its sha256 is"),
    "weights cut off": (cut_weights, " of the manifest; copy the bundle again"),
    "weights missing": (lambda f: (f / "model.bin").unlink(), "model.bin is missing"),
    "weights linked": (link_weights, "model.bin is a link, not a file"),
    "graph missing": (lambda f: (f / "preprocess.xml").unlink(), "preprocess.xml is missing"),
    "manifest edited": (edit_manifest, "manifest.json was changed: its sha256 is"),
    "no hash": (drop_hash, "manifest.json.sha256 is missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
    "no JSON": (no_json, "is not a JSON object"),
    "nothing": (shutil.rmtree, "it is not a folder"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_bundle_is_refused(cpp, bundle, images, tmp_path, case):
    damage, message = DAMAGED[case]
    copy = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    damage(copy)
    run = run_program(cpp.predict, copy, images, "--backend", "openvino")
    assert (run.returncode, run.stdout) == (1, "")
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["manifest.json", "model.xml", "preprocess.xml"])
def test_a_file_of_a_bundle_is_answered_with_the_bundle(cpp, bundle, images, name):
    run = run_program(cpp.predict, bundle / name, images)
    assert (run.returncode, run.stdout) == (1, "")
    assert f"{bundle / name} is a file of the bundle {bundle}: name that folder." in run.stderr


def test_a_bundle_without_the_back_ends_format_says_what_it_has(cpp, bundle, images, tmp_path):
    def keep_aoti(manifest):
        manifest["formats"] = {"aoti": {"model": "model.pt2"}}

    copy = changed_copy(bundle, tmp_path, keep_aoti)
    by_name = run_program(cpp.predict, copy, images, "--backend", "openvino")
    by_itself = run_program(cpp.predict, copy, images)
    assert (by_name.returncode, by_itself.returncode) == (1, 1)
    assert "has no openvino format; it has aoti" in by_name.stderr
    assert "has no torch or openvino" in by_itself.stderr


def rewrite_checkpoint(folder, change):
    """The bundle's checkpoint with another header, the hashes right again."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    rest = change(header, data[8 + length :])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + rest)

    def list_it(manifest):
        made = path.read_bytes()
        manifest["files"][path.name].update(
            sha256=hashlib.sha256(made).hexdigest(), size_bytes=len(made)
        )

    rewrite_manifest(folder, list_it)


def set_arch(name, value):
    def change(header, rest):
        said = json.loads(header["__metadata__"]["densepath"])
        said["spec"]["arch"][name] = value
        header["__metadata__"]["densepath"] = json.dumps(said)
        return rest

    return change


def drop_tensor(header, rest):
    del header["features.norm5.bias"]
    return rest


def move_tensor(header, rest):
    header["features.norm5.bias"]["data_offsets"] = [len(rest) - 4, len(rest) + 4]
    return rest


def halve_type(header, rest):
    header["features.norm5.bias"]["dtype"] = "F16"
    return rest


def set_format(value):
    def change(header, rest):
        said = json.loads(header["__metadata__"]["densepath"])
        said["format"] = value
        header["__metadata__"]["densepath"] = json.dumps(said)
        return rest

    return change


CHECKPOINTS = {
    "a later format": (
        set_format(2),
        'format 2; this densepath reads formats 1 and "int8-1". Export it again, or use the',
    ),
    "a format that is none": (set_format(True), "is of checkpoint format true; this densepath"),
    "a later format of INT8": (set_format("int8-2"), 'is of checkpoint format "int8-2"; this'),
    "a tensor missing": (drop_tensor, "makes no network: it has no tensor features.norm5.bias"),
    "a tensor outside": (move_tensor, "features.norm5.bias lies outside the file"),
    "another type": (
        halve_type,
        "norm5.bias is of type F16, and only F32 and I8 are read",
    ),
    "weights cut off": (lambda _, rest: rest[:-100], "lies outside the file"),
    "impossible numbers": (set_arch("growth_rate", 0), "growth_rate is 0, which no network has"),
    "other numbers": (set_arch("growth_rate", 13), "numbers, and the network needs"),
    "no number": (set_arch("growth_rate", "x"), "is not a whole checkpoint"),
    "no blocks": (set_arch("blocks", []), "stages is 0, which no network has"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_checkpoint_that_is_wrong_is_refused(cpp, bundle, images, tmp_path, case):
    skip_without(cpp, "native")
    change, message = CHECKPOINTS[case]
    copy = Path(shutil.copytree(bundle, tmp_path / "changed"))
    rewrite_checkpoint(copy, change)
    run = run_program(cpp.predict, copy, images, "--backend", "native")
    assert (run.returncode, run.stdout) == (1, "")
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1


USAGE = {
    (): "no bundle is named",
    ("BUNDLE",): "no images are named",
    ("BUNDLE", "x.jpg", "--topk", "3"): "unknown option '--topk'. Choices: --backend, --batch-size",
    ("BUNDLE", "x.jpg", "--top-k"): "--top-k needs a value",
    ("BUNDLE", "x.jpg", "--top-k", "0"): "--top-k is '0'; it must be a whole number from 1",
    ("BUNDLE", "x.jpg", "--threads=-1"): "--threads is '-1'; it must be a whole number from 1",
    ("BUNDLE", "x.jpg", "--batch-size", "2.5"): "--batch-size is '2.5'; it must be a whole number",
    ("BUNDLE", "x.jpg", "--benchmark=yes"): "--benchmark takes no value",
    ("BUNDLE", "x.jpg", "--precision", "int4"): "Choices: auto, bfloat16, float32.",
    ("BUNDLE", "x.jpg", "--backend", "caffe"): "unknown back end 'caffe'. Choices: auto, ",
    ("BUNDLE", "x.jpg", "--backend", "onnxruntime", "--precision", "bfloat16"): (
        "computes in float32; the back ends native and openvino can"
    ),
    ("BUNDLE", "https://x.y/z.jpg"): "URLs are not downloaded by this program",
}


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_a_wrong_command_line_is_refused_with_what_would_be_right(cpp, bundle, words):
    if "onnxruntime" in words:
        skip_without(cpp, "onnxruntime")
    given = [str(bundle) if word == "BUNDLE" else word for word in words]
    run = run_program(cpp.predict, *given)
    assert (run.returncode, run.stdout) == (2, "")
    assert USAGE[words] in run.stderr


def test_help_names_every_option_and_the_page_does_too(cpp):
    text = run_program(cpp.predict, "--help").stdout
    page = (ROOT / "docs" / "cpp.md").read_text(encoding="utf-8")
    wrong = run_program(cpp.predict, "--nothing").stderr
    options = {word.strip(",.") for word in wrong.split("Choices:")[1].split()} - {"-h"}
    assert len(options) > 8
    assert [o for o in sorted(options) if o not in text or o not in page] == []


def test_the_benchmark_prints_latencies_and_a_rate(cpp, bundle, images):
    options = ("--benchmark", "--repeats", "3", "--precision", "float32")
    run = run_program(cpp.predict, bundle, PHOTOS, *options)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert [row["batch_size"] for row in report["latency_ms"]] == [1, 4, 8]
    for row in report["latency_ms"]:
        assert 0 < row["p10"] <= row["median"] <= row["p90"] <= row["p99"]
    assert report["images"] == report["answered"] == 2
    assert report["images_per_second"] > 0
    assert report["precision"] == "float32"
    refused = run_program(cpp.predict, bundle, images / "empty.jpg", "--benchmark")
    assert refused.returncode == 1
    assert "none of the images can be read" in refused.stderr


def test_ctrl_c_ends_the_program_with_a_word(cpp, bundle):
    # A list that never ends: the program waits for names.
    with subprocess.Popen(
        [cpp.predict, bundle, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        # Read ahead stops at a full batch, so that the first answer says that it is at work.
        process.stdin.write("".join(f"{i}.jpg\n" for i in range(64)))
        process.stdin.flush()
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == "interrupted"


def test_a_reader_that_goes_away_ends_the_program_quietly(cpp, bundle, images):
    options = "--batch-size 1 --precision float32"  # which leaves nothing to say
    command = f"'{cpp.predict}' '{bundle}' - {options} | head -n 1; echo ${{PIPESTATUS[0]}}"
    names = f"{images / 'baseline.jpg'}\n" * 300
    run = subprocess.run(
        ["bash", "-c", command], input=names, capture_output=True, text=True, check=True
    )
    first, code = run.stdout.splitlines()
    assert json.loads(first)["labels"]
    assert (code, run.stderr) == ("1", "")


@pytest.mark.parametrize("backend", ["native", "openvino"])
def test_where_no_thread_can_be_started_an_error_says_so(cpp, bundle, images, backend):
    skip_without(cpp, backend)
    # Stacks so large that a few fill the address space.
    limits = "ulimit -s 1000000 && ulimit -v 8000000"
    words = f"'{cpp.predict}' '{bundle}' '{images}' --threads 40 --backend {backend}"
    words += " --precision float32"  # which leaves nothing to say
    run = subprocess.run(["bash", "-c", f"{limits} && {words}"], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: ")
    assert "terminate" not in run.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_an_error(cpp, bundle, images):
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [cpp.predict, bundle, images / "baseline.jpg"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert run.returncode == 1
    assert "cannot write to standard output: no space left on device" in run.stderr


def test_the_example_uses_the_library(cpp, bundle, images):
    run = run_program(cpp.example, bundle, images / "baseline.jpg", images / "empty.jpg")
    first, second = run.stdout.splitlines()
    [expected] = answers(run_program(cpp.predict, bundle, images / "baseline.jpg"))
    assert first == f"{images / 'baseline.jpg'}: {expected['labels'][0]}"
    assert second == f"{images / 'empty.jpg'}: the file is empty"
    assert run_program(cpp.example, images).returncode == 1


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_the_example_of_the_page_compiles(tmp_path):
    page = (ROOT / "docs" / "cpp.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```cpp\n(.*?)```", page, re.DOTALL)
    (tmp_path / "example.cpp").write_text(example, encoding="utf-8")
    words = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    include = ROOT / "deploy" / "cpp" / "include"
    run = run_program("c++", *words, "-I", include, tmp_path / "example.cpp")
    assert run.returncode == 0, run.stderr


def test_an_image_of_one_line_and_one_of_many_pixels_are_answered(cpp, bundle, tmp_path):
    Image.fromarray(np.full((1, 20_000, 3), 90, np.uint8)).save(tmp_path / "line.png")
    Image.fromarray(np.full((3000, 4000, 3), 90, np.uint8)).save(tmp_path / "large.jpg")
    run = run_program(cpp.predict, bundle, tmp_path)
    assert [answer.get("error") for answer in answers(run)] == [None, None]

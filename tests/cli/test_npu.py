"""`densepath npu` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import pytest

from densepath.exporting.parity_images import write_photographs
from densepath.quantize.quantize import quantize

pytestmark = pytest.mark.npu


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A folder with `photos` and the INT8 bundle `int8`."""
    folder = tmp_path_factory.mktemp("stage")
    (folder / "photos").mkdir()
    write_photographs(folder / "photos")
    quantize(
        "cifar10/densenet_bc_22_12",
        folder / "int8",
        **{"data": folder / "photos", "num_images": 6, "purpose": "npu", "method": "minmax"},
    )
    return folder


@pytest.fixture
def run(run, monkeypatch, stage):
    """`densepath npu` in the stage."""
    monkeypatch.chdir(stage)
    return partial(run, "npu")


def test_targets_are_listed_and_say_whether_a_network_fits(run):
    code, out, _ = run("targets")
    assert code == 0
    assert len(out.splitlines()) == 12
    code, out, _ = run("targets", "int8", "--json")
    rows = json.loads(out)["targets"]
    assert {row["fits"] for row in rows} == {True}
    assert {row["share_on_npu"] for row in rows} == {1.0}


def test_a_bundle_is_compiled_simulated_and_profiled(run, tmp_path):
    code, out, err = run(
        "compile",
        "int8",
        "--target",
        "ethos-u85-256",
        "-o",
        tmp_path / "p",
        "--c-array",
        tmp_path / "p.cc",
    )
    assert code == 0
    assert "operators on the NPU: 100.0 %" in out
    assert "README.md" in err
    code, out, err = run(
        "simulate", tmp_path / "p", "--input", "photos/flower.jpg", "--dump", tmp_path / "d"
    )
    assert code == 0
    assert len(out.splitlines()) == 5
    assert "layers are in" in err
    code, _, err = run("simulate", tmp_path / "p", "--input", "photos/flower.jpg", "--check")
    assert code == 0
    assert "have the bytes of LiteRT's reference kernels" in err
    code, out, _ = run("simulate", tmp_path / "p", "--input", "photos/flower.jpg", "--json")
    assert len(json.loads(out)["logits"]) == 10
    code, out, _ = run(
        "profile",
        tmp_path / "p",
        "--csv",
        tmp_path / "p.csv",
        "--picture",
        tmp_path / "p.png",
        "--layers",
        3,
    )
    assert code == 0
    assert "ms an image, estimated" in out
    assert (tmp_path / "p.png").is_file()
    code, out, _ = run("profile", tmp_path / "p", "--json")
    said = json.loads(out)
    assert said["target"]["name"] == "ethos-u85-256"
    rows = (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [layer["name"] for layer in said["layers"]]
    assert sum(layer["ms"] for layer in said["layers"]) > 0


def test_a_program_with_layers_on_the_cpu_says_in_every_form_what_is_not_counted(
    run, stage, tmp_path
):
    quantize(
        "cifar10/densenet_bc_22_12",
        tmp_path / "kept",
        **{"data": stage / "photos", "num_images": 4, "purpose": "npu", "method": "minmax"},
        keep_float=["features.conv0"],
    )
    told = "not counted on the CPU: 3 operators, 2.2 % of the multiply-adds"
    target = ("--target", "ethos-u55-256", "-o", tmp_path / "p")
    code, out, _ = run("compile", tmp_path / "kept", *target)
    assert code == 0
    assert told in out
    assert "ms an image on the NPU, estimated" in out
    code, out, err = run("simulate", tmp_path / "p", "--input", "photos/flower.jpg", "--check")
    assert code == 0
    assert "have the bytes of LiteRT's reference kernels" in err
    code, out, _ = run("profile", tmp_path / "p", "--layers", 1)
    assert (code, told in out) == (0, True)
    assert len([line for line in out.splitlines() if "not counted  not counted" in line]) == 1
    code, out, _ = run("profile", tmp_path / "p", "--json")
    said = json.loads(out)
    assert said["not_counted"] == said["estimate"]["not_counted"]
    assert said["not_counted"]["operators"] == 3
    assert [row["source"] for row in said["layers"] if row["ms"] is None] == [
        "Dequantize",
        "Conv2D",
        "Quantize",
    ]
    code, out, _ = run("targets", tmp_path / "kept")
    assert out.count("3 operators, 2.2 % of the multiply-adds") == 11


def test_a_program_that_does_not_fit_is_written_and_ends_with_1(run, tmp_path):
    small = ("--target", "ethos-u55-64", "--sram-kib", 100, "-o", tmp_path / "p")
    wanted = r"needs 169 KiB of SRAM, and there are 100"
    for more in ((), ("--overwrite", "--json")):
        code, out, err = run("compile", "int8", *small, *more)
        assert (code, wanted in err) == (1, True)
    assert json.loads(out)["estimate"]["fits"] is False
    for more in ((), ("--json",), ("--csv", tmp_path / "layers.csv")):
        code, out, err = run("profile", tmp_path / "p", *more)
        assert (code, wanted in err, bool(out)) == (1, True, True)
    assert (tmp_path / "layers.csv").is_file()
    code, _, _ = run("compile", "int8", "--target", "ethos-u55-64", "-o", tmp_path / "q")
    assert code == 0


def test_vectors_are_written_and_counted(run, tmp_path):
    code, _, _ = run("compile", "int8", "--target", "ethos-u55-32", "-o", tmp_path / "p")
    assert code == 0
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("none")
    (tmp_path / "broken.png").write_bytes(b"none")
    code, out, err = run(
        "vectors",
        tmp_path / "p",
        "photos",
        tmp_path / "broken.png",
        "-o",
        tmp_path / "v",
        "--num-images",
        30,
        "--json",
    )
    assert code == 0
    made = json.loads(out)
    assert len(made["vectors"]) == 18
    assert len(made["unreadable"]) == 1
    assert "could not be read" in err
    assert "18 vectors in" in err
    code, out, err = run("vectors", tmp_path / "p", "photos", "-o", tmp_path / "v")
    assert code == 1
    assert "--overwrite replaces them" in err
    again = ("vectors", tmp_path / "p", "photos", "-o", tmp_path / "v", "--overwrite")
    code, out, err = run(*again, "--num-images", 2)
    assert code == 0
    assert (out, err.count("of the first 2 images; --num-images takes more")) == ("", 1)
    code, _, err = run(*again, "--check", "--num-images", 1)
    assert "TensorFlow Lite Micro's interpreter gives the same bytes" in err
    code, _, err = run("vectors", tmp_path / "p", tmp_path / "photos", "-o", tmp_path / "w")
    assert code == 1
    assert "no images in this folder" in err
    assert not (tmp_path / "w").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
def test_outputs_go_through_links_and_to_standard_output_with_tables_beside_them(stage, tmp_path):
    """A program that a link points to is replaced, and an array or table is printed alone."""

    def run(*arguments):
        command = [sys.executable, "-m", "densepath", "npu", *map(str, arguments)]
        return subprocess.run(command, cwd=stage, capture_output=True)

    (tmp_path / "current").symlink_to("v1")
    compiling = ("compile", "int8", "--target", "ethos-u85-256", "-o", tmp_path / "current")
    assert run(*compiling).returncode == 0
    done = run(*compiling, "--overwrite", "--c-array", "-")
    assert done.stdout.startswith(b"/* ")
    assert done.stdout.endswith(b"};\n")
    assert b"operators on the NPU" in done.stderr
    assert (tmp_path / "current").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "v1"]

    done = run("profile", tmp_path / "current", "--csv", "-")
    assert done.stdout.count(b"\n") > 10
    assert b"ms an image, estimated" in done.stderr
    done = run("profile", tmp_path / "current", "--picture", "/dev/stdout")
    assert done.stdout.startswith(b"\x89PNG")
    done = run("profile", tmp_path / "current", "--picture", "-", "--csv", "-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--csv and --picture both go to standard output" in done.stderr
    (tmp_path / "file").write_text("")
    done = run(
        "simulate",
        tmp_path / "current",
        "--input",
        "photos/flower.jpg",
        "--dump",
        tmp_path / "file",
    )
    assert b"it is a file; name a folder" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("-", "standard output: it is no folder"),
        ("/dev/stderr", "standard error: it is no folder"),
        ("pipe", "it is a pipe; name a folder"),
        ("file", "it is a file; name a folder"),
        ("dangling", "there is no folder"),
        ("photos", "something else than test vectors"),
    ],
)
def test_where_no_vectors_can_stand_is_told_before_the_program_is_opened(
    run, tmp_path, output, message
):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("none/v")
    named = output if output in ("-", "photos") or "/" in output else tmp_path / output
    code, out, err = run("vectors", "none", "photos", "-o", named)
    assert (code, out) == (1, "")
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compile", "int8", "--target", "ethos-u99", "-o", "p"), "unknown NPU target 'ethos-u99'"),
        (("compile", "photos", "--target", "ethos-u55-32", "-o", "p"), "is not a bundle"),
        (("simulate", "photos", "--input", "x.bin"), "is not a compiled program"),
        (("profile", "none"), "none is not a compiled program: it is"),
        (
            ("vectors", "none", "photos", "-o", "v"),
            "none is not a compiled program: it is",
        ),
        (("vectors", "photos", "photos", "-o", "v"), "is not a compiled program"),
    ],
)
def test_a_mistake_is_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert code in (1, 2)
    assert message in err
    assert "Traceback" not in err
    assert out == ""

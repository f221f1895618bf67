"""Writing without loss, and what error messages say."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import platform
import re
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from densepath import errors
from densepath.bundle.bundle import Bundle, check_target
from densepath.errors import (
    ImageError,
    MissingPackageError,
    OutputError,
    UnknownNameError,
    UsageError,
)
from densepath.extras import command_for, packages_of
from densepath.files import cache_dir, sha256, write_atomically, write_json, write_text
from densepath.weights.checkpoint import Checkpoint, write_tensors
from densepath.weights.import_file import import_weights

ROOT = Path(__file__).parents[2]


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    target = tmp_path / "a" / "file.txt"
    write_text(target, "old")

    def fail() -> None:
        with write_atomically(target) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file/below"):
        write_text(tmp_path / "file" / "below", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*folder"):
        write_text(tmp_path / "folder", "text")


def test_json_with_a_number_that_json_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("DENSEPATH_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path


def test_an_unknown_name_says_the_nearest_and_all_choices():
    error = UnknownNameError("format", "onx", ["onnx", "torch"])
    assert str(error) == "unknown format 'onx'. Did you mean onnx? Choices: onnx, torch."
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("package", "extra"),
    [("executorch", "edge"), ("ethos-u-vela", "npu"), ("grpcio", "serve"), ("nncf", "openvino")],
)
def test_a_missing_package_is_named_with_all_that_its_extra_brings(package, extra):
    """No index has densepath itself, so that `pip install 'densepath[edge]'` cannot work."""
    said = str(MissingPackageError(package, extra))
    command = shlex.split(said.partition("Install it with: ")[2])
    assert command[:2] == ["pip", "install"]
    assert package in command
    assert command[2:] == packages_of(extra)
    assert "densepath" not in said


def test_packages_that_are_named_are_those_of_the_extra_in_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert packages_of("onnx") == sorted(extras["onnx"])
    assert packages_of("serve") == sorted(extras["serve"])
    own = {"ethos-u-vela"}
    if sys.platform == "linux" and platform.machine() == "x86_64":  # it has wheels for no other
        own.add("tflite-micro")
    assert packages_of("npu") == sorted({*extras["edge"], *own})  # npu has edge in it


def test_a_version_bound_is_quoted_for_the_shell(monkeypatch):
    lines = ["typer<0.29", "heavy<2; extra == 'a'", "odd; python_version < '3' and extra == 'a'"]
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    assert command_for({"heavy": "a"}) == "pip install 'heavy<2'"


def test_without_metadata_the_package_itself_is_named(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert command_for({"onnxruntime": "onnx"}) == "pip install onnxruntime"


def test_a_missing_package_is_told_in_full_by_a_worker_process():
    error = MissingPackageError("onnx", "onnx")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_image_error_comes_back_whole_from_a_worker_process():
    back = pickle.loads(pickle.dumps(ImageError("a.jpg", "the file is empty")))
    assert (back.path, back.reason) == ("a.jpg", "the file is empty")


def test_the_drawn_tree_of_errors_names_every_error():
    drawn = re.findall(r"[A-Z]\w+Error\b", errors.__doc__ or "")
    known = [
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.DensepathError)
    ]
    assert sorted(set(drawn) & set(known)) == known
    assert len(known) > 15


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff", b"d/\x80.safetensors"])
def test_a_network_whose_path_is_no_utf8_is_refused_before_anything_is_written(name, tmp_path):
    path = tmp_path / os.fsdecode(name)
    for use in (
        lambda: Checkpoint.load(path),
        lambda: Bundle.open(path),
        lambda: check_target(path, overwrite=True),
        lambda: import_weights(path, "densenet121"),
        lambda: write_tensors(path, {}, {}),
    ):
        with pytest.raises(UsageError, match=r"is no UTF-8 name.*Rename it"):
            use()
    assert not list(tmp_path.iterdir())


def test_json_and_text_files_hold_names_of_any_bytes(tmp_path):
    odd = os.fsdecode(b"caf\xe9 \xff.png")
    write_json(tmp_path / "x.json", {"path": odd, odd: "ü"})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {
        "path": "caf\\xe9 \\xff.png", "caf\\xe9 \\xff.png": "ü"
    }  # fmt: skip
    write_text(tmp_path / "x.md", f"| {odd} |\n")
    assert (tmp_path / "x.md").read_text("utf-8") == "| caf\\xe9 \\xff.png |\n"

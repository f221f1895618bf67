"""A base install, without the optional packages: defaults work, and one command is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from densepath.bundle.bundle import Bundle

PROGRAM = Path(sys.executable).with_name("densepath")
SHIPPED = "cifar10/densenet_bc_22_12"
OPTIONAL = (
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "nncf",
    "executorch",
    "torchao",
    "litert_torch",
    "ai_edge_quantizer",
    "ai_edge_litert",
    "fastapi",
    "grpc",
    "uvicorn",
)
# Python reads this file at its start: the packages cannot be found from then on.
WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {gone}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Without())
"""


@pytest.fixture
def run(tmp_path):
    def start(*arguments, gone=OPTIONAL):
        (tmp_path / "sitecustomize.py").write_text(WITHOUT.format(gone=gone), encoding="utf-8")
        return subprocess.run(
            [PROGRAM, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )

    return start


def test_export_writes_what_it_can_and_says_what_else_there_is(run, tmp_path):
    made = run("export", SHIPPED, "-o", "b", "--num-images", 2, "--batch-sizes", 1)
    assert made.returncode == 0, made.stderr
    said = made.stderr.splitlines()[0]
    assert said.startswith("written as torch only: packages for onnx and openvino are not")
    assert said.endswith("pip install onnx onnxruntime onnxscript nncf openvino")
    assert list(Bundle.open(tmp_path / "b").manifest.formats) == ["torch"]


def test_one_package_that_is_missing_leaves_the_other_formats(run, tmp_path):
    options = ("--num-images", 1, "--batch-sizes", 1)
    made = run("export", SHIPPED, "-o", "b", *options, gone=("openvino",))
    assert made.returncode == 0, made.stderr
    assert made.stderr.startswith("written as onnx, torch only: packages for openvino are not")
    assert list(Bundle.open(tmp_path / "b").manifest.formats) == ["onnx", "torch"]


def test_quantize_writes_what_it_can_and_says_what_else_there_is(run, tmp_path):
    options = ("--images", 4, "--held-out", 2, "--method", "minmax")
    made = run("quantize", SHIPPED, "--data", "digits", "-o", "q", *options)
    assert made.returncode == 0, made.stderr
    assert made.stderr.startswith("quantised as native only: packages for openvino and onnx are")
    assert list(Bundle.open(tmp_path / "q").manifest.formats) == ["native"]


@pytest.mark.parametrize(
    ("arguments", "packages"),
    [
        (
            ("export", SHIPPED, "-o", "b", "--to", "torch,openvino,onnx"),
            ("onnx", "onnxscript", "onnxruntime", "openvino"),
        ),
        (
            ("quantize", SHIPPED, "-o", "b", "--data", "digits", "--for", "edge"),
            ("executorch", "torchao", "litert_torch", "ai_edge_quantizer", "ai_edge_litert"),
        ),
        (
            ("quantize", SHIPPED, "-o", "b", "--data", "digits", "--to", "openvino"),
            ("openvino", "nncf"),
        ),
        (("serve", "b"), ("fastapi", "grpcio", "uvicorn")),
    ],
)
def test_all_that_was_asked_for_and_is_missing_is_named_at_once(run, tmp_path, arguments, packages):
    made = run(*arguments)
    assert made.returncode == 1
    assert len(made.stderr.splitlines()) == 1
    named, _, command = made.stderr.partition("Install them with: ")
    assert named == (
        f"error: this needs the packages {', '.join(map(repr, packages))}, which are not "
        "installed. "
    )
    assert command.startswith("pip install ")
    assert not (tmp_path / "b").exists()

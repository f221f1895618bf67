"""`densepath import`: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from densepath.models.build import build_model
from densepath.weights.checkpoint import Checkpoint

TINY = "densenet_bc_22_12"


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "theirs.pth"
    torch.save({"state_dict": build_model(TINY, num_classes=3).state_dict()}, path)
    return path


def densepath(*arguments):
    command = [sys.executable, "-m", "densepath", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_file_becomes_a_checkpoint_with_the_given_labels(file, tmp_path):
    output, labels = tmp_path / "x.safetensors", tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nbird\n")
    done = densepath("import", file, "--model", TINY, "-o", output, "--labels", labels)
    assert (done.returncode, done.stdout) == (0, "")
    assert "3 classes" in done.stderr
    checkpoint = Checkpoint.load(output)
    assert checkpoint.labels == ["cat", "dog", "bird"]
    assert torch.equal(
        checkpoint.tensors["classifier.weight"],
        torch.load(file, weights_only=True)["state_dict"]["classifier.weight"],
    )


def test_json_is_one_object_on_standard_output(file, tmp_path):
    output = tmp_path / "x.safetensors"
    done = densepath("import", file, "--model", TINY, "-o", output, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert (summary["model"], summary["num_classes"], summary["output"]) == (TINY, 3, str(output))
    assert summary["provenance"]["imported_from"] == "theirs.pth"


@pytest.mark.parametrize(
    ("model", "output", "code", "reason"),
    [
        ("densenet_bc_40_12", "x.safetensors", 1, f"weights of {TINY}: name that model"),
        ("densenet121", "x.safetensors", 1, f"weights of {TINY}: name that model"),
        ("densnet121", "x.safetensors", 2, "Did you mean densenet121"),
        (TINY, "x.pth", 2, "must end in .safetensors"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(file, tmp_path, model, output, code, reason):
    done = densepath("import", file, "--model", model, "-o", tmp_path / output)
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / output).exists()

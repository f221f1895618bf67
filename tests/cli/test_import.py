"""`densepath import`: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from densepath.cli.app import main
from densepath.models.build import build_model
from densepath.weights.checkpoint import Checkpoint

TINY = "densenet_bc_22_12"


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "theirs.pth"
    torch.save({"state_dict": build_model(TINY, num_classes=3).state_dict()}, path)
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    """The program in this process: arguments → exit code, standard output, standard error."""

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["densepath", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return start


def test_a_file_becomes_a_checkpoint_with_the_given_labels(run, file, tmp_path):
    output, labels = tmp_path / "x.safetensors", tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nbird\n")
    code, out, err = run("import", file, "--model", TINY, "-o", output, "--labels", labels)
    assert (code, out) == (0, "")
    assert "3 classes" in err
    checkpoint = Checkpoint.load(output)
    assert checkpoint.labels == ["cat", "dog", "bird"]
    assert torch.equal(
        checkpoint.tensors["classifier.weight"],
        torch.load(file, weights_only=True)["state_dict"]["classifier.weight"],
    )


def test_json_is_one_object_on_standard_output(run, file, tmp_path):
    output = tmp_path / "x.safetensors"
    code, out, err = run("import", file, "--model", TINY, "-o", output, "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
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
def test_a_mistake_is_told_and_leaves_no_file(run, file, tmp_path, model, output, code, reason):
    found, out, err = run("import", file, "--model", model, "-o", tmp_path / output)
    assert (found, out) == (code, "")
    assert reason in " ".join(err.split())
    assert not (tmp_path / output).exists()

"""`--size` in every verb that has it: what no network takes is said, before anything is made."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from densepath.cli.app import main
from densepath.models.build import build_model

SHIPPED = "cifar10/densenet_bc_22_12"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The program in this process: arguments → exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "photo.png")
    torch.save(build_model("densenet121", num_classes=3).state_dict(), "densenet121.pth")

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["densepath", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, " ".join(captured.err.split())

    return start


VERBS = {
    "models": ("models", "densenet121"),
    "predict": ("predict", SHIPPED, "photo.png"),
    "evaluate": ("evaluate", SHIPPED, "--data", "cifar10"),
    "export": ("export", SHIPPED, "-o", "out", "--to", "torch"),
    "convert": ("convert", "densenet121.pth", "-o", "out", "--to", "torch"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "size", ["0", "-3", "1", "100000", "1" + "0" * 30, "large", "224x", "32.5", ""]
)
def test_a_size_that_cannot_be_is_one_message_and_nothing_else(run, tmp_path, verb, size):
    code, out, err = run(*VERBS[verb], "--size", size)
    assert (code, out) == (2, "")
    assert "size" in err
    assert (size in err) or not size
    assert not (tmp_path / "out").exists()

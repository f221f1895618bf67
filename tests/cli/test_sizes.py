"""`--size` in every verb that has it: what no network takes is said, before anything is made."""

from __future__ import annotations

import pytest
import torch

from fixtures.networks import SHIPPED, new_network
from fixtures.pictures import write_noise


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A folder with a photograph and weights that are not ours."""
    folder = tmp_path_factory.mktemp("stage")
    write_noise(folder / "photo.png", (8, 8, 3))
    torch.save(new_network("densenet121").state_dict(), folder / "densenet121.pth")
    return folder


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
def test_a_size_that_cannot_be_is_one_message_and_nothing_else(run, stage, monkeypatch, verb, size):
    monkeypatch.chdir(stage)
    code, out, err = run(*VERBS[verb], "--size", size)
    assert (code, out) == (2, "")
    assert "size" in err
    assert (size in err) or not size
    assert not (stage / "out").exists()

"""The weights that come with the package answer what their cards claim."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import pytest

import densepath
from densepath.weights.subject import SHIPPED, open_checkpoint, shipped_names

ROOT = Path(__file__).parents[2]
CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10.zip"


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_weights_are_small_and_have_a_card(name):
    assert (SHIPPED / f"{name}.safetensors").stat().st_size < 2_000_000
    card = (SHIPPED / f"{name}.md").read_text(encoding="utf-8")
    claimed = open_checkpoint(name).provenance["top1"]
    assert f"{claimed:.2%}".replace("%", " %") in card


@pytest.mark.skipif(not CIFAR10.exists(), reason="needs ../shared/data/cifar10.zip")
@pytest.mark.parametrize("name", shipped_names())
def test_a_cifar10_network_is_as_accurate_as_its_card_claims(name):
    predictor = densepath.load(name)
    with zipfile.ZipFile(CIFAR10) as archive:
        files = sorted(n for n in archive.namelist() if n.startswith("test/") and n[-1] != "/")
        chosen = files[::20]
        answers = list(predictor.predict((archive.read(file) for file in chosen), top_k=1))
    right = sum(
        answer.labels[0] == file.split("/")[1] for answer, file in zip(answers, chosen, strict=True)
    )
    claimed = open_checkpoint(name).provenance["top1"]
    error = math.sqrt(claimed * (1 - claimed) / len(chosen))
    assert abs(right / len(chosen) - claimed) < 3 * error

"""A layer has one name, from the list of a model's layers to the profile of its NPU program."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from densepath.cli.app import app
from densepath.npu.estimate import _layer_name, _short
from densepath.npu.figure import _draw
from densepath.npu.profile import profile
from densepath.npu.program import Program
from fixtures.networks import SHIPPED

pytestmark = pytest.mark.npu

FOLLOWED = "features.denseblock2.denselayer2.conv1"


def run(*arguments):
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_a_name_is_followed_from_the_list_of_layers_to_the_profile(photographs, tmp_path):
    listed = [row["layer"] for row in run("models", "densenet_bc_22_12", "--layers", "--json")]
    assert FOLLOWED in listed
    images = ["--data", photographs, "--images", 4, "--held-out", 2, "--method", "minmax"]
    run(
        "quantize",
        SHIPPED,
        *images,
        "--for",
        "npu",
        "--keep-float",
        FOLLOWED,
        "--sensitivity",
        "-o",
        tmp_path / "bundle",
        "--json",
    )
    measured = json.loads((tmp_path / "bundle" / "quantization.json").read_text(encoding="utf-8"))
    assert sorted(measured["sensitivity"]) == sorted(listed)
    run(
        "npu",
        "compile",
        tmp_path / "bundle",
        "--target",
        "ethos-u55-128",
        "-o",
        tmp_path / "program",
        "--json",
    )
    table = tmp_path / "layers.csv"
    (said,) = run("npu", "profile", tmp_path / "program", "--csv", table, "--json")
    rows = said["layers"]
    assert list(dict.fromkeys(row["name"] for row in rows)) == listed
    on_cpu = {row["name"]: row["tensor"] for row in rows if row["macs"] and not row["on_npu"]}
    assert on_cpu == {FOLLOWED: f"{FOLLOWED}/conv_2d"}
    with table.open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == [row["name"] for row in rows]
    made = profile(Program.open(tmp_path / "program"))
    drawn = "\n".join(text.get_text() for text in _draw(made).axes[1].texts)
    assert max(made.on_npu, key=lambda one: one.cycles).name in drawn
    assert any(FOLLOWED in line for line in made.advice())
    text = CliRunner().invoke(app, ["npu", "profile", str(tmp_path / "program")]).stdout
    assert f"{FOLLOWED} " in text


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("features.conv2_1.c1x1_w.conv/conv_2d_2", "features.conv2_1.c1x1_w.conv"),
        ("features.conv0/conv_2d_act", "features.conv0"),
        ("classifier/mean_intermediate", "classifier"),
        ("logits", "classifier"),
        ("a.Wrapper/torch.nn.Sequential_body/torch.nn.Conv2d_0;1", "Sequential_body/Conv2d_0"),
    ],
)
def test_a_tensor_names_its_layer_and_another_networks_keeps_its_own(tensor, layer):
    assert _layer_name(tensor) == layer
    assert _short(tensor) == (layer if ";" in tensor else tensor)

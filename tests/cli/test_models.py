"""`densepath models` and the error boundary, as a person meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from densepath.models.catalogue import CATALOGUE

PROGRAM = Path(sys.executable).with_name("densepath")


def densepath(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)


def test_json_is_one_object_a_line_and_nothing_else():
    run = densepath("models", "dpn68", "densenet_bc_22_12", "--json", "--batch-size", "2")
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row["name"] for row in rows] == ["dpn68", "densenet_bc_22_12"]
    assert (rows[0]["parameters"], rows[0]["macs"]) == (12611602, 2326163456)
    assert rows[0]["seed"]["parameters"] == 10780000
    assert "twice" in rows[0]["seed"]["remark"]
    assert rows[1]["seed"] is None


def test_the_table_fits_80_columns_and_names_every_model_whole():
    run = densepath("models")
    lines = run.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:]] == list(CATALOGUE)
    assert "33.34" in run.stdout
    assert "75.7" in run.stdout
    assert "PaddleClas" in run.stderr


@pytest.mark.parametrize("columns", ["20", "60"])
def test_a_narrow_terminal_cuts_no_name(columns):
    code = "import sys; sys.stdout.isatty = lambda: True; sys.argv = ['densepath', 'models'];"
    run = subprocess.run(
        [sys.executable, "-c", f"{code} from densepath.cli.app import main; main()"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": columns},
    )
    assert "densenet_bc_250_24" in run.stdout
    assert "…" not in run.stdout


def test_layers_are_listed_by_name_and_sum_up_to_the_model():
    run = densepath("models", "dpn68", "--layers", "--json")
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    names = [row["layer"] for row in rows]
    assert names[0] == "features.conv1_1.conv"
    assert names[1:3] == ["features.conv2_1.c1x1_w.conv", "features.conv2_1.c1x1_a.conv"]
    assert names[-1] == "classifier"
    [whole] = map(json.loads, densepath("models", "dpn68", "--json").stdout.splitlines())
    assert sum(row["macs"] for row in rows) == whole["macs"]
    assert sum(row["parameters"] for row in rows) == whole["parameters"]
    shown = densepath("models", "densenet_bc_22_12", "--layers", "--size", "64").stdout
    assert "features.denseblock1.denselayer1.conv1" in shown
    assert "64×64" in shown
    assert densepath("models", "dpn68", "--layers", "--size", "1").returncode == 2


def test_layers_of_a_wrong_size_are_an_error_and_nothing_else():
    run = densepath("models", "densenet_bc_22_12", "densenet121", "--layers", "--size", "16")
    assert (run.returncode, run.stdout) == (2, "")
    assert "densenet121 needs at least 32 × 32 pixels" in run.stderr


def test_a_summary_has_shapes_and_sums_that_are_those_of_the_network():
    [found] = map(
        json.loads, densepath("models", "dpn68", "--summary", "--json").stdout.splitlines()
    )
    parts = found["parts"]
    stem, first, last = parts[0], parts[1], parts[-1]
    assert (stem["part"], stem["reads"], stem["gives"]) == (
        "features.conv1_1",
        [3, 224, 224],
        [10, 56, 56],
    )
    # Table 1 of arXiv:1707.01629, as PaddleClas has its narrowest row: 64 + 3 · 16 channels.
    assert (first["part"], first["gives"]) == ("features.conv2_1", [112, 56, 56])
    assert first["layers"] == ["1×1", "1×1", "3×3, 32 groups", "1×1"]
    assert parts[-2]["gives"] == [832, 7, 7]
    assert (last["part"], last["gives"], last["receptive_field"]) == ("classifier", [1000], None)
    assert [one["reads"] for one in parts[1:]] == [one["gives"] for one in parts[:-1]]
    for name in ("parameters", "macs"):
        assert sum(one[name] for one in parts) == found[name]
    shown = densepath("models", "densenet_bc_22_12", "--summary", "--size", "64")
    assert "features.denseblock1.denselayer1 1×1 → 3×3" in " ".join(shown.stdout.split())
    assert "36×64×64" in shown.stdout
    assert "3×64×64" in shown.stdout
    assert "map: channels" in shown.stderr


def test_a_summary_beside_the_layers_is_refused():
    run = densepath("models", "dpn68", "--layers", "--summary")
    assert (run.returncode, run.stdout) == (2, "")
    assert "name one" in run.stderr


@pytest.mark.parametrize("more", [(), ("--json",), ("densenet121",)])
def test_layers_take_no_batch_size(more):
    run = densepath("models", *more, "--layers", "--batch-size", "64")
    assert (run.returncode, run.stdout) == (2, "")
    assert "--layers has not: leave it out" in run.stderr


def test_models_loads_neither_torch_nor_numpy():
    code = (
        "import sys; sys.argv = ['densepath', 'models']\n"
        "from densepath.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_another_size_changes_operations_and_not_parameters():
    small, large = (
        json.loads(densepath("models", "densenet_bc_22_12", "--size", size, "--json").stdout)
        for size in ("16", "32")
    )
    assert small["parameters"] == large["parameters"]
    # Convolutions cost in proportion to the pixels; the classifier does not.
    classifier = (large["num_classes"]) * 100
    assert large["macs"] == pytest.approx(4 * small["macs"], abs=4 * classifier)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["models", "densnet121"], "unknown model 'densnet121'. Did you mean densenet121"),
        (["models", "densenet121", "--size", "8"], "needs at least 32 × 32"),
        (["models", "--batch-size", "0"], "batch-size"),
        (["model"], "No such command"),
        (["models", "--sise", "8"], "--size"),
    ],
)
def test_wrong_usage_ends_with_code_2_and_no_traceback(arguments, words):
    run = densepath(*arguments)
    assert run.returncode == 2
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_help_and_version_answer():
    assert "models" in densepath("--help").stdout
    assert densepath("--version").stdout.startswith("densepath ")

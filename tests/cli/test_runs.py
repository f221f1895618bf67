"""`densepath runs`, as a person meets it."""

from __future__ import annotations

import csv
import io
import json
import shutil

import pytest


@pytest.fixture
def folder(digits_run, tmp_path):
    """Two run folders that differ in the seed, and one without a recipe."""
    top = tmp_path / "all runs"
    for name in ("erster Lauf", "zweiter, 2"):
        shutil.copytree(digits_run, top / name)
    recipe = top / "zweiter, 2" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 7"))
    (top / "broken" / "state").mkdir(parents=True)
    (top / "broken" / "metrics.csv").write_text("")
    return top


def test_the_table_has_each_run_and_names_what_cannot_be_read(run, folder):
    code, out, err = run("runs", folder)
    assert code == 0
    assert "erster Lauf" in out
    assert "seed" in out
    assert "finished" in out
    assert "1,298" in out
    assert f"could not be read: {folder / 'broken'}" in err


def test_json_and_csv_hold_the_same(run, folder):
    _, out, _ = run("runs", folder, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row.get("recipe") for row in rows] == [{"seed": 0}, {"seed": 7}, None]
    assert "error" in rows[2]
    _, out, _ = run("runs", folder, "--csv")
    table = list(csv.DictReader(io.StringIO(out)))
    assert [row["folder"] for row in table] == [row["folder"] for row in rows[:2]]
    assert [row["recipe.seed"] for row in table] == ["0", "7"]
    assert float(table[0]["best"]) == rows[0]["best"]


def test_where_nothing_can_be_read_the_exit_code_says_so(run, folder, tmp_path):
    assert run("runs", folder / "broken")[0] == 1
    assert run("runs", tmp_path / "none")[0] == 1
    assert run("runs", folder, "--json", "--csv")[0] == 2

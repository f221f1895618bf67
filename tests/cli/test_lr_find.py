"""`densepath lr-find`, as a person meets it."""

from __future__ import annotations

import json

from PIL import Image

from fixtures.runs import DIGITS

SMALL = DIGITS | {"data.batch_size": 32}
QUICK = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
QUICK += ["--steps", "25", "--workers", "0", "--device", "cpu"]


def test_it_prints_the_option_and_draws_the_curve(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = tmp_path / "mein Bild, ü.png"
    code, out, err = run(
        *("lr-find", "densenet_bc_22_12", "--from", "1e-4", "--to", "100", *QUICK),
        *("--output", picture),
    )
    assert code == 0, err
    assert out.startswith("--set optimizer.lr=0.") or out.startswith("--set optimizer.lr=1")
    assert "batches of 32, sgd" in err
    assert list(tmp_path.iterdir()) == [picture]
    with Image.open(picture) as drawn:
        assert drawn.size == (1600, 960)


def test_json_has_the_curve_and_no_suggestion_is_an_exit_code(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("lr-find", "densenet_bc_22_12", "--to", "1e-5", *QUICK, "--json")
    found = json.loads(out)
    assert code == 1
    assert (len(found["rates"]), len(found["losses"]), found["suggestion"]) == (25, 25, None)
    assert "no suggestion" in err


def test_wrong_arguments_are_said_before_anything_is_read(run, tmp_path):
    assert "must be at least 20" in run("lr-find", "densenet121", "--steps", "3")[2]
    code, _, err = run("lr-find", "densenet121", "-o", tmp_path)
    assert (code, "cannot write" in err) == (1, True)
    assert run("lr-find", "densenet_bc_22_12", "--set", "optimiser.lr=1")[0] == 2


def test_the_defaults_are_those_of_the_library():
    from densepath.cli import lr_find as verb
    from densepath.training import lr_find as library

    for name in ("STEPS", "LOWEST", "HIGHEST"):
        assert getattr(verb, name) == getattr(library, name)

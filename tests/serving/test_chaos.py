"""A few workers are killed under load while bundles change: no rule is broken.

Twenty: python benchmarks/serving_chaos.py BUNDLE --kills 20
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi")


@pytest.fixture
def chaos(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import serving_chaos

    return serving_chaos


@pytest.mark.slow
def test_answers_are_right_or_refused_while_workers_die_and_bundles_change(chaos, bundles, capsys):
    words = [str(bundles / "colour"), "--other", str(bundles / "newer"), "--kills", "3"]
    code = chaos.main([*words, "--clients", "2", "--seed", "5"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert said.startswith("3 kills in ")
    assert "\n0 broke a rule\n" in said
    assert " × v1" in said


def test_an_answer_of_a_bundle_that_was_not_there_is_found(chaos, tmp_path):
    """The judge itself: what may be met, and when."""
    model = chaos.Served("m", tmp_path)
    assert model.could_be(1, 2) == {"v1"}
    model.may_become("v2", 5.0)
    assert model.could_be(4.0, 5.5) == {"v1", "v2"}
    model.is_now("v2", 6.0)
    assert model.could_be(6.5, 7.0) == {"v2"}
    assert model.could_be(5.9, 7.0) == {"v1", "v2"}
    model.may_become("absent", 8.0)
    model.is_now("absent", 9.0)
    assert model.could_be(9.1, 9.2) == {"absent"}

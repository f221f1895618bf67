"""A few hundred damaged requests bring no 5xx and no half answer.

Ten thousand: python benchmarks/serving_fuzz.py BUNDLE --count 10000
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi")
COUNT = 300


def test_damaged_requests_bring_no_5xx_and_no_half_answer(server, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import serving_fuzz

    host, port = server.url.partition("://")[2].rsplit(":", 1)
    tally = serving_fuzz.fuzz((host, int(port)), "colour", range(COUNT), seed=2)
    assert tally.broken == []
    assert {200, 400, 422} <= set(tally.statuses)

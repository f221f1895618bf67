"""The benchmarks start, and what they print is what their results hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = [
    path for path in sorted(BENCHMARKS.glob("*.py")) if "ArgumentParser(" in path.read_text("utf-8")
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_says_what_it_takes(script):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    run = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert "Run: " in run.stdout


def test_every_benchmark_is_on_its_page():
    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert [script.name for script in SCRIPTS if f"`{script.name}`" not in page] == []


def test_cold_starts_go_on_from_the_rounds_that_there_are(tmp_path, monkeypatch, capsys):
    """The whole of a script: its results, what a second start adds, and the page."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cold_start
    from formula_bundle import formula_bundle

    made = {cold_start.OURS: ["true"], "PaddleClas": ["true"]}
    monkeypatch.setattr(cold_start, "commands", lambda *_: made)
    monkeypatch.setattr(cold_start, "seconds", lambda command: 0.5)
    kept = tmp_path / "bundles"
    (kept / "densenet121").mkdir(parents=True)  # stands for the exported one
    words = [str(tmp_path / "x.jpg"), "--bundles", str(kept), "--output", str(tmp_path / "out")]
    for repeats in ("2", "3"):
        monkeypatch.setattr(sys, "argv", ["cold_start.py", *words, "--repeats", repeats])
        cold_start.main()
    parts = json.loads((tmp_path / "out.json").read_text())["parts"]
    assert list(parts) == ["round 1", "round 2", "round 3"]
    page = (tmp_path / "out.md").read_text()
    assert "3 rounds" in page
    assert "| PaddleClas | 0.50 | 0.50–0.50 | 1.0 |" in page
    assert str(tmp_path) not in page
    with formula_bundle("densenet121", kept) as bundle:
        assert bundle == kept / "densenet121"

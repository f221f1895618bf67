"""The C++ program in bfloat16: Python's answers, and what `auto` takes and says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import sklearn.datasets

from densepath.engines import native
from densepath.exporting.export import export
from fixtures.bundles import flowers

pytestmark = pytest.mark.slow

DENSEPATH = Path(sys.executable).with_name("densepath")
PHOTOS = Path(sklearn.datasets.__file__).parent / "images"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """One without times, by which Python may find that float32 was as quick."""
    folder = tmp_path_factory.mktemp("bundles") / "small"
    with mock.patch("densepath.exporting.measure.measure_speeds", return_value=None):
        export("cifar10/densenet_bc_22_12", folder, to=["torch"], images=[PHOTOS], batch_sizes=[2])
    return folder


def run_program(program, *words) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *map(os.fspath, words)], capture_output=True, text=True, check=False
    )


def answers(run) -> list[dict]:
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def with_report(bundle, folder, change) -> Path:
    """A copy of the bundle whose manifest's `parity` was changed; its hash is right again."""
    copy = Path(shutil.copytree(bundle, folder / "changed"))
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    change(manifest["parity"])
    text = json.dumps(manifest).encode()
    (copy / "manifest.json").write_bytes(text)
    line = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n"
    (copy / "manifest.json.sha256").write_text(line, encoding="ascii")
    return copy


def test_answers_in_bfloat16_are_those_of_python_and_others_than_in_float32(cpp, bundle):
    options = (bundle, PHOTOS, "--top-k", "10", "--precision", "bfloat16")
    python = run_program(DENSEPATH, "predict", *options, "--engine", "native", "--json")
    ours = run_program(cpp.predict, *options, "--backend", "native")
    whole = run_program(cpp.predict, bundle, PHOTOS, "--top-k", "10", "--precision", "float32")
    for expected, found, other in zip(*map(answers, (python, ours, whole)), strict=True):
        assert found["labels"] == expected["labels"]
        assert found["scores"] == pytest.approx(expected["scores"], abs=2e-6)
        assert found["scores"] != other["scores"]
        assert found["scores"] == pytest.approx(other["scores"], abs=0.02)
    assert "in float32" not in whole.stderr


def test_auto_says_what_it_took_and_why_as_python_does(cpp, bundle):
    native.load_library()  # compiles it, so that Python takes it for two images
    python = run_program(DENSEPATH, "predict", bundle, PHOTOS, "--json")
    ours = run_program(cpp.predict, bundle, PHOTOS)
    python_says = python.stderr.splitlines()[0]
    ours_says = ours.stderr.splitlines()[0]
    if native.has_bfloat16():
        taken, why = "bfloat16", "by the bundle's report on bfloat16 the best class is the same on"
        assert python_says.partition(": ")[2].endswith(ours_says.partition(": ")[2])
        assert f"in {taken}: {why}" in ours_says
    else:
        assert python_says.endswith("in float32: this processor has no instructions for bfloat16")
        assert ours_says == (
            "the back end native answers in float32: this program was compiled without "
            "instructions for bfloat16"
        )
    assert answers(ours) == answers(python)


def test_the_benchmark_names_the_precision_that_was_taken(cpp, bundle):
    for precision in ("float32", "bfloat16"):
        options = ("--benchmark", "--repeats", "1", "--precision", precision)
        run = run_program(cpp.predict, bundle, PHOTOS, *options)
        assert json.loads(run.stdout)["precision"] == precision
    run = run_program(cpp.predict, bundle, PHOTOS, "--benchmark", "--repeats", "1")
    wanted = "bfloat16" if native.has_bfloat16() else "float32"
    assert json.loads(run.stdout)["precision"] == wanted


def test_bfloat16_that_is_slow_here_is_computed_and_that_is_said(cpp, bundle):
    if native.has_bfloat16():
        pytest.skip("this processor has the instructions")
    run = run_program(cpp.predict, bundle, PHOTOS, "--precision", "bfloat16")
    assert "so that it is slower than float32" in run.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parity: parity["bfloat16"].pop("top1"), "parity.bfloat16.top1 is missing"),
        (
            lambda parity: parity["bfloat16"].update(top5="all"),
            "parity.bfloat16.top5 must be a number",
        ),
    ],
)
def test_a_report_of_another_kind_is_refused(cpp, bundle, tmp_path, change, message):
    run = run_program(cpp.predict, with_report(bundle, tmp_path, change), PHOTOS)
    assert run.returncode == 1
    assert message in run.stderr


def test_of_few_classes_the_scores_decide(cpp, tmp_path):
    if not native.has_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16")
    few = tmp_path / "few"
    export(flowers(labels=["a", "b", "c"]), few, to=["torch"], num_images=2, batch_sizes=[1])

    def said(change):
        folder = tmp_path / change.__name__
        folder.mkdir()
        return run_program(cpp.predict, with_report(few, folder, change), PHOTOS).stderr

    def nothing(parity):
        pass

    def older(parity):
        del parity["bfloat16"]["by_score"]

    def broken(parity):
        parity["bfloat16"]["max_difference"] = None

    assert "every score within 0.02 on all" in said(nothing)
    assert "does not look at what decides for its classes" in said(older)
    assert "answers in float32: by the bundle's report" in said(broken)


def test_with_amx_a_report_from_without_it_does_not_hold(cpp, bundle, tmp_path):
    if not native.has_amx():
        pytest.skip("this processor has no AMX")
    other = with_report(bundle, tmp_path, lambda parity: parity["bfloat16"].pop("amx"))
    run = run_program(cpp.predict, other, PHOTOS)
    said = run.stderr.splitlines()[0].partition(": ")[2]
    assert said.startswith("the bundle's report on bfloat16 is from a processor without AMX")
    assert said in run_program(DENSEPATH, "predict", other, PHOTOS, "--json").stderr


def test_an_older_bundle_without_a_report_is_answered_in_float32(cpp, bundle, tmp_path):
    older = with_report(bundle, tmp_path, lambda parity: parity.pop("bfloat16"))
    run = run_program(cpp.predict, older, PHOTOS, "--top-k", "10")
    wanted = run_program(cpp.predict, bundle, PHOTOS, "--top-k", "10", "--precision", "float32")
    assert answers(run) == answers(wanted)
    assert "the back end native answers in float32: " in run.stderr

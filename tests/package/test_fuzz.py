"""Damaged files of every kind end in a value or in one of our errors; benchmarks/fuzz.py has more.

The whole 20,000: python benchmarks/fuzz.py --count 20000
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from densepath.errors import DensepathError, UnsafeFileError

COUNT = 40
SEED = 0


@pytest.fixture(scope="module")
def fuzz():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import fuzz
    finally:
        sys.path.remove(folder)
    return fuzz


@pytest.fixture(scope="module")
def mark(tmp_path_factory):
    return tmp_path_factory.mktemp("mark") / "executed"


@pytest.fixture(scope="module")
def table(fuzz, mark):
    sys.addaudithook(fuzz._watch)
    return fuzz.kinds(mark)


KINDS = ["images", "pth", "pdparams", "ckpt", "safetensors", "description", "labels", "list",
         "table", "recipe", "manifest", "program", "pdmodel", "pir", "pdiparams",
         "inference.yml", "modules", "programs", "mxnet", "symbol", "hdf5", "keras",
         "keras_config"]  # fmt: skip


def test_every_kind_is_tested_here_and_has_a_share(fuzz, table):
    assert set(table) == set(KINDS) == set(fuzz.SHARES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused_and_nothing_in_it_runs(fuzz, table, mark, kind):
    tally = fuzz.fuzz(kind, table[kind], range(COUNT), SEED, None, mark)
    assert tally.broken == []
    assert tally.read + tally.refused == COUNT
    assert tally.refused > 0


@pytest.mark.filterwarnings("ignore:.*left aside:UserWarning")
def test_whole_files_are_read_or_refused_for_asking_for_code(table, tmp_path):
    for name in (
        "images",
        "pth",
        "safetensors",
        "description",
        "labels",
        "list",
        "table",
        "recipe",
    ):
        for number, whole in enumerate(table[name].seeds):
            folder = tmp_path / f"{name}{number}"
            folder.mkdir()
            (folder / "case").write_bytes(whole)
            try:
                table[name].read(folder / "case")
            except UnsafeFileError:
                assert b"system" in whole


class Fails:
    """A kind whose reader breaks a rule."""

    def __init__(self, read):
        self.seeds, self.read, self.text, self.repair = [b"x"], read, False, bytes
        self.allowed = ()


def raise_key_error(_):
    raise KeyError("x")


def run_a_program(_):
    import subprocess

    subprocess.run(["true"], check=True)


def refuse(_):
    raise DensepathError("no")


@pytest.mark.parametrize(
    ("read", "said"),
    [(raise_key_error, "KeyError"), (run_a_program, "subprocess.Popen"), (refuse, None)],
)
def test_what_breaks_a_rule_is_told(fuzz, table, mark, tmp_path, read, said):
    tally = fuzz.fuzz("x", Fails(read), range(1), SEED, tmp_path / "kept", mark)
    assert bool(tally.broken) == (said is not None)
    if said is not None:
        assert said in tally.broken[0]
        assert (tmp_path / "kept" / "x-0-0").is_file()


def test_code_that_leaves_its_mark_is_told(fuzz, mark):
    tally = fuzz.fuzz("x", Fails(lambda path: mark.touch()), range(1), SEED, None, mark)
    assert "executed" in tally.broken[0]

"""The one table of formats and runtimes: a made-up row is met everywhere that rows are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from importlib.resources import files as resource_files
from pathlib import Path

import pytest

import densepath
from densepath.bundle.formats import FORMATS, RUNTIMES, Format, Runtime, named, runtimes_of
from densepath.engines.choose import choose
from densepath.engines.request import EngineRequest
from densepath.errors import MissingPackageError, UsageError
from densepath.exporting.export import check_formats
from densepath.images.preprocess import Preprocess
from densepath.quantize.forms import choose_forms
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import TINY, new_network
from fixtures.pictures import write_classes

ROOT = Path(__file__).parents[2]
# A format and a runtime in one file, with two rows: all that a new one takes.
MADE_UP = """
from densepath.bundle.formats import FORMATS, RUNTIMES, Format, Runtime
from densepath.engines.eager import EagerEngine

def write(job):
    job.checkpoint.save(job.folder / "madeup.safetensors")
    return {"model": "madeup.safetensors"}

def open_engine(row, opening):
    engine = EagerEngine(
        opening.read_checkpoint().to_model(), opening.preprocess, mode=opening.mode
    )
    object.__setattr__(engine.info, "name", row.name)
    return engine

FORMATS["madeup"] = Format("madeup", "a made-up format", write="made_up:write")
RUNTIMES["dreamt"] = Runtime("dreamt", "made_up:open_engine", "madeup", why="it was made up")
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the module `made_up` and the checkpoint `tiny.safetensors`."""
    folder = tmp_path_factory.mktemp("made_up")
    (folder / "made_up.py").write_text(MADE_UP)
    model = new_network(TINY, num_classes=4)
    checkpoint = Checkpoint.of(
        model, preprocess=Preprocess((32, 32), 36), labels=["ant", "bee", "cat", "dog"]
    )
    checkpoint.save(folder / "tiny.safetensors")
    write_classes(folder / "photos", checkpoint.labels, each=2, shape=(40, 40, 3))
    return folder


def run(here, code, *words):
    """What a program prints that has imported `made_up` before anything else of ours."""
    done = subprocess.run(
        [sys.executable, "-c", f"import made_up; {code}", *words],
        cwd=here,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(ROOT / "docs")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def densepath_command(here, *words):
    """What the command line prints."""
    return run(here, "from densepath.cli.app import main; main()", *words)


def test_a_made_up_format_and_runtime_are_met_along_the_whole_line(here):
    exported = densepath_command(
        here,
        "export",
        "tiny.safetensors",
        "--to",
        "torch,madeup",
        "-o",
        "both",
        "--num-images",
        "2",
    )
    assert "madeup" in exported
    rows = json.loads((here / "both" / "parity.json").read_text())["rows"]
    assert {row["engine"] for row in rows if row["format"] == "madeup"} == {"dreamt"}
    chosen = densepath_command(
        here, "export", "tiny.safetensors", "--to", "madeup", "-o", "alone", "--num-images", "1"
    )
    assert chosen
    ladder = densepath_command(here, "ladder", "both", "--data", "photos", "--json")
    assert "dreamt" in ladder
    said = run(
        here,
        "import densepath; p = densepath.load('alone'); print(p.choice); p.close();"
        "p = densepath.load('both', engine='dreamt'); print(p.engine.info.name)",
    )
    assert "engine dreamt: it was made up" in said
    assert said.splitlines()[-1] == "dreamt"


def test_help_and_the_tables_of_docs_have_the_made_up_rows(here):
    assert "madeup" in densepath_command(here, "export", "--help")
    assert "dreamt" in densepath_command(here, "predict", "--help")
    assert "dreamt" in densepath_command(here, "serve", "--help")
    tables = run(
        here, "import generate; print(generate.formats_table(), generate.runtimes_table())"
    )
    assert "| `madeup` | a made-up format | `export` |  |" in tables
    assert "| `dreamt` | `madeup` |" in tables


def test_a_made_up_row_s_missing_package_and_machine_are_said(monkeypatch):
    row = Runtime("dreamt", "x:y", "torch", packages=(("no_such_package", "onnx"),))
    monkeypatch.setitem(RUNTIMES, "dreamt", row)
    with pytest.raises(MissingPackageError, match="no_such_package"):
        choose(EngineRequest(engine="dreamt"), None)


@pytest.mark.parametrize("row", RUNTIMES.values(), ids=RUNTIMES)
def test_what_a_row_names_is_there(row: Runtime):
    assert row.format in FORMATS
    assert row.int8_format is None or FORMATS[row.int8_format].int8 is not None
    assert callable(named(row.open))
    assert row.check is None or callable(named(row.check))


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS)
def test_what_a_format_s_row_names_is_there(row: Format):
    assert row.precisions
    for path in (row.write, row.check, row.open_preprocess):
        assert path is None or callable(named(path))
    if row.int8 is not None:
        assert named(row.int8.methods)
        assert callable(named(row.int8.write))
        for path in (row.int8.count_operators, row.int8.open_as_npu):
            assert path is None or callable(named(path))
    for precision in row.precisions:
        assert list(runtimes_of(row.name, precision)), "nothing runs it"


def test_the_schema_has_the_formats_of_the_table():
    path = resource_files("densepath.bundle") / "schema" / "manifest-1.json"
    schema = json.loads(path.read_text())
    formats = schema["properties"]["formats"]["properties"]
    assert set(formats) == set(FORMATS)


def test_an_engine_for_int8_alone_is_made_by_quantize(here):
    with pytest.raises(UsageError, match="densepath quantize SUBJECT --data DATA --to litert"):
        densepath.load(here / "tiny.safetensors", engine="litert")


@pytest.mark.parametrize(
    ("verb", "format", "said"),
    [
        (
            "export",
            "litert",
            "write the format litert. It comes with a bundle in INT8: densepath",
        ),
        ("export", "executorch", "quantize SUBJECT --data DATA --to executorch -o DIR"),
        ("export", "native", "In float32 the engine native reads torch. It comes with a bundle"),
        ("quantize", "torch", "float network does: densepath export SUBJECT --to torch -o DIR"),
        ("quantize", "aoti", "`quantize` does not write the format aoti"),
        ("export", "onx", "unknown format 'onx'. Did you mean onnx?"),
        ("quantize", "onx", "unknown INT8 format 'onx'. Did you mean onnx?"),
    ],
)
def test_a_format_of_the_other_verb_is_told_with_the_command_that_writes_it(verb, format, said):
    check = check_formats if verb == "export" else partial(choose_forms, "server")
    with pytest.raises(UsageError) as caught:
        check([format])
    assert said in str(caught.value)

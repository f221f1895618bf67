"""Options are the library's: their defaults, their choices, and each said once."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

import densepath
from densepath.cli.app import build_command
from densepath.npu.compile import compile_program
from densepath.npu.simulate import simulate
from densepath.npu.targets import BOARD_SRAM_BYTES
from densepath.predict.predictor import Predictor
from densepath.quantize.quantize import quantize
from densepath.serving.core.settings import Settings

OPTIONS = ("typer.Option", "typer.Argument")
CLI = Path(densepath.__file__).parent / "cli"
COMMANDS = build_command().commands
VERBS = {
    "convert": densepath.export,  # what `convert` hands on, and its own have no defaults
    "evaluate": densepath.evaluate,
    "export": densepath.export,
    "import": densepath.import_weights,
    "ladder": densepath.measure_ladder,
    "predict": densepath.load,
    "quantize": quantize,
    "train": densepath.train,
}
# Option of a verb → the name of the library's parameter, where it is another.
OTHERWISE = {
    ("quantize", "images"): "num_images",
    ("quantize", "held_out"): "num_held_out",
    ("ladder", "images"): "num_images",
    ("ladder", "simulated"): "num_simulated",
    ("predict", "crop_pct"): "crop_share",
    ("evaluate", "crop_pct"): "crop_share",
}
# Options of the command line alone, or with a reading of their own.
APART = {
    ("convert", "to"),  # onnx alone: one file becomes one file
    ("evaluate", "progress"),
    ("quantize", "keep_float"),
    ("predict", "paths"),
}


def defaults_of(function: Any) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def said(value: Any) -> Any:
    """A default as the command line writes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value.replace("_", "-") if isinstance(value, str) else value


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_verb_does_by_default_is_what_its_function_does(verb):
    theirs, compared = defaults_of(VERBS[verb]), []
    for option in COMMANDS[verb].params:
        name = OTHERWISE.get((verb, option.name), option.name)
        if name in theirs and (verb, name) not in APART:
            assert (name, option.default or None) == (name, said(theirs[name]) or None)
            compared.append(name)
    assert compared


def test_the_rest_of_the_defaults_are_the_librarys():
    npu = {
        name: {one.name: one.default for one in command.params}
        for name, command in COMMANDS["npu"].commands.items()
    }
    assert npu["compile"]["sram_kib"] * 1024 == BOARD_SRAM_BYTES
    assert npu["compile"]["overwrite"] == defaults_of(compile_program)["overwrite"]
    assert npu["simulate"]["top_k"] == defaults_of(simulate)["top_k"]
    predict = {one.name: one.default for one in COMMANDS["predict"].params}
    assert predict["top_k"] == defaults_of(Predictor.predict)["top_k"]


def test_a_server_from_the_command_line_is_the_one_from_python():
    given = {one.name: one.default for one in COMMANDS["serve"].params}
    theirs = {field.name: field.default for field in fields(Settings)}
    same = set(given) & set(theirs) - {"threads", "max_images"}  # by the cores and the queue
    assert {name: given[name] for name in same} == {name: theirs[name] for name in same}
    assert given["max_delay_ms"] == theirs["max_delay_s"] * 1000
    assert given["max_body_mb"] * 1e6 == theirs["max_body_bytes"]
    assert (given["timeout"], given["grace"]) == (theirs["timeout_s"], theirs["grace_s"])
    assert given["linger"] == theirs["linger_s"]
    assert len(same) >= 8


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        ("evaluate", "split"),
        ("evaluate", "on_error"),
        ("evaluate", "missing_classes"),
        ("evaluate", "test_pooling"),
        ("ladder", "split"),
        ("ladder", "on_error"),
        ("ladder", "missing_classes"),
        ("predict", "mode"),
        ("predict", "test_pooling"),
        ("quantize", "purpose"),
        ("train", "progress"),
    ],
)
def test_the_choices_of_an_option_are_the_librarys(verb, option):
    [found] = [one for one in COMMANDS[verb].params if one.name == option]
    hint = eval(VERBS[verb].__annotations__[option], VERBS[verb].__globals__)
    literal = next((one for one in get_args(hint) if get_args(one)), hint)
    assert list(found.type.choices) == [name.replace("_", "-") for name in get_args(literal)]


def test_no_verb_takes_an_option_or_a_choice_from_another_verb():
    files = list(CLI.glob("*.py"))
    assert len(files) > len(COMMANDS)
    for file in files:
        source = file.read_text(encoding="utf-8")
        assert "StrEnum" not in source, file.name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("densepath.cli"):
                taken = {node.module.rsplit(".", 1)[-1], *(one.name for one in node.names)}
                verbs = {"evaluate", "export", "predict", "quantize", "train", "serve", "convert"}
                assert not taken & verbs, file.name


def test_an_option_of_two_verbs_with_the_same_words_stands_in_one_place():
    seen: dict[str, str] = {}
    for file in sorted(CLI.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in OPTIONS:
                text = ast.unparse(node)
                first = seen.setdefault(text, file.name)
                assert first == file.name, f"{text} in {first} and {file.name}"
    assert len(seen) > 50


def test_the_command_line_knows_the_choices_without_what_computes():
    code = (
        "import sys; from densepath.cli.app import build_command; build_command()\n"
        "assert not {'torch', 'numpy', 'PIL', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

"""What messages tell a user to run: verbs, options and values that there are, where they are told.

Every text in the source is read: its commands (`densepath VERB …`) must be of verbs with those
options, those choices and those formats. An option that is named alone (`--set data.train=.`) must
be one of every verb that can say so, by the part of the package it stands in.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

from densepath.bundle.formats import exported, quantised
from densepath.cli.app import app
from densepath.training.recipe import Recipe

SOURCE = Path(__file__).parents[2] / "src" / "densepath"
PAGES = [SOURCE.parents[1] / "README.md", *sorted((SOURCE.parents[1] / "docs").glob("*.md"))]
# A value that a message fills in when it is said.
BLANK = "‹›"
# Where a command begins: a line, a quotation, or behind these words; not "this densepath reads".
BEGINNING = r"(?:^|(?<=[`(])|(?<=[:(] )|(?<= {2})|(?<= or )|(?<= then ))"
COMMAND = re.compile(rf"{BEGINNING}densepath((?: (?!densepath)[^`\s]+)+)", re.MULTILINE)
END = re.compile(r"[.;,:] |\.?$| {2}| \(")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
# An option where the command line declares it, and Vela's own.
DECLARED = re.compile(r"--[a-z-]+(/--[a-z-]+)?")
SETTING = re.compile(r"--set ([\w.]+)=")
# Options of other programs, and of which only the name is spoken of.
FOREIGN = {"--no-deps", "--help", "--logdir"}
# What is no command: the whole command line as a help text has it.
HEADINGS = (["VERB", "SUBJECT", "[ARGUMENTS]", "[--option", "value]"],)
DATA_SOURCES = ("train", "evaluate", "data inspect", "quantize", "ladder")
# By part of the package: the verbs whose users read its messages. The longest name counts.
SAID_BY = {
    "bundle": ("export", "convert", "quantize"),
    "bundle/bfloat16.py": ("predict", "serve"),
    "bundle/speeds.py": ("predict", "serve"),
    "cli/convert.py": ("convert",),
    "cli/data.py": ("data inspect",),
    "cli/data_options.py": DATA_SOURCES,
    "cli/evaluate.py": ("evaluate",),
    "cli/bundle_report.py": ("export", "convert"),
    "cli/export.py": ("export",),
    "cli/features.py": ("predict",),
    "cli/import_.py": ("import",),
    "cli/ladder.py": ("ladder",),
    "cli/lr_find.py": ("lr-find",),
    "cli/models.py": ("models",),
    "cli/npu.py": ("npu compile",),
    "cli/npu_program.py": ("npu simulate", "npu profile"),
    "cli/npu_vectors.py": ("npu vectors",),
    "cli/options.py": ("export", "convert"),
    "cli/predict.py": ("predict",),
    "cli/preprocess_options.py": ("import", "convert"),
    "cli/quantize.py": ("quantize",),
    "cli/serve.py": ("serve",),
    "cli/tally.py": ("predict",),
    "cli/train.py": ("train",),
    "data": DATA_SOURCES,
    "data/loader.py": ("train", "evaluate", "ladder"),
    "bundle/other_formats.py": ("export", "quantize"),
    "engines": ("predict", "serve"),
    "images/find.py": ("predict",),
    "images/views.py": ("predict", "evaluate"),
    "predict/feature_file.py": ("predict",),
    "predict/load.py": ("predict",),
    "predict/viewing.py": ("predict", "evaluate"),
    "weights/backbone.py": ("train",),
    "engines/openvino.py": ("predict",),
    "evaluation": ("evaluate", "ladder"),
    "evaluation/forms.py": ("evaluate",),
    "exporting": ("export", "convert"),
    "exporting/convert.py": ("convert",),
    "npu": ("npu compile",),
    "npu/board.py": ("npu vectors",),
    "npu/vectors.py": ("npu vectors",),
    "quantize": ("quantize",),
    "serving": ("serve",),
    "training": ("train",),
    "training/recipe_file.py": DATA_SOURCES,
    "weights": ("import", "convert"),
    "weights/preprocess_changes.py": ("import", "convert", "evaluate", "predict"),
}


@cache
def verbs():
    """The words of a verb → its options by their names."""

    def walk(command, words):
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, [*words, name])
        if not hasattr(command, "commands"):
            options = {o: p for p in command.params for o in (*p.opts, *p.secondary_opts)}
            yield " ".join(words), options

    return dict(walk(get_command(app), []))


@dataclass(frozen=True)
class Text:
    """A text of the source; what is filled in is `BLANK`."""

    file: str
    line: int
    words: str
    is_docstring: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@cache
def texts() -> list[Text]:
    return [text for path in sorted(SOURCE.rglob("*.py")) for text in texts_of(path)]


def texts_of(path: Path) -> Iterator[Text]:
    """The texts of a file, docstrings among them; a part of a longer one is no text of its own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    file = str(path.relative_to(SOURCE))
    places = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, places) and node.body and isinstance(node.body[0], ast.Expr)
    }
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            filled = [p.value if isinstance(p, ast.Constant) else BLANK for p in node.values]
            yield Text(file, node.lineno, "".join(map(str, filled)), False)
        elif isinstance(node, ast.Constant) and id(node) not in parts:
            yield Text(file, node.lineno, str(node.value), id(node) in docstrings)


def parts_of(words: str) -> tuple[list[str], str]:
    """The commands in a text, each to the end of its sentence without `densepath`; and the rest."""
    joined = r"(?<=\S)(?<!```)\n *(?=\S)(?!```)"  # a command between fences is a line of its own
    text = re.sub(joined, " ", words) if "`" in words else words
    commands, rest, end = [], "", 0
    for found in COMMAND.finditer(text):
        command = END.split(found[1].strip())[0]
        commands.append(command)
        rest += text[end : found.start()]
        end = text.index(command, found.start()) + len(command)
    return commands, rest + text[end:]


def test_the_command_in_a_text_ends_with_its_sentence():
    text = "Make one: densepath export X --to a -o D. Or `densepath npu targets` lists --all of it."
    assert parts_of(text) == (
        ["export X --to a -o D", "npu targets"],
        "Make one: . Or `` lists --all of it.",
    )
    assert parts_of("See\n\n```\ndensepath predict X --top-k 3\n```\n`--a` and\n`--b`")[0] == [
        "predict X --top-k 3"
    ]
    assert parts_of("this densepath reads version 1: --x") == (
        [],
        "this densepath reads version 1: --x",
    )


def wrong_with(command: str) -> str | None:
    """What no verb accepts in a command; None where all is well."""
    words = command.split()
    verb = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in verbs()), None)
    if verb is None:
        group = len(words) == 1 and words[0] in {name.split()[0] for name in verbs()}
        return None if group or words in ([BLANK], *HEADINGS) else f"no verb {words[0]!r}"
    options = verbs()[verb]
    for name in OPTION.findall(command):
        if name not in options:
            return f"{verb} has no {name}"
    for name, value in re.findall(r"(--[a-z-]+)[ =]([^\s`]+)", command):
        choices = getattr(options[name].type, "choices", None)
        if choices and BLANK not in value and value.strip(",.") not in choices:
            return f"{verb} has no {name} {value}"
    formats = {
        "export": exported(),
        "convert": exported(),
        "quantize": list(quantised()),
    }.get(verb, [])
    for listed in re.findall(r"--to ([^\s`]+)", command) if formats else ():
        unknown = [one for one in listed.strip(".").split(",") if one not in (*formats, BLANK)]
        if unknown:
            return f"{verb} has no format {unknown[0]}"
    return None


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("exprot X", "no verb 'exprot'"),
        (f"{BLANK} --to onnx", f"no verb {BLANK!r}"),
        ("export X --dat Y", "export has no --dat"),
        ("export X --to litert,onnx -o D", "export has no format litert"),
        ("quantize X --data D --to onnx,torch -o D", "quantize has no format torch"),
        ("quantize X --data D --for phone", "quantize has no --for phone"),
        ("npu simulate P --target u55", "npu simulate has no --target"),
        ("npu compile B --target u55 -o D", None),
    ],
)
def test_a_command_that_no_verb_accepts_is_found(command, wrong):
    assert wrong_with(command) == wrong


def test_every_command_in_a_text_is_of_a_verb_with_those_options_and_choices():
    found = [(text, command) for text in texts() for command in parts_of(text.words)[0]]
    assert len(found) > 60
    wrong = {f"{text}: {command}": why for text, command in found if (why := wrong_with(command))}
    assert wrong == {}


def test_every_command_within_a_sentence_of_the_docs_is_of_a_verb_with_those_options():
    found = []
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        quoted = re.findall(r"`(densepath\s[^`]+)`", prose)
        found += [(page.name, one) for text in quoted for one in parts_of(f"`{text}`")[0]]
    assert len(found) > 20
    assert {f"{page}: {one}": why for page, one in found if (why := wrong_with(one))} == {}


def said_by(file: str) -> tuple[str, ...]:
    """The verbs whose users read messages of that file."""
    fitting = [part for part in SAID_BY if file == part or file.startswith(f"{part}/")]
    return SAID_BY[max(fitting, key=len)] if fitting else ()


def test_every_option_in_a_message_is_one_of_the_verbs_that_say_so():
    wrong, seen = {}, 0
    for text in texts():
        if text.is_docstring or DECLARED.fullmatch(text.words):
            continue
        for option in set(OPTION.findall(parts_of(text.words)[1])) - FOREIGN:
            seen += 1
            lacking = [verb for verb in said_by(text.file) if option not in verbs()[verb]]
            if lacking or not said_by(text.file):
                wrong[f"{text}: {option}"] = lacking
    assert seen > 60
    assert wrong == {}


def test_every_setting_in_a_message_is_a_field_of_a_recipe():
    names = {name for text in texts() for name in SETTING.findall(text.words)}
    names = {name for name in names if "." in name and name.islower()}
    assert len(names) > 10
    for name in names:
        model = Recipe
        for part in name.split("."):
            assert part in model.model_fields, name
            annotation = model.model_fields[part].annotation
            model = annotation if hasattr(annotation, "model_fields") else None

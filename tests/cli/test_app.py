"""What all verbs share: help, completion, and standard streams that are closed or full."""

from __future__ import annotations

import inspect
import itertools
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from densepath.bundle.bundle import Bundle
from densepath.cli.app import VERBS, app
from fixtures.commands import PROGRAM
from fixtures.networks import SHIPPED


def commands() -> dict[str, object]:
    """Every verb as it is typed, `npu compile` too, with its function; groups have none."""
    found = {command.name: command.callback for command in app.registered_commands}
    for group in app.registered_groups:
        found[group.name] = None
        for command in group.typer_instance.registered_commands:
            found[f"{group.name} {command.name or command.callback.__name__}"] = command.callback
    return found


@pytest.fixture
def show(run, monkeypatch):
    """Show the help of a verb on a terminal of so many columns."""

    def shown(arguments: str, *, columns: int = 80) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        code, out, err = run(*arguments.split())
        assert (code, err) == (0, "")
        return out

    return shown


def test_every_verb_is_reached():
    assert {name.split()[0] for name in commands()} == set(VERBS)


@pytest.mark.parametrize("verb", ["", *commands()])
def test_h_is_help(show, verb):
    shown = show(f"{verb} -h")
    assert shown == show(f"{verb} --help")
    assert "Usage: " in shown
    assert f"densepath {verb}".rstrip() in shown


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("verb", [name for name, function in commands().items() if function])
def test_paragraphs_of_help_fill_the_terminal_and_break_nowhere_else(show, verb, columns):
    shown = show(f"{verb} --help", columns=columns)
    said = [line.strip() for line in shown.partition("╭")[0].splitlines()]
    said = said[next(i for i, line in enumerate(said) if line.startswith("Usage")) + 1 :]
    paragraphs = "\n".join(said).strip().split("\n\n")
    written = inspect.cleandoc(commands()[verb].__doc__).split("\n\n")
    assert [" ".join(p.split()) for p in paragraphs] == [" ".join(p.split()) for p in written]
    for paragraph in paragraphs:
        lines = paragraph.split("\n")
        for line, after in itertools.pairwise(lines):
            assert len(line) + 1 + len(after.split()[0]) > columns - 2, line


@pytest.mark.parametrize("verb", [name for name, function in commands().items() if function])
def test_help_shows_each_text_letter_by_letter(show, verb):
    """Square brackets in it are none of rich's markup."""
    shown = show(f"{verb} --help", columns=400)
    hints = inspect.get_annotations(commands()[verb], eval_str=True)
    texts = [hint.__metadata__[0].help for name, hint in hints.items() if name != "return"]
    assert [text for text in texts if " ".join((text or "").split()) not in shown] == []


def test_the_defaults_of_train_are_shown(show):
    shown = show("train --help", columns=200)
    for default in ("[default: digits]", "[default: runs/MODEL-DATA]", "[default: by cores]"):
        assert default in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_and_installed(shell, tmp_path):
    """The shell is the parent process, by its name; where it is missing, bash bears its name."""
    named = tmp_path / shell
    named.symlink_to("/bin/bash")
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "SHELL": str(named)}
    for option in ("--show-completion", "--install-completion"):
        run = subprocess.run(
            [named, "-c", f"'{PROGRAM}' {option}; exit $?"],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert run.returncode == 0, run.stderr
        assert "Traceback" not in run.stderr
    assert "densepath" in "".join(
        path.read_text(encoding="utf-8") for path in home.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("densepath qu", "quantize"),
        ("densepath npu si", "simulate"),
        ("densepath train --dat", "--data"),
        ("densepath predict x --engine open", "openvino"),
        ("densepath models --bat", "--batch-size"),
    ],
)
def test_verbs_options_and_choices_are_completed(typed, expected):
    run = subprocess.run(
        [PROGRAM],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_DENSEPATH_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(typed.split()) - 1),
        },
    )
    assert expected in run.stdout.split(), run.stderr


PRINTING = ["models", "models --json", "--version", "--help", "train -h", "npu --help"]


def in_shell(command: str, *, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    return subprocess.run(
        ["bash", "-c", f"'{PROGRAM}' {command}"], capture_output=True, text=True, env=environment
    )


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@needs_full
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", PRINTING)
@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_an_answer_that_is_lost_is_one_line_and_exit_code_1(command, output, unbuffered):
    run = in_shell(f"{command} {output}", unbuffered=unbuffered)
    said = [line for line in run.stderr.splitlines() if not line.startswith("top-1 as")]
    assert run.returncode == 1
    assert len(said) == 1, run.stderr
    assert said[0].startswith("error: standard output could not be written: ")


@needs_full
@pytest.mark.parametrize("errors", ["2>/dev/full", "2>&-", "2>&- <&-"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_error_that_is_lost_changes_no_answer(errors, unbuffered):
    assert in_shell(f"models {errors}", unbuffered=unbuffered).returncode == 0
    wrong = in_shell(f"models none {errors}", unbuffered=unbuffered)
    assert (wrong.returncode, wrong.stdout, wrong.stderr) == (2, "", "")
    whole = in_shell("models", unbuffered=unbuffered)
    assert in_shell(f"models {errors}", unbuffered=unbuffered).stdout == whole.stdout


def test_a_reader_that_has_gone_is_told_nothing():
    run = in_shell("models --json | head -c 1")
    assert (run.returncode, run.stdout, run.stderr) == (0, "{", "")


@needs_full
@pytest.mark.parametrize(
    ("options", "output"),
    [("", ">/dev/full"), ("--json", ">/dev/full"), ("--csv", ">/dev/full"), ("--json", ">&-")],
)
def test_answers_of_predict_that_are_lost_are_an_error_too(output, options, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    run = in_shell(f"predict {SHIPPED} '{tmp_path}/photo.png' {options} {output}")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("error: standard output could not be written")
    assert "Traceback" not in run.stderr
    assert "ignored" not in run.stderr


def test_no_file_takes_the_place_of_an_output_that_is_closed(tmp_path):
    """The lowest free number is that of standard output; what is printed would land in it."""
    run = in_shell(f"export {SHIPPED} --to torch -o '{tmp_path}/b' --num-images 2 >&- 2>&- <&-")
    assert run.returncode == 1
    Bundle.open(tmp_path / "b").verify("torch")
    whole = in_shell(f"predict '{tmp_path}/b' - <&-")
    assert whole.returncode == 1
    assert "Traceback" not in whole.stderr

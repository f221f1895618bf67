"""`densepath VERB SUBJECT [ARGUMENTS] [--option value]`: the verbs and the error boundary.

A verb's file is imported when the verb is named, so that each starts without what the others need.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densepath.caches import share_cache
from densepath.cli.console import note, show_notes, speak_utf8
from densepath.cli.ending import tidy_when_ended
from densepath.cli.streams import close_streams, failed_output, open_streams
from densepath.errors import DensepathError
from densepath.version import __version__

SPIN_COUNT = "1000"
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended: 128 and SIGINT's number
HELP = "DenseNet and Dual Path Networks: from a folder of images to a trained, measured model."

# Verb → the module of `densepath.cli` and its function.
VERBS = {
    "data": ("data", "data"),
    "train": ("train", "train"),
    "lr-find": ("lr_find", "lr_find"),
    "runs": ("runs", "runs"),
    "evaluate": ("evaluate", "evaluate"),
    "predict": ("predict", "predict"),
    "models": ("models", "models"),
    "import": ("import_", "import_"),
    "export": ("export", "export"),
    "convert": ("convert", "convert"),
    "quantize": ("quantize", "quantize"),
    "ladder": ("ladder", "ladder"),
    "npu": ("npu", "npu"),
    "serve": ("serve", "serve"),
}

if TYPE_CHECKING:
    app: typer.Typer  # all verbs; see __getattr__


def build_app(verbs: Iterable[str] = VERBS) -> typer.Typer:
    """The command line with these verbs."""
    made = typer.Typer(
        name="densepath",
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_options)
    for verb in verbs:
        name, function = VERBS[verb]
        module = importlib.import_module(f"densepath.cli.{name}")
        found = getattr(module, function)
        if isinstance(found, typer.Typer):
            made.add_typer(found, name=verb)
        else:
            made.command(verb, epilog=getattr(module, "EPILOG", None))(found)
    return made


def build_command(verbs: Iterable[str] = VERBS) -> Any:
    """The same, ready to be called; its help says what the texts say, letter by letter."""
    command = typer.main.get_command(build_app(verbs))
    for one in _walk(command):
        one.help = _plain(_unwrap(one.help or ""))
        one.epilog = _plain(_unwrap(one.epilog or ""))
        for parameter in one.params:
            parameter.help = _plain(getattr(parameter, "help", None) or "")
    return command


def _walk(command: Any) -> Iterator[Any]:
    """A command and all below it."""
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from _walk(below)


def _unwrap(text: str) -> str:
    """The paragraphs of a docstring, each on one line: the terminal's width breaks it."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _plain(text: str) -> str:
    """`text` so that typer shows square brackets, in place of reading them as rich's markup."""
    if "[" not in text:
        return text
    from rich.markup import escape

    return escape(text)


def __getattr__(name: str) -> typer.Typer:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = made = build_app()
    return made


def _print_version(wanted: bool) -> None:
    """Print the version and exit, where it is asked for."""
    if wanted:
        typer.echo(f"densepath {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options before the verb."""


def main() -> None:
    """Run one verb; a user's mistake becomes one line on standard error and exit code 1 or 2."""
    open_streams()
    speak_utf8()
    show_notes()
    _set_environment()
    with tidy_when_ended():
        code = _run()
    sys.exit(code if close_streams() else code or 1)


def _set_environment() -> None:
    """Set what libraries read when they are imported, unless the user has set it."""
    # Threads that wait for others sleep soon: spinning as long as the OpenMP runtime does by
    # default costs a shared machine two thirds of its speed. Read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    share_cache()


def _run() -> int:
    """Run the verb that is named, and give its exit code."""
    named = [verb for verb in sys.argv[1:2] if verb in VERBS]
    try:
        build_command(named or VERBS)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except DensepathError as error:
        note(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED
    except OSError as error:
        if error is not failed_output():
            raise
        return 1  # `close_streams` says what became of standard output
    return 0

"""`densepath VERB SUBJECT [ARGUMENTS] [--option value]`: the verbs and the error boundary.

A verb's file is imported when the verb is named, so that each starts without what the others need.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from densepath.cli.console import note, show_notes, speak_utf8
from densepath.errors import DensepathError
from densepath.version import __version__

SPIN_COUNT = "1000"
HELP = "DenseNet and Dual Path Networks: from a folder of images to a trained, measured model."

# Verb → the module of `densepath.cli` and its function.
VERBS = {
    "data": ("data", "data"),
    "train": ("train", "train"),
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
        add_completion=False,
        rich_markup_mode="rich",
    )
    made.callback()(_options)
    for verb in verbs:
        module, function = VERBS[verb]
        found = getattr(importlib.import_module(f"densepath.cli.{module}"), function)
        if isinstance(found, typer.Typer):
            made.add_typer(found, name=verb)
        else:
            made.command(verb)(found)
    return made


def __getattr__(name: str) -> typer.Typer:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = made = build_app()
    return made


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"densepath {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options before the verb."""


def main() -> None:
    """Runs one verb; a user's mistake becomes one line on standard error and exit code 1 or 2."""
    # Threads that wait for others sleep soon: spinning as long as the OpenMP runtime does by
    # default costs a shared machine two thirds of its speed. Read when torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    speak_utf8()
    show_notes()
    named = [verb for verb in sys.argv[1:2] if verb in VERBS]
    try:
        build_app(named or VERBS)()
    except DensepathError as error:
        note(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        note("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`densepath predict ... | head`): nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

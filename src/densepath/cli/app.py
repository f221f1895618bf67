"""`densepath VERB SUBJECT [ARGUMENTS] [--option value]`: the verbs and the error boundary."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from densepath import __version__
from densepath.cli import evaluate, import_, models, predict, train
from densepath.cli.console import note
from densepath.errors import DensepathError

SPIN_COUNT = "1000"

app = typer.Typer(
    name="densepath",
    help="DenseNet and Dual Path Networks: from a folder of images to a trained, measured model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("models")(models.models)
app.command("import")(import_.import_)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"densepath {__version__}")
        raise typer.Exit


@app.callback()
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
    try:
        app()
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

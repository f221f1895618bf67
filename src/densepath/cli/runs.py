"""`densepath runs`: run folders side by side."""

from __future__ import annotations

import csv as csv_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densepath.cli import options
from densepath.cli.console import note, print_json, stdout
from densepath.errors import UsageError

if TYPE_CHECKING:
    from densepath.training.runs import Run, Runs


def runs(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Run folders are looked for in it, and in all folders below."
        ),
    ] = Path("runs"),
    json: options.JsonLines = False,
    csv: Annotated[bool, typer.Option("--csv", help="One CSV row a run.")] = False,
) -> None:
    """List trainings side by side: figures, state, and in what their recipes differ.

    The best figure comes first. Folders that cannot be read are named with the reason; a training
    that is running is read as it stands.

    Exits with 1 when not one run folder could be read.

    Example: densepath runs runs/ --json
    """
    from densepath.training.runs import find_runs

    if json and csv:
        raise UsageError("one output format, please, not csv and json.")
    listed = find_runs(folder)
    if json:
        for values in listed.to_dicts():
            print_json(values)
    elif csv:
        _print_csv(listed)
    elif listed.found:
        _print_table(listed, folder)
    for path, reason in listed.broken:
        note(f"could not be read: {path}: {reason}")
    if not listed.found:
        raise typer.Exit(1)


def _print_csv(listed: Runs) -> None:
    """Print a row a run, with a column for each difference; those that cannot be read left out."""
    from densepath.names import readable
    from densepath.training.runs import differing_values

    if not listed.found:
        return
    writer = csv_module.writer(sys.stdout, lineterminator="\n")
    fields = [f"recipe.{name}" for name in listed.differences]
    writer.writerow([*listed.found[0].to_dict(), *fields])
    for run in listed.found:
        cells = [*run.to_dict().values(), *differing_values(run, listed.differences)]
        writer.writerow([readable(cell) if isinstance(cell, str) else cell for cell in cells])


def _print_table(listed: Runs, top: Path) -> None:
    """Print the runs for a person, and below how those ended that were cut short."""
    from rich.table import Table

    from densepath.training.runs import differing_values
    from densepath.wording import printable

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("run", overflow="fold")
    for title in ("best", "epoch", "state", "time", "images"):
        table.add_column(title, justify="left" if title == "state" else "right", no_wrap=True)
    for name in listed.differences:
        table.add_column(name.replace(".", ".\n"), overflow="fold")
    for run in listed.found:
        place = run.folder.relative_to(top)
        table.add_row(
            printable(str(place) if place.name else str(run.folder)),
            *_figures(run),
            *(printable(value) for value in differing_values(run, listed.differences)),
        )
    stdout().print(table)
    for run in listed.found:
        if run.note:
            first = run.note.partition(". ")[0]
            note(f"{printable(str(run.folder))} {run.state}: {printable(first)}")


def _figures(run: Run) -> list[str]:
    """Best figure, its epoch of those done, state, time and images, for a person."""
    from densepath.wording import percent

    best = ""
    if run.best is not None:
        value = f"{run.best:.4f}" if "loss" in run.score else percent(run.best, 2)
        best = f"{run.score} {value}"
    epoch = "" if run.best_epoch is None else f"{run.best_epoch} of "
    planned = "" if run.epochs == run.planned_epochs else f"/{run.planned_epochs}"
    whole = round(run.seconds)
    time = f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    images = "" if run.num_images is None else f"{run.num_images[0]:,}"
    return [best, f"{epoch}{run.epochs}{planned}", run.state, time, images]

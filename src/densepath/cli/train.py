"""`densepath train`: from the name of a model and some images to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densepath.choices import FloatPrecision, OnError, ProgressStyle
from densepath.cli import options, outputs
from densepath.cli.console import note, print_json
from densepath.training.recipe_names import list_recipes
from densepath.wording import percent

if TYPE_CHECKING:
    from densepath.training.train import RunResult

# What a shell reports for a program that a signal ended: 128 and the signal's number.
EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}
EXIT_OTHERS_STOPPED = 143


RECIPE, RUN = "Recipe", "Where it runs"
EPILOG = list_recipes()


def train(
    subject: Annotated[
        str | None,
        typer.Argument(
            help="A model (`densepath models`), weights to fine-tune (published name or file), "
            "a recipe (a name as `recipe:digits`, or a .yaml), or a run folder to go on with.",
            show_default=False,
        ),
    ] = None,
    data: options.TrainingData = None,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=outputs.path,
            help="The run folder. [default: runs/MODEL-DATA]",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Settings: a YAML file or a recipe's name.", rich_help_panel=RECIPE),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.FIELD=VALUE",
            help="Any field of the recipe; may be repeated.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the images; of a run folder, how many it goes on to.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Images of one step, over all processes.", rich_help_panel=RECIPE),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="The peak learning rate.", rich_help_panel=RECIPE)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Start from these: published name, checkpoint or run folder.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    qat: Annotated[
        str | None,
        typer.Option(
            metavar="SUBJECT",
            help="Fine-tune these trained weights so that INT8 loses next to nothing: a run "
            "folder, checkpoint, bundle or published name.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="stem|features|N",
            help="Keep the stem, all but the classifier, or the stem and N stages.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    precision: Annotated[
        FloatPrecision | None, typer.Option(help="Type of the arithmetic.", rich_help_panel=RECIPE)
    ] = None,
    channels_last: Annotated[
        bool | None,
        typer.Option(
            "--channels-last/--channels-first", help="Layout of images.", rich_help_panel=RECIPE
        ),
    ] = None,
    compile: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="torch.compile.", rich_help_panel=RECIPE),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of every random draw.", rich_help_panel=RECIPE)
    ] = None,
    on_error: Annotated[
        OnError | None,
        typer.Option(metavar="skip|fail", help="For unreadable images.", rich_help_panel=RECIPE),
    ] = None,
    tensorboard: Annotated[
        bool | None,
        typer.Option(
            "--tensorboard",
            help="Curves and pictures for TensorBoard, in the run folder.",
            rich_help_panel=RECIPE,
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on if the run folder already holds this training."),
    ] = False,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=RUN)
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that load images; the result is the same. [default: by cores]",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    progress: Annotated[
        ProgressStyle, typer.Option(help="On standard error.", rich_help_panel=RUN)
    ] = "auto",
    json: options.Json = False,
) -> None:
    """Train a network, or go on with a run folder; Ctrl-C stops it so that it can go on.

    Example: densepath train densenet_bc_40_12 --data cifar10 --epochs 20 --output runs/first
    """
    import os

    from densepath.training.distributed import PeerError, find_ranks, said_by_leader
    from densepath.training.recipe_file import merge_flags, parse_settings
    from densepath.training.signals import StoppedNow
    from densepath.training.train import train as train_network

    flags = {
        "data.batch_size": batch_size,
        "optimizer.lr": lr,
        "model.weights": weights,
        "model.freeze": freeze,
        "compute.precision": precision,
        "compute.channels_last": channels_last,
        "compute.compile": compile,
        "seed": seed,
        "data.on_error": on_error,
        "logging.tensorboard": tensorboard,
    }
    ranks = find_ranks(os.environ)
    try:
        with said_by_leader(ranks):
            given = merge_flags(parse_settings(settings or []), flags)
        result = train_network(
            subject,
            data=data,
            epochs=epochs,
            output=output,
            recipe=recipe,
            settings=given,
            qat=qat,
            resume=resume,
            device=device,
            workers=workers,
            progress=progress,
            say=note,
            ends_process=True,
        )
    except PeerError as error:
        # The process that failed, or the leading one, has printed its message.
        raise typer.Exit(error.exit_code) from None
    except StoppedNow as stopped:
        raise typer.Exit(EXIT_CODES[stopped.signal]) from None
    _report(result, json, speaks=ranks.leads)


def _report(result: RunResult, json: bool, *, speaks: bool) -> None:
    """Print the result in the leading process; exit with a signal's code if one came."""
    if speaks:
        if json:
            print_json(result.to_dict())
        elif result.best_top1 is not None:
            chosen = ""
            if result.monitor != "top1" and result.best_monitored is not None:
                chosen = f"best {result.monitor} {result.best_monitored:.4f}: "
            note(
                f"{chosen}{'' if chosen else 'best '}{result.score} "
                f"{percent(result.best_top1, 2)} in epoch {result.best_epoch} of {result.epochs}; "
                f"{result.folder}"
            )
        if result.already_finished:
            _note_finished(result)
        if result.stopped_by:
            state = "state written" if result.state_written else "before its first step"
            note(
                f"stopped by {result.stopped_by}, {state}. "
                f"Go on with: densepath train {result.folder}"
            )
    if result.stopped_by:
        raise typer.Exit(EXIT_CODES.get(result.stopped_by, EXIT_OTHERS_STOPPED))


def _note_finished(result: RunResult) -> None:
    """Print that there was nothing to do, and what can be done."""
    from densepath.training.more_epochs import describe_more
    from densepath.training.run_folder import read_run_recipe

    done = f"{result.epochs:,} of {result.planned_epochs:,} epochs"
    note(f"already finished: {done}; nothing was trained.")
    note(describe_more(read_run_recipe(result.folder), result.folder))

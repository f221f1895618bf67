"""`densepath lr-find`: the learning rate that a recipe's own steps suggest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densepath.cli import options, outputs
from densepath.cli.console import note, print_json
from densepath.cli.progress import show_pace
from densepath.descriptors import stream_name

STEPS, LOWEST, HIGHEST = 100, 1e-6, 10.0  # those of the library, which this file does not import


def lr_find(
    subject: Annotated[
        str | None,
        typer.Argument(
            help="What `train` takes: a model, weights to fine-tune, a recipe, or a run folder, "
            "whose recipe is taken and which stays as it is.",
            show_default=False,
        ),
    ] = None,
    data: options.TrainingData = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Settings: a YAML file or a recipe's name.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.FIELD=VALUE",
            help="Any field of the recipe; may be repeated.",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(help="The most steps, each at a higher rate; 20 at least.")
    ] = STEPS,
    lowest: Annotated[float, typer.Option("--from", help="The rate of the first step.")] = LOWEST,
    highest: Annotated[float, typer.Option("--to", help="The rate of the last step.")] = HIGHEST,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            parser=outputs.path,
            help="Draw the curve into this .png file.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that load images; the result is the same. [default: by cores]",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Suggest a learning rate: train some steps at ever higher rates, and see the loss.

    Images, augmentation, loss, optimiser and precision are the recipe's. The weights are thrown
    away; nothing is written but the picture.

    Exits with 1 when the loss falls nowhere, so that nothing can be suggested.

    Example: densepath lr-find densenet_bc_40_12 --data cifar10 -o curve.png
    """
    from densepath.drawing.picture import save_picture
    from densepath.outputs import check_file
    from densepath.training.lr_find import find_learning_rate
    from densepath.training.rate_curve import draw_curve
    from densepath.training.recipe_file import parse_settings

    console = outputs.console_beside({"--output": output}, json=json)
    if output is not None:
        check_file(output)
    with show_pace("opening the images", shown=console.is_terminal) as say:
        curve = find_learning_rate(
            subject,
            data=data,
            recipe=recipe,
            settings=parse_settings(settings or []),
            steps=steps,
            lowest=lowest,
            highest=highest,
            device=device,
            workers=workers,
            tell=lambda step, rate, loss: say(
                f"step {step} of {steps}: loss {loss:.3f} at a rate of {rate:.2g}"
            ),
        )
    failed = None
    if output is not None:
        failed = save_picture(output, lambda: draw_curve(curve))
    if json:
        print_json(curve.to_dict())
    elif curve.suggestion is not None:
        console.print(curve.settings, highlight=False)
    note(curve.about)
    note(_tried(curve.rates, curve.stopped_by))
    if curve.steepest is not None and curve.valley is not None:
        note(
            f"steepest {curve.steepest:.2g}, which is suggested; valley {curve.valley:.2g}, the "
            "cautious choice. With a warm-up more is borne than without."
        )
    if output is not None and failed is None:
        note(f"curve in {stream_name(output)}")
    if curve.suggestion is None:
        note(
            "no suggestion: the loss falls nowhere. Try more --steps, a lower --from or a higher "
            "--to; and check the labels."
        )
    if curve.suggestion is None or failed is not None:
        raise typer.Exit(1)


def _tried(rates: list[float], stopped_by: str) -> str:
    """Which rates were tried, and why no higher ones."""
    why = "; there the loss grew without bound" if stopped_by == "divergence" else ""
    return f"{len(rates)} steps at rates from {rates[0]:.2g} to {rates[-1]:.2g}{why}."

"""`densepath npu simulate` and `npu profile`: what a program answers, and what its layers cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densepath.choices import TOP_K
from densepath.cli import options, outputs
from densepath.cli.console import note, print_json, print_lines, stdout
from densepath.cli.progress import show_steps
from densepath.errors import EngineError
from densepath.wording import percent

if TYPE_CHECKING:
    from rich.console import Console

    from densepath.npu.profile import Profile
    from densepath.npu.simulate import Simulation


def simulate(
    program: options.ProgramFolder,
    source: Annotated[
        Path,
        typer.Option(
            "--input",
            metavar="FILE",
            help="An image, or a .bin file of the input's bytes: uint8, rows of pixels.",
        ),
    ],
    top_k: Annotated[int, typer.Option(min=1, help="Classes in the answer.")] = TOP_K,
    dump: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=outputs.path,
            help="Write what every layer made.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Run LiteRT's reference kernels, too, and compare every layer's bytes."
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Run an image through a program's integers, as the NPU computes them.

    Example: densepath npu simulate pets-u65 --input model_input.bin
    """
    from densepath.npu.program import Program
    from densepath.npu.simulate import differing_layers, dump_layers
    from densepath.npu.simulate import simulate as run
    from densepath.outputs import check_folder

    if dump is not None:
        check_folder(dump)
    opened = Program.open(program)
    with show_steps("simulating") as say:
        made = run(opened, source, top_k=min(top_k, len(opened.labels)))
        if dump is not None:
            dump_layers(made, dump)
        differing = []
        if check:
            say("simulating by LiteRT's reference kernels")
            differing = differing_layers(made, run(opened, source, kernels="litert", top_k=1))
    _print_simulation(made, json=json)
    if differing:
        raise EngineError(
            f"{len(differing)} of {len(made.layers)} layers differ from LiteRT's reference "
            f"kernels; the first is {differing[0]}."
        )
    if check:
        note(f"all {len(made.layers)} layers have the bytes of LiteRT's reference kernels")
    if dump is not None:
        note(f"{len(made.layers)} layers are in {dump}")


def _print_simulation(made: Simulation, *, json: bool) -> None:
    """Print the answer and its integers."""
    best = made.prediction
    if json:
        print_json({**best.to_dict(), "logits": made.logits.tolist(), "seconds": made.seconds})
        return
    lines = [
        f"{percent(score):>7}  {label}"
        for score, label in zip(best.scores, best.labels, strict=True)
    ]
    print_lines(lines, stdout())


def profile(
    program: options.ProgramFolder,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=outputs.path, help="Write a row a layer.", show_default=False
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", parser=outputs.path, help="Draw the layers.", show_default=False
        ),
    ] = None,
    layers: Annotated[int, typer.Option(min=0, help="The costliest layers to show.")] = 10,
    json: options.Json = False,
) -> None:
    """Show which layers of a program cost what, what bounds them, and what to change.

    Example: densepath npu profile pets-u65 --picture profile.png
    """
    from densepath.npu.figure import draw_profile
    from densepath.npu.fitting import check_fits
    from densepath.npu.profile import profile as measure
    from densepath.npu.profile import write_csv
    from densepath.npu.program import Program
    from densepath.outputs import check_file

    console = outputs.console_beside({"--csv": csv, "--picture": picture}, json=json)
    if csv is not None:
        check_file(csv)
    opened = Program.open(program)
    made = measure(opened)
    if csv is not None:
        write_csv(made, csv)
    failed = draw_profile(made, picture) if picture is not None else None
    _print_profile(made, layers, console, json=json)
    check_fits(opened)
    if failed is not None:
        raise typer.Exit(1)  # the note says why


def _print_profile(made: Profile, layers: int, console: Console, *, json: bool) -> None:
    """Print the costliest layers, and their sum."""
    if json:
        print_json(made.to_dict())
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", no_wrap=True)
    for title in ("operator", "bound by"):
        table.add_column(title)
    for title in ("ms", "share", "utilisation"):
        table.add_column(title, justify="right")
    for one in sorted(made.on_npu, key=lambda one: -one.cycles)[:layers]:
        table.add_row(
            one.name,
            one.operator,
            one.bound_by,
            f"{made.milliseconds(one):.3f}",
            percent(one.cycles / max(made.cycles, 1)),
            percent(one.utilisation),
        )
    for one in sorted(made.on_cpu, key=lambda one: -one.macs)[:layers]:
        table.add_row(one.name, one.operator, one.bound_by, *["not counted"] * 3)
    console.print(table)
    estimate = made.program.description.estimate
    bound = ", ".join(
        f"{name} {percent(share, 0)}" for name, share in made.share_by("bound_by").items()
    )
    where = " on the NPU" if made.on_cpu else ""
    lines = [f"{estimate.inference_ms:.2f} ms an image{where}, estimated; cycles by {bound}"]
    lines += [f"- {line}" for line in made.advice()]
    print_lines(lines, console)

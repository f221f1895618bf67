"""`densepath npu`: an INT8 bundle compiled for an NPU, simulated and profiled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densepath.cli import export as exporting
from densepath.cli import outputs
from densepath.cli.console import note, print_json, stdout
from densepath.cli.npu_vectors import ProgramFolder, vectors
from densepath.errors import EngineError
from densepath.wording import first_of, percent

if TYPE_CHECKING:
    from rich.console import Console

    from densepath.npu.profile import Profile
    from densepath.npu.program import Program
    from densepath.npu.simulate import Simulation

npu = typer.Typer(
    no_args_is_help=True, help="Compile, simulate and profile for an Arm Ethos-U NPU."
)

npu.command()(vectors)
KIB = 1024


@npu.command()
def targets(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="[BUNDLE]",
            help="An INT8 bundle with litert: compile it for each, and say whether it fits.",
            show_default=False,
        ),
    ] = None,
    json: exporting.Json = False,
) -> None:
    """List the NPUs, their memory modes, and whether a network fits each.

    Example: densepath npu targets bundles/pets-npu
    """
    import tempfile

    from densepath.npu.compile import compile_program
    from densepath.npu.targets import find_target, memory_modes, system_configs, target_names

    rows = []
    with exporting.progress() as say, tempfile.TemporaryDirectory(prefix="densepath-") as folder:
        for name in target_names():
            target = find_target(name)
            row = {
                "name": name,
                "macs_per_cycle": target.macs_per_cycle,
                "clock_hz": target.clock_hz,
                "system_config": target.system_config,
                "memory_mode": target.memory_mode,
                "system_configs": list(system_configs(target.generation)),
                "memory_modes": list(memory_modes(target.system_config)),
            }
            if bundle is not None:
                say(f"compiling for {name}")
                row |= _try(compile_program, bundle, target, Path(folder) / name)
            rows.append(row)
    if json:
        print_json({"targets": rows})
        return
    _print_targets(rows, fitted=bundle is not None)


def _try(compile_program, bundle: Path, target, folder: Path) -> dict:  # type: ignore[no-untyped-def]
    """The estimate for a target, or why there is none."""
    try:
        about = compile_program(bundle, target, folder).about
    except EngineError as error:
        return {"fits": False, "reason": str(error)}
    estimate = about["estimate"]
    return {
        "fits": estimate["fits"],
        "inference_ms": estimate["inference_ms"],
        "sram_bytes": estimate["memory_bytes"]["sram"],
        "sram_limit_bytes": estimate["sram_limit_bytes"],
        "share_on_npu": about["operators"]["share"],
        "not_counted": estimate["not_counted"],
    }


def _print_targets(rows: list[dict], *, fitted: bool) -> None:
    """The rows as a table."""
    from rich.table import Table

    from densepath.npu.estimate import NotCounted

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("target", "MACs", "MHz", "memory mode"):
        table.add_column(title)
    incomplete = any(row.get("not_counted", {}).get("operators") for row in rows)
    more = ["fits", "ms", "SRAM KiB", "on NPU"] if fitted else ["other memory modes"]
    for title in [*more, "not in the ms, on the CPU"] if incomplete else more:
        table.add_column(title)
    for row in rows:
        cells = [row["name"], str(row["macs_per_cycle"]), f"{row['clock_hz'] / 1e6:.0f}"]
        cells.append(row["memory_mode"])
        if not fitted:
            others = [mode for mode in row["memory_modes"] if mode != row["memory_mode"]]
            cells.append(", ".join(others))
        elif "reason" in row:
            cells += ["no", row["reason"]]
        else:
            used, limit = row["sram_bytes"] / KIB, row["sram_limit_bytes"] / KIB
            cells += ["yes" if row["fits"] else "no", f"{row['inference_ms']:.2f}"]
            cells += [f"{used:.0f} of {limit:.0f}", percent(row["share_on_npu"])]
            if incomplete:
                cells.append(NotCounted(**row["not_counted"]).size())
        table.add_row(*cells)
    stdout().print(table)


def _print_lines(lines: list[str], console: Console) -> None:
    """Lines of text for a person."""
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


@npu.command(name="compile")
def compile_(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="An INT8 bundle with the format litert.")
    ],
    target: Annotated[
        str, typer.Option(help="As ethos-u55-128; `densepath npu targets` lists all.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", parser=outputs.path, help="The folder of the program, a new one."
        ),
    ],
    memory_mode: Annotated[
        str | None, typer.Option(help="Of Vela; the target's usual one.", show_default=False)
    ] = None,
    system_config: Annotated[
        str | None, typer.Option(help="Of Vela; the target's usual one.", show_default=False)
    ] = None,
    sram_kib: Annotated[int, typer.Option(min=1, help="The SRAM of the board in KiB.")] = 2048,
    c_array: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.c",
            parser=outputs.path,
            help="Write the program as an array, in C that is C++, too.",
        ),
    ] = None,
    overwrite: exporting.Overwrite = False,
    json: exporting.Json = False,
) -> None:
    """Compile an INT8 bundle for an NPU, and estimate its time and memory.

    Example: densepath npu compile bundles/pets-npu --target ethos-u65-512 -o pets-u65
    """
    from densepath.npu.c_source import write_c_array
    from densepath.npu.compile import compile_program
    from densepath.npu.estimate import NotCounted
    from densepath.npu.targets import find_target
    from densepath.outputs import check_file

    console = outputs.console_beside({"--c-array": c_array}, json=json)
    if c_array is not None:
        check_file(c_array)
    chosen = find_target(
        *(target,),
        system_config=system_config,
        memory_mode=memory_mode,
        sram_bytes=KIB * sram_kib,
    )
    with exporting.progress() as say:
        say(f"compiling for {chosen.name}")
        program = compile_program(bundle, chosen, output, overwrite=overwrite)
        if c_array is not None:
            write_c_array(program, c_array)
    about = program.about
    if json:
        print_json({"output": str(program.folder), **about})
        _check_fits(program)
        return
    estimate, operators = about["estimate"], about["operators"]
    memory = {
        name: f"{size / KIB:.0f} KiB" for name, size in estimate["memory_bytes"].items() if size
    }
    if not estimate["fits"]:
        memory["sram"] += f" of {estimate['sram_limit_bytes'] / KIB:.0f}, which is too much"
    left = NotCounted(**estimate["not_counted"])
    where = " on the NPU" if left.operators else ""
    lines = [
        f"{about['model']} on {chosen.name}: {estimate['inference_ms']:.2f} ms an image{where}, "
        "estimated",
        *([str(left)] if left.operators else []),
        f"operators on the NPU: {percent(operators['share'])}"
        + (f"; on the CPU: {first_of(operators['cpu'])}" if left.operators else ""),
        f"memory: {', '.join(f'{name} {size}' for name, size in memory.items())}",
    ]
    _print_lines(lines, console)
    note(f"{program.folder}: firmware for a board is in main.cc, how to build it in README.md")
    _check_fits(program)


def _check_fits(program: Program) -> None:
    """Raise EngineError where the program needs more memory than its board has."""
    from densepath.npu.fitting import why_unfit

    unfit = why_unfit(program.about)
    if unfit is not None:
        target = program.about["target"]["name"]
        raise EngineError(f"{program.folder} does not fit its {target}: {unfit}")


@npu.command()
def simulate(
    program: ProgramFolder,
    source: Annotated[
        Path,
        typer.Option(
            "--input",
            metavar="FILE",
            help="An image, or a .bin file of the input's bytes: uint8, rows of pixels.",
        ),
    ],
    top_k: Annotated[int, typer.Option(min=1, help="Classes in the answer.")] = 5,
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
    json: exporting.Json = False,
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
    with exporting.progress() as say:
        say("simulating")
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
    """The answer and its integers."""
    best = made.prediction
    if json:
        print_json({**best.to_dict(), "logits": made.logits.tolist(), "seconds": made.seconds})
        return
    lines = [
        f"{percent(score):>7}  {label}"
        for score, label in zip(best.scores, best.labels, strict=True)
    ]
    _print_lines(lines, stdout())


@npu.command()
def profile(
    program: ProgramFolder,
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
    json: exporting.Json = False,
) -> None:
    """Show which layers of a program cost what, what bounds them, and what to change.

    Example: densepath npu profile pets-u65 --picture profile.png
    """
    from densepath.npu.figure import draw_profile
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
    _check_fits(opened)
    if failed is not None:
        raise typer.Exit(1)  # the note says why


def _print_profile(made: Profile, layers: int, console: Console, *, json: bool) -> None:
    """The costliest layers, and what they come to."""
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
            *(one.name, one.operator, one.bound_by, f"{made.milliseconds(one):.3f}"),
            *(percent(one.cycles / max(made.cycles, 1)), percent(one.utilisation)),
        )
    for one in sorted(made.on_cpu, key=lambda one: -one.macs)[:layers]:
        table.add_row(one.name, one.operator, one.bound_by, *["not counted"] * 3)
    console.print(table)
    estimate = made.program.about["estimate"]
    bound = ", ".join(
        f"{name} {percent(share, 0)}" for name, share in made.share_by("bound_by").items()
    )
    where = " on the NPU" if made.on_cpu else ""
    lines = [f"{estimate['inference_ms']:.2f} ms an image{where}, estimated; cycles by {bound}"]
    lines += [f"- {line}" for line in made.advice()]
    _print_lines(lines, console)

"""`densepath npu`: the targets, and an INT8 bundle compiled for one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from densepath.cli import options, outputs
from densepath.cli.console import note, print_json, print_lines, stdout
from densepath.cli.npu_program import profile, simulate
from densepath.cli.npu_vectors import vectors
from densepath.cli.progress import show_steps
from densepath.npu.targets import BOARD_SRAM_BYTES
from densepath.wording import first_of, percent

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
    json: options.Json = False,
) -> None:
    """List the NPUs, their memory modes, and whether a network fits each.

    Example: densepath npu targets bundles/pets-npu
    """
    from densepath.npu.trial import try_targets

    with show_steps("looking at the targets") as say:
        rows = try_targets(bundle, say=say)
    if json:
        print_json({"targets": rows})
        return
    _print_targets(rows, fitted=bundle is not None)


def _print_targets(rows: list[dict], *, fitted: bool) -> None:
    """Print the rows as a table."""
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
    sram_kib: Annotated[
        int, typer.Option(min=1, help="The SRAM of the board in KiB.")
    ] = BOARD_SRAM_BYTES // KIB,
    c_array: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.c",
            parser=outputs.path,
            help="Write the program as an array, in C that is C++, too.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Compile an INT8 bundle for an NPU, and estimate its time and memory.

    Example: densepath npu compile bundles/pets-npu --target ethos-u65-512 -o pets-u65
    """
    from densepath.npu.c_source import write_c_array
    from densepath.npu.compile import compile_program
    from densepath.npu.fitting import check_fits
    from densepath.npu.targets import find_target
    from densepath.outputs import check_file

    console = outputs.console_beside({"--c-array": c_array}, json=json)
    if c_array is not None:
        check_file(c_array)
    chosen = find_target(
        target,
        system_config=system_config,
        memory_mode=memory_mode,
        sram_bytes=KIB * sram_kib,
    )
    with show_steps(f"compiling for {chosen.name}"):
        program = compile_program(bundle, chosen, output, overwrite=overwrite)
        if c_array is not None:
            write_c_array(program, c_array)
    described = program.description
    if json:
        print_json({"output": str(program.folder), **described.to_dict()})
        check_fits(program)
        return
    estimate, operators = described.estimate, described.operators
    memory = {name: f"{size / KIB:.0f} KiB" for name, size in estimate.memory_bytes.items() if size}
    if not estimate.fits:
        memory["sram"] += f" of {estimate.sram_limit_bytes / KIB:.0f}, which is too much"
    left = estimate.not_counted
    where = " on the NPU" if left.operators else ""
    lines = [
        f"{described.model} on {chosen.name}: {estimate.inference_ms:.2f} ms an image{where}, "
        "estimated",
        *([str(left)] if left.operators else []),
        f"operators on the NPU: {percent(operators.share)}"
        + (f"; on the CPU: {first_of(operators.cpu)}" if left.operators else ""),
        f"memory: {', '.join(f'{name} {size}' for name, size in memory.items())}",
    ]
    print_lines(lines, console)
    note(f"{program.folder}: firmware for a board is in main.cc, how to build it in README.md")
    check_fits(program)


for _verb in (simulate, profile):
    npu.command()(_verb)

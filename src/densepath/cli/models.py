"""`densepath models`: the catalogue with sizes counted on the modules, beside the seeds'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from densepath.cli.console import note, print_json, stderr, stdout

if TYPE_CHECKING:
    from densepath.models.spec import ModelSpec


def models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to show; all of them by default.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the images in pixels; each model's own by default.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images a step, for the estimate of training memory.")
    ] = 64,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the models with parameters, operations and memory, counted on the modules.

    Example: densepath models densenet121 dpn92 --json
    """
    from rich.progress import track

    from densepath.models.catalogue import CATALOGUE, find_spec

    specs = [find_spec(name) for name in names] if names else list(CATALOGUE.values())
    counted = track(specs, "counting", console=stderr(), transient=True)
    rows = (_row(spec, size or spec.input_size, batch_size) for spec in counted)
    if json:
        for row in rows:
            print_json(row)
        return
    _print_table(list(rows), batch_size)


def _row(spec: ModelSpec, size: int, batch_size: int) -> dict[str, Any]:
    """One model's figures, beside those of the seed documents where they have it."""
    import torch

    from densepath.models.build import build_model
    from densepath.models.cost import measure_cost

    with torch.device("meta"):
        model = build_model(spec, num_classes=10 if spec.arch.stem == "small" else 1000)
    cost = measure_cost(model, size)
    row: dict[str, Any] = {
        "name": spec.name,
        "family": spec.family,
        "input_size": size,
        "num_classes": model.num_classes,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "activations": cost.activations,
        "training_bytes": cost.training_bytes(batch_size),
        "training_batch_size": batch_size,
        "paper": spec.paper,
        "seed": None,
    }
    if spec.seed:
        row["seed"] = {
            "top1": spec.seed.top1,
            "top5": spec.seed.top5,
            "flops": round(spec.seed.gflops * 1e9),
            "parameters": round(spec.seed.mparams * 1e6),
            "remark": spec.seed.remark,
        }
    return row


def _print_table(rows: list[dict[str, Any]], batch_size: int) -> None:
    """The rows as a table; the seeds' FLOPs are halved to compare with multiply-accumulates."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", no_wrap=True)
    for title in (
        "input",
        "params M",
        "GMACs",
        "activations M",
        f"training GB\nbatch {batch_size}",
        "seed:\nparams M",
        "seed:\nGFLOPs / 2",
        "seed:\ntop-1 %",
    ):
        table.add_column(title, justify="right")
    remarks: dict[str, list[str]] = {}
    for row in rows:
        seed = row["seed"]
        mark = "*" if seed and seed["remark"] else ""
        if mark:
            remarks.setdefault(seed["remark"], []).append(row["name"])
        table.add_row(
            row["name"],
            f"{row['input_size']}",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['macs'] / 1e9:.2f}",
            f"{row['activations'] / 1e6:.1f}",
            f"{row['training_bytes'] / 1e9:.1f}",
            f"{seed['parameters'] / 1e6:.2f}{mark}" if seed else "",
            f"{seed['flops'] / 2e9:.2f}{mark}" if seed else "",
            f"{seed['top1'] * 100:.1f}" if seed else "",
        )
    stdout().print(table)
    for remark, names in remarks.items():
        note(f"* {', '.join(names)}: {remark}")

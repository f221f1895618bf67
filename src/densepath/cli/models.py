"""`densepath models`: the catalogue with sizes counted on its numbers, beside the seeds'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densepath.cli import options
from densepath.cli.console import note, print_json, stdout

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
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Each layer in place of the sums, under its name in quantisation and profiles.",
        ),
    ] = False,
    json: options.JsonLines = False,
) -> None:
    """List the models: their size, what an image costs, memory for training, and accuracy.

    Example: densepath models densenet121 dpn92 --json
    """
    from densepath.models.catalogue import CATALOGUE, find_spec

    specs = [find_spec(name) for name in names] if names else list(CATALOGUE.values())
    if layers:
        _show_layers(specs, size, json=json)
        return
    # All are counted before the first is printed: a wrong size is an error and nothing else.
    rows = [_row(spec, size, batch_size) for spec in specs]
    if json:
        for row in rows:
            print_json(row)
        return
    _print_table(rows, batch_size)


def _show_layers(specs: Sequence[ModelSpec], size: int | None, *, json: bool) -> None:
    """The layers of each model, in the order in which they run."""
    from rich.table import Table

    from densepath.models.cost import count_layers

    for spec in specs:
        table = Table(title=spec.name, box=None, header_style="bold", pad_edge=False)
        table.add_column("layer", no_wrap=True)
        for title in ("kernel", "channels", "map", "parameters", "multiply-adds, 10⁶"):
            table.add_column(title, justify="right", no_wrap=True)
        num_classes = 10 if spec.arch.stem == "small" else 1000
        for one in count_layers(spec, size, num_classes=num_classes):
            layer = one.layer
            inputs, outputs = layer.inputs or 3, layer.outputs or num_classes
            if json:
                kernel = {"kernel": layer.kernel, "stride": layer.stride, "groups": layer.groups}
                about = {"model": spec.name, "layer": layer.name, "stage": layer.stage, **kernel}
                about |= {"inputs": inputs, "outputs": outputs, "height": one.height}
                print_json(
                    about | {"width": one.width, "parameters": one.parameters, "macs": one.macs}
                )
                continue
            kernel_said = f"{layer.kernel}×{layer.kernel}" + (
                f" /{layer.stride}" * (layer.stride > 1)
            )
            table.add_row(
                layer.name,
                kernel_said + (f", {layer.groups} groups" if layer.groups > 1 else ""),
                f"{inputs:,} → {outputs:,}",
                f"{one.height}×{one.width}",
                f"{one.parameters:,}",
                f"{one.macs / 1e6:,.1f}",
            )
        if not json:
            stdout().print(table)


def _row(spec: ModelSpec, size: int | None, batch_size: int) -> dict[str, Any]:
    """One model's figures, beside those of the seed documents where they have it."""
    from densepath.models.cost import count_cost

    num_classes = 10 if spec.arch.stem == "small" else 1000
    cost = count_cost(spec, size, num_classes=num_classes)
    row: dict[str, Any] = {
        "name": spec.name,
        "family": spec.family,
        "input_size": spec.input_size if size is None else size,
        "num_classes": num_classes,
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
    """What one chooses a model by, in 80 columns; `--json` has the rest."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("model\n", no_wrap=True)
    for title in (
        "image side,\npixels",
        "parameters,\nmillions",
        "multiply-adds\nan image, 10⁹",
        f"GB to train,\n{batch_size:,} at once",
        "ImageNet\ntop-1, %",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        seed = row["seed"]
        table.add_row(
            row["name"],
            f"{row['input_size']:,}",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['macs'] / 1e9:,.2f}",
            f"{row['training_bytes'] / 1e9:,.1f}",
            f"{seed['top1'] * 100:.1f}" if seed else "",
        )
    stdout().print(table)
    note("top-1 as PaddleClas publishes it; --json has more figures, docs/models.md explains them")

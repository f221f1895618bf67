"""`densepath models`: the catalogue with sizes counted on its numbers, beside the seeds'."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densepath.cli import options
from densepath.cli.console import note, print_json, stdout
from densepath.cli.model_summary import show_summaries
from densepath.errors import UsageError

if TYPE_CHECKING:
    from densepath.models.cost import LayerCost
    from densepath.models.spec import ModelSpec

BATCH_SIZE = 64


def models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to show; all of them by default.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the images in pixels; each model's own by default.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Images a step, for the estimate of training memory. [default: {BATCH_SIZE}]",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Each layer in place of the sums, under its name in quantisation and profiles.",
        ),
    ] = False,
    summary: Annotated[
        bool,
        typer.Option(
            "--summary",
            help="Each part of the network with its shapes, parameters, multiply-adds and "
            "receptive field, and their sums.",
        ),
    ] = False,
    json: options.JsonLines = False,
) -> None:
    """List the models: their size, what an image costs, memory for training, and accuracy.

    Example: densepath models densenet121 dpn92 --json
    """
    from densepath.models.catalogue import CATALOGUE, find_spec

    specs = [find_spec(name) for name in names] if names else list(CATALOGUE.values())
    if layers and summary:
        raise UsageError("--layers and --summary are two tables of the same network: name one.")
    if layers and batch_size is not None:
        raise UsageError(
            "--batch-size estimates training memory, which --layers has not: leave it out."
        )
    if layers:
        _show_layers(specs, size, json=json)
        return
    # All are counted before the first is printed: a wrong size is an error and nothing else.
    images = BATCH_SIZE if batch_size is None else batch_size
    if summary:
        counted = [(_row(spec, size, images), _parts(spec, size)) for spec in specs]
        show_summaries(counted, json=json)
        return
    rows = [_row(spec, size, images) for spec in specs]
    if json:
        for row in rows:
            print_json(row)
        return
    _print_table(rows, images)


def _show_layers(specs: Sequence[ModelSpec], size: int | None, *, json: bool) -> None:
    """Print the layers of each model, in the order in which they run."""
    from densepath.models.cost import count_layers

    counted = [
        (spec.name, _num_classes(spec), count_layers(spec, size, num_classes=_num_classes(spec)))
        for spec in specs
    ]
    for name, num_classes, layers in counted:
        rows = [_layer(name, num_classes, one) for one in layers]
        if json:
            for row in rows:
                print_json(row)
        else:
            _print_layers(name, rows)


def _layer(model: str, num_classes: int, one: LayerCost) -> dict[str, Any]:
    """One layer's figures."""
    layer = one.layer
    return {
        "model": model,
        "layer": layer.name,
        "stage": layer.stage,
        "kernel": layer.kernel,
        "stride": layer.stride,
        "groups": layer.groups,
        "inputs": layer.inputs or 3,
        "outputs": layer.outputs or num_classes,
        "height": one.height,
        "width": one.width,
        "parameters": one.parameters,
        "macs": one.macs,
        "receptive_field": one.receptive_field,
    }


def _parts(spec: ModelSpec, size: int | None) -> list[list[LayerCost]]:
    """The layers with their costs, by the part that they make together."""
    from densepath.models.cost import count_layers

    counted = count_layers(spec, size, num_classes=_num_classes(spec))
    return [list(part) for _, part in groupby(counted, key=lambda one: one.layer.part)]


def _print_layers(model: str, rows: list[dict[str, Any]]) -> None:
    """Print the layers of a model as a table, for a person."""
    from rich.table import Table

    table = Table(title=model, box=None, header_style="bold", pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for title in ("kernel", "channels", "map", "parameters", "multiply-adds, 10⁶"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        kernel = f"{row['kernel']}×{row['kernel']}" + f" /{row['stride']}" * (row["stride"] > 1)
        table.add_row(
            row["layer"],
            kernel + f", {row['groups']} groups" * (row["groups"] > 1),
            f"{row['inputs']:,} → {row['outputs']:,}",
            f"{row['height']}×{row['width']}",
            f"{row['parameters']:,}",
            f"{row['macs'] / 1e6:,.1f}",
        )
    stdout().print(table)


def _num_classes(spec: ModelSpec) -> int:
    """Classes that the figures are counted with: ImageNet's, or CIFAR-10's for small images."""
    return 10 if spec.arch.stem == "small" else 1000


def _row(spec: ModelSpec, size: int | None, batch_size: int) -> dict[str, Any]:
    """One model's figures, beside those of the seed documents where they have it."""
    from densepath.models.cost import count_cost

    num_classes = _num_classes(spec)
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
    """Print what one chooses a model by, in 80 columns; `--json` has the rest."""
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

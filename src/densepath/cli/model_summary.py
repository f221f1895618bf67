"""`densepath models --summary`: a network part by part, with what passes between the parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from densepath.cli.console import note, print_json, stdout

if TYPE_CHECKING:
    from densepath.models.cost import LayerCost
    from densepath.models.plan import Layer

RGB = 3


def show_summaries(
    models: Sequence[tuple[dict[str, Any], Sequence[Sequence[LayerCost]]]], *, json: bool
) -> None:
    """Print each model: its row of the catalogue's table, and its parts."""
    for row, parts in models:
        rows = _rows(row, parts)
        if json:
            print_json(row | {"parts": rows})
        else:
            _print(row, rows)
    if not json:
        note(
            "map: channels × height × width of what the next part reads, of one image; field: the "
            "side in pixels of the square that one of its values can depend on"
        )


def _rows(row: dict[str, Any], parts: Sequence[Sequence[LayerCost]]) -> list[dict[str, Any]]:
    """The parts in figures, in the order in which they run."""
    reads = [RGB, row["input_size"], row["input_size"]]
    found = []
    for part in parts:
        last = part[-1]
        classifies = last.layer.kind == "classifier"
        gives = [row["num_classes"]] if classifies else list(last.state)
        found.append(
            {
                "part": last.layer.part,
                "stage": last.layer.stage,
                "layers": [_kind(one.layer) for one in part],
                "reads": reads,
                "gives": gives,
                "parameters": sum(one.parameters for one in part),
                "macs": sum(one.macs for one in part),
                "receptive_field": None if classifies else last.state_field,
            }
        )
        reads = gives
    return found


def _kind(layer: Layer) -> str:
    """`3×3`, `7×7 /2` with its stride, `3×3, 32 groups`; of the classifier `linear`."""
    if layer.kind == "classifier":
        return "linear"
    stride = f" /{layer.stride}" if layer.stride > 1 else ""
    pooled = ", max /2" if layer.pool is not None else ", mean /2" if layer.averaged else ""
    groups = f", {layer.groups} groups" if layer.groups > 1 else ""
    return f"{layer.kernel}×{layer.kernel}{stride}{groups}{pooled}"


def _print(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Print the parts of a model and their sums as tables, for a person."""
    from rich.table import Table

    table = Table(title=row["name"], box=None, header_style="bold", pad_edge=False)
    table.add_column("part", no_wrap=True)
    table.add_column("layers", no_wrap=True)
    for title in ("map", "parameters", "multiply-adds, 10⁶", "field"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in rows:
        table.add_row(
            one["part"],
            " → ".join(one["layers"]),
            "×".join(map(str, one["gives"])),
            f"{one['parameters']:,}",
            f"{one['macs'] / 1e6:,.1f}",
            "all" if one["receptive_field"] is None else f"{one['receptive_field']:,}",
        )
    stdout().print(table)
    side, batch_size = row["input_size"], row["training_batch_size"]
    sums = Table(box=None, show_header=False, pad_edge=False)
    sums.add_column(style="bold")
    sums.add_column(justify="right")
    sums.add_row("image", f"{RGB}×{side}×{side}")
    sums.add_row("parameters", f"{row['parameters']:,}")
    sums.add_row("multiply-adds", f"{row['macs']:,}")
    sums.add_row("activations", f"{row['activations']:,}")
    sums.add_row(f"bytes to train, {batch_size:,} at once", f"{row['training_bytes']:,}")
    stdout().print(sums)

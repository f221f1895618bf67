"""What `export` and `convert` print of a bundle: its formats, and how its parity came out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from densepath.bundle.bfloat16 import on_engine, reports_in, where_taken
from densepath.cli.console import note, print_json, stdout
from densepath.wording import percent

if TYPE_CHECKING:
    from densepath.bundle.bundle import Bundle


def report_bundle(bundle: Bundle, *, json: bool) -> None:
    """Print what the bundle holds, and how its parity came out."""
    manifest = bundle.manifest
    size_bytes = sum(file.size_bytes for file in manifest.files.values())
    if json:
        print_json(
            {
                "output": str(bundle.folder),
                "model": manifest.model["name"],
                "formats": list(manifest.formats),
                "size_bytes": size_bytes,
                "parity": manifest.parity,
            }
        )
        return
    _print_parity(bundle)
    formats = ", ".join(manifest.formats)
    for engine, report in reports_in(manifest.parity).items():
        verdict = f"may take it {where_taken(engine)}" if report.is_enough else "do not take it"
        note(f"bfloat16 {on_engine(engine)}: {report}; predict and serve {verdict}")
    note(
        f"{bundle.folder}: {manifest.model['name']} as {formats}, {size_bytes / 1e6:.1f} MB; "
        f"report in {bundle.folder / 'parity.md'}"
    )


def _print_parity(bundle: Bundle) -> None:
    """Print the worst figures of each format, over engines and batch sizes, as a table."""
    from rich.table import Table

    parity = bundle.manifest.parity or {}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("format", "resized by"):
        table.add_column(title)
    for title in ("Δlogit / largest", "top-1", "ties", "top-5", "Δscore", "Δpixels"):
        table.add_column(title, justify="right")
    for name, worst in parity["formats"].items():
        for resizer in ("Pillow", "graph"):
            if resizer in worst:
                table.add_row(name, resizer, *_cells(worst[resizer], worst, resizer))
    console = stdout()
    console.print(f"parity on {parity['images']}", markup=False, highlight=False, soft_wrap=True)
    console.print(table)


def _cells(row: dict, worst: dict, resizer: str) -> list[str]:
    """The figures of a row as text."""
    pixels = percent(worst["pixels"]["share"], 3) if resizer == "graph" else ""
    return [
        f"{row['relative']:.1e}",
        percent(row["top1"]),
        str(row["ties"]),
        percent(row["top5"]),
        f"{row['score']:.1e}",
        pixels,
    ]

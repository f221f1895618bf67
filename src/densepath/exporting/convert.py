"""A weights file of another system → a Bundle: `import_weights` and `export` in one step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densepath.bundle.bundle import Bundle, check_target
from densepath.errors import UsageError, WeightsError
from densepath.exporting.export import export
from densepath.files import missing
from densepath.weights.checkpoint_file import is_checkpoint
from densepath.weights.import_file import import_weights
from densepath.weights.origins import is_weights, systems
from densepath.weights.preprocess_changes import AS_GUESSED, PreprocessChanges


def convert(
    file: str | Path,
    output: str | Path,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    source: str | None = None,
    labels: Sequence[str] | None = None,
    multi_label: bool = False,
    preprocess: PreprocessChanges = AS_GUESSED,
    to: Sequence[str] | None = None,
    **options: Any,
) -> Bundle:
    """The bundle of a file that another system wrote.

    Args:
        file: a file, or a folder, of a kind that `weights/origins.py` lists.
        output: the folder of the bundle.
        model, weights, source, labels, multi_label, preprocess: as `import_weights` takes them.
        to: the formats; by default as in `export`.
        options: as `export` takes them.

    Raises:
        UsageError: a checkpoint, run folder or bundle of densepath's own.
        WeightsError: the file cannot be read, or is of another model.
        DensepathError: what `export` raises.
    """
    path = Path(file)
    if path.is_dir() and not is_weights(path):
        raise UsageError(
            f"{path} is a folder; name a file of {', '.join(systems())}. "
            "`densepath export` takes run folders and bundles."
        )
    if not path.exists():
        raise WeightsError(missing(path))
    if path.is_file() and is_checkpoint(path):
        raise UsageError(f"{path} is densepath's own checkpoint: `densepath export` takes it.")
    check_target(Path(output), overwrite=bool(options.get("overwrite")))
    checkpoint = import_weights(
        path,
        model,
        weights=weights,
        source=source,
        labels=labels,
        multi_label=multi_label,
        preprocess=preprocess,
        say=lambda note: None,  # the bundle's manifest has it, under its source's provenance
    )
    return export(checkpoint, output, to=to, **options)

"""A weights file of another system → a Bundle: `import_weights` and `export` in one step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densepath.bundle.bundle import Bundle, check_target
from densepath.errors import UsageError, WeightsError
from densepath.exporting.export import export
from densepath.files import missing
from densepath.models.catalogue import CATALOGUE
from densepath.weights.checkpoint_file import is_checkpoint
from densepath.weights.import_file import import_weights
from densepath.weights.preprocess_changes import AS_GUESSED, PreprocessChanges


def convert(
    file: str | Path,
    output: str | Path,
    *,
    model: str | None = None,
    source: str | None = None,
    labels: Sequence[str] | None = None,
    multi_label: bool = False,
    preprocess: PreprocessChanges = AS_GUESSED,
    to: Sequence[str] | None = None,
    **options: Any,
) -> Bundle:
    """The bundle of a file that PaddleClas, MindCV, timm or torchvision wrote.

    Args:
        file: a `.pdparams`, `.ckpt`, `.pth` or `.safetensors` file.
        output: the folder of the bundle.
        model: the catalogue's model that it is of; by default the one in the file's name.
        source, labels, multi_label, preprocess: as `import_weights` takes them.
        to: the formats; by default as in `export`.
        options: as `export` takes them.

    Raises:
        UsageError: the file's name says no model; a folder or a checkpoint of densepath's own.
        WeightsError: the file cannot be read, or is of another model.
        DensepathError: what `export` raises.
    """
    path = Path(file)
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder; name a file that PaddleClas, MindCV, timm or torchvision wrote. "
            "`densepath export` takes run folders and bundles."
        )
    if not path.is_file():
        raise WeightsError(missing(path))
    if is_checkpoint(path):
        raise UsageError(f"{path} is densepath's own checkpoint: `densepath export` takes it.")
    check_target(Path(output), overwrite=bool(options.get("overwrite")))
    checkpoint = import_weights(
        path,
        model or guess_model(path),
        source=source,
        labels=labels,
        multi_label=multi_label,
        preprocess=preprocess,
        say=lambda note: None,  # the bundle's manifest has it, under its source's provenance
    )
    return export(checkpoint, output, to=to, **options)


def guess_model(path: Path) -> str:
    """The model in a file's name, as in `DenseNet121_pretrained.pdparams` or `dpn92-2f6a.ckpt`.

    Raises:
        UsageError: there is none.
    """
    words = re.sub(r"[-_ ]", "", path.name.lower())
    named = [name for name in CATALOGUE if re.sub(r"[-_]", "", name) in words]
    if not named:
        raise UsageError(
            f"the name {path.name} does not say which model the weights are of; name it by "
            f"--model. Choices: {', '.join(sorted(CATALOGUE))}."
        )
    return max(named, key=len)

"""What a Bundle's manifest says of the files beside it."""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

from densepath.bundle.formats import FORMATS
from densepath.bundle.manifest import WEIGHTS_OF, File, Manifest, Tensor
from densepath.exporting.job import input_shape
from densepath.exporting.onnx import read_versions
from densepath.files import sha256
from densepath.version import __version__
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import checkpoint_in

Parts: TypeAlias = dict[str, dict[str, str]]


def describe(
    subject: str | Path | Checkpoint,
    checkpoint: Checkpoint,
    folder: Path,
    parts: Parts,
    *,
    precision: str = "float32",
    parity: dict[str, Any] | None = None,
    quantization: dict[str, Any] | None = None,
    dynamic_size: bool = False,
) -> Manifest:
    """The manifest of the files in `folder`.

    Args:
        subject: what the checkpoint was opened by.
        checkpoint: of which the files were made.
        folder: holds the files, and no manifest yet.
        parts: by format, the file of each part.
        precision: of the arithmetic of the graphs.
        parity, quantization: what was measured.
        dynamic_size: the graphs take images of any size.
    """
    files = {
        path.name: File(sha256(path), path.stat().st_size, _formats_of(path.name, parts))
        for path in sorted(folder.iterdir())
    }
    model = checkpoint.to_model()
    return Manifest(
        model={
            "name": checkpoint.spec.name,
            "family": checkpoint.spec.family,
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        },
        labels=checkpoint.labels,
        multi_label=checkpoint.multi_label,
        preprocess=checkpoint.preprocess,
        input=Tensor("images", "float32", input_shape(checkpoint, dynamic_size), "NCHW"),
        output=Tensor("logits", "float32", (None, checkpoint.num_classes)),
        precision=precision,
        formats=parts,
        files=files,
        source=_source(subject, checkpoint),
        tools=_tools() | _versions_of_onnx(folder, parts),
        parity=parity,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        quantization=quantization,
        thresholds=checkpoint.thresholds,
        temperature=checkpoint.temperature,
    )


def _formats_of(name: str, parts: Parts) -> tuple[str, ...]:
    """The formats that need the file, as a part or as the weights of one."""
    return tuple(
        format
        for format, files in parts.items()
        if any(name in (file, _weights_of(file)) for file in files.values())
    )


def _weights_of(graph: str) -> str | None:
    """The file of the graph's weights, where the runtime keeps them apart."""
    path = Path(graph)
    return path.stem + WEIGHTS_OF[path.suffix] if path.suffix in WEIGHTS_OF else None


def _source(subject: str | Path | Checkpoint, checkpoint: Checkpoint) -> dict[str, Any]:
    """Where the weights come from; of a path only the last name."""
    provenance = checkpoint.provenance
    if isinstance(subject, Checkpoint) or not Path(subject).exists():
        name = provenance.get("imported_from") if isinstance(subject, Checkpoint) else subject
        named = None if name is None else str(name)
        return {"subject": named, "sha256": provenance.get("sha256"), "provenance": provenance}
    path = Path(subject)
    file = checkpoint_in(path) if path.is_dir() else path
    return {"subject": path.resolve().name, "sha256": sha256(file), "provenance": provenance}


def _versions_of_onnx(folder: Path, parts: Parts) -> dict[str, str]:
    """What a runtime must know to read the ONNX graph; empty without one."""
    return read_versions(folder / parts["onnx"]["model"]) if "onnx" in parts else {}


def _tools() -> dict[str, str]:
    """The versions of what made the bundle."""
    found = {"densepath": __version__, "python": platform.python_version()}
    needed = [package for row in FORMATS.values() for package, _ in row.all_packages]
    for name in dict.fromkeys(("torch", "numpy", "pillow", *needed)):
        try:
            found[name.replace("_", "-")] = version(name)
        except PackageNotFoundError:
            continue
    return found

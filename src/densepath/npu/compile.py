"""`compile_program`: an INT8 bundle becomes a program for an NPU."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from densepath.bundle.bundle import Bundle
from densepath.errors import EngineError, OutputError
from densepath.files import sha256, write_json
from densepath.folders import contents, write_folder
from densepath.npu.board import TO_CHANGE, write_board
from densepath.npu.estimate import NotCounted, OperatorCost, read_estimate, read_layers
from densepath.npu.layout import read_layout
from densepath.npu.program import (
    COMPILED,
    DESCRIPTION,
    FORMAT,
    LAYERS,
    SOURCE,
    VERSION,
    Program,
)
from densepath.npu.targets import Target
from densepath.npu.vela import cpu_reasons, run_vela, vela_version
from densepath.outputs import FILE_MODE, check_folder
from densepath.version import __version__


def compile_program(
    bundle: Bundle | str | Path, target: Target, output: str | Path, *, overwrite: bool = False
) -> Program:
    """The bundle's INT8 network for the target, in the folder `output`.

    Args:
        bundle: one with the format `litert` in INT8.
        target: see `find_target`.
        output: a new folder; with `overwrite` it may be an old program.

    Raises:
        BundleError: the bundle lacks the format, or was changed.
        MissingPackageError: Vela is not installed.
        EngineError: Vela cannot compile it.
        OutputError: the program cannot be written.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    bundle.verify("litert")
    if bundle.manifest.precision != "int8":
        raise EngineError(
            f"{bundle.folder} is {bundle.manifest.precision}; an NPU computes in INT8. Make one: "
            "densepath quantize SUBJECT --data DATA --for npu -o DIR"
        )
    check_target(Path(output), overwrite=overwrite)
    with (
        tempfile.TemporaryDirectory(prefix="densepath-") as scratch,
        write_folder(output, last=(DESCRIPTION,)) as (folder, put),
    ):
        model = Path(shutil.copy(bundle.path_of("litert"), Path(scratch) / "program.tflite"))
        said = run_vela(model, target, Path(scratch))
        shutil.copy(model, folder / SOURCE)
        shutil.copy(Path(scratch) / "program_vela.tflite", folder / COMPILED)
        shutil.copy(_only(Path(scratch), "*_per-layer.csv"), folder / LAYERS)
        layers = read_layers(folder / LAYERS, folder / COMPILED)
        layout = read_layout(folder / COMPILED, target)
        summary = _only(Path(scratch), "*_summary_*.csv")
        estimate = read_estimate(summary, layout.memory_bytes(), target.sram_bytes)
        about = _describe(bundle, target, layers, said)
        about["estimate"] = {**estimate.to_dict(), "not_counted": asdict(NotCounted.of(layers))}
        about["layout"] = layout.to_dict()
        write_board(folder, about, layout)
        hashed = (path for path in sorted(folder.iterdir()) if path.name not in TO_CHANGE)
        about["files"] = {path.name: sha256(path) for path in hashed}
        write_json(folder / DESCRIPTION, about)
        for path in folder.iterdir():
            path.chmod(FILE_MODE)
        put()
    return Program.open(output)


def _describe(
    bundle: Bundle, target: Target, layers: list[OperatorCost], said: str
) -> dict[str, Any]:
    """What `program.json` says but for the estimate and the files."""
    manifest = bundle.manifest
    on_npu = sum(layer.on_npu for layer in layers)
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": manifest.model["name"],
        "target": {
            "name": target.name,
            "macs_per_cycle": target.macs_per_cycle,
            "system_config": target.system_config,
            "memory_mode": target.memory_mode,
            "clock_hz": target.clock_hz,
        },
        "tools": {"densepath": __version__, "vela": vela_version()},
        "labels": manifest.labels,
        "multi_label": manifest.multi_label,
        "preprocess": manifest.preprocess.to_dict(),
        "operators": {
            "npu": on_npu,
            "cpu": [f"{layer.source} {layer.name}" for layer in layers if not layer.on_npu],
            "share": on_npu / max(len(layers), 1),
            "reasons": cpu_reasons(said),
        },
    }


def _only(folder: Path, pattern: str) -> Path:
    """The file of that pattern.

    Raises:
        EngineError: Vela wrote none, or several.
    """
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise EngineError(f"Vela wrote {len(found)} files {pattern}; one was expected.")
    return found[0]


def check_target(target: Path, *, overwrite: bool) -> None:
    """Returns when a program may be written at `target`: nothing, an empty folder, an old program.

    Raises:
        OutputError: something else stands there, a program that may not be overwritten, or nothing
            can be written there.
    """
    check_folder(target)
    is_program = (target / DESCRIPTION).is_file()
    if target.is_dir() and not is_program and contents(target):
        raise OutputError(f"{target} is something else than a program; name a new folder.")
    if is_program and not overwrite:
        raise OutputError(f"{target} is a program already; --overwrite replaces it.")

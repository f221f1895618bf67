"""`compile_program`: an INT8 bundle becomes a program for an NPU."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

from densepath.bundle.bundle import Bundle
from densepath.bundle.sealed import check_target, write_sealed
from densepath.errors import EngineError
from densepath.files import sha256
from densepath.npu.board import TO_CHANGE, write_board
from densepath.npu.description import (
    COMPILED,
    LAYERS,
    PROGRAM,
    SOURCE,
    CompiledFor,
    Description,
    OperatorPlacement,
)
from densepath.npu.estimate import Estimate, OperatorCost, read_estimate, read_layers
from densepath.npu.layout import Layout, read_layout
from densepath.npu.program import Program
from densepath.npu.targets import Target
from densepath.npu.vela import cpu_reasons, run_vela, vela_version
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
    check_target(Path(output), PROGRAM, overwrite=overwrite)
    with (
        tempfile.TemporaryDirectory(prefix="densepath-") as scratch,
        write_sealed(output, PROGRAM, overwrite=overwrite) as (folder, seal),
    ):
        model = Path(shutil.copy(bundle.path_of("litert"), Path(scratch) / "program.tflite"))
        said = run_vela(model, target, Path(scratch))
        shutil.copy(model, folder / SOURCE)
        shutil.copy(Path(scratch) / "program_vela.tflite", folder / COMPILED)
        shutil.copy(_only(Path(scratch), "*_per-layer.csv"), folder / LAYERS)
        layers = read_layers(folder / LAYERS, folder / COMPILED)
        layout = read_layout(folder / COMPILED, target)
        summary = _only(Path(scratch), "*_summary_*.csv")
        estimate = read_estimate(summary, layers, layout.memory_bytes(), target.sram_bytes)
        described = _describe(bundle, target, _place(layers, said), estimate, layout)
        write_board(folder, described)
        hashed = (path for path in sorted(folder.iterdir()) if path.name not in TO_CHANGE)
        files = {path.name: sha256(path) for path in hashed}
        seal(dataclasses.replace(described, files=files).to_text())
    return Program.open(output)


def _describe(
    bundle: Bundle, target: Target, operators: OperatorPlacement, estimate: Estimate, layout: Layout
) -> Description:
    """What `program.json` says but for the files."""
    manifest = bundle.manifest
    return Description(
        model=manifest.model["name"],
        target=CompiledFor.of(target),
        tools={"densepath": __version__, "vela": vela_version()},
        labels=manifest.labels,
        multi_label=manifest.multi_label,
        thresholds=manifest.thresholds,
        temperature=manifest.temperature,
        preprocess=manifest.preprocess,
        operators=operators,
        estimate=estimate,
        layout=layout,
        files={},
    )


def _place(layers: list[OperatorCost], said: str) -> OperatorPlacement:
    """Where the operators run, and what Vela said of those on the CPU."""
    on_npu = sum(layer.on_npu for layer in layers)
    return OperatorPlacement(
        npu=on_npu,
        cpu=[f"{layer.source} {layer.name}" for layer in layers if not layer.on_npu],
        share=on_npu / max(len(layers), 1),
        reasons=cpu_reasons(said),
    )


def _only(folder: Path, pattern: str) -> Path:
    """The file of that pattern.

    Raises:
        EngineError: Vela wrote none, or several.
    """
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise EngineError(f"Vela wrote {len(found)} files {pattern}; one was expected.")
    return found[0]

"""One network on every NPU: which of them it fits, and how fast it would be there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from densepath.bundle.bundle import Bundle
from densepath.errors import EngineError
from densepath.npu.compile import compile_program
from densepath.npu.targets import (
    Target,
    find_target,
    memory_modes,
    system_configs,
    target_names,
)


def try_targets(
    bundle: Bundle | str | Path | None = None, *, say: Callable[[str], None] = lambda step: None
) -> list[dict[str, Any]]:
    """The targets, and for an INT8 bundle with litert the estimate for each.

    Where there is no estimate, `fits` is false and `reason` says why.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="densepath-") as folder:
        for name in target_names():
            target = find_target(name)
            row: dict[str, Any] = {
                "name": name,
                "macs_per_cycle": target.macs_per_cycle,
                "clock_hz": target.clock_hz,
                "system_config": target.system_config,
                "memory_mode": target.memory_mode,
                "system_configs": list(system_configs(target.generation)),
                "memory_modes": list(memory_modes(target.system_config)),
            }
            if bundle is not None:
                say(f"compiling for {name}")
                row |= _try(bundle, target, Path(folder) / name)
            rows.append(row)
    return rows


def _try(bundle: Bundle | str | Path, target: Target, folder: Path) -> dict[str, Any]:
    """The estimate for a target, or why there is none."""
    try:
        described = compile_program(bundle, target, folder).description
    except EngineError as error:
        return {"fits": False, "reason": str(error)}
    estimate = described.estimate
    return {
        "fits": estimate.fits,
        "inference_ms": estimate.inference_ms,
        "sram_bytes": estimate.memory_bytes["sram"],
        "sram_limit_bytes": estimate.sram_limit_bytes,
        "share_on_npu": described.operators.share,
        "not_counted": asdict(estimate.not_counted),
    }

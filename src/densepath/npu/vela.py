"""Arm's compiler Vela, run in a process of its own: a crash there is an error message here."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from densepath.errors import EngineError, MissingPackageError
from densepath.npu.targets import CONFIG, PACKAGE, Target

SECONDS = 900
# As the program `vela` begins, which may not be on the PATH.
RUN = "import sys; from ethosu.vela.vela import main; sys.exit(main())"
TELLING = re.compile(r"error|fail|unsupported|exceed|too large|cannot", re.IGNORECASE)


def run_vela(model: Path, target: Target, folder: Path) -> str:
    """The compiled program and the estimates are in `folder`; what Vela said.

    Raises:
        MissingPackageError: Vela is not installed.
        EngineError: it fails, or takes longer than `SECONDS`.
    """
    if find_spec(PACKAGE[0]) is None:
        raise MissingPackageError("ethos-u-vela", PACKAGE[1])
    command = [
        *(sys.executable, "-c", RUN, str(model)),
        *("--accelerator-config", target.name, "--config", CONFIG),
        *("--system-config", target.system_config, "--memory-mode", target.memory_mode),
        *("--output-dir", str(folder), "--verbose-performance", "--show-cpu-operations"),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"Vela did not compile {model.name} for {target.name} in {SECONDS} s."
        ) from None
    said = done.stdout + done.stderr
    if done.returncode or not list(folder.glob("*_vela.tflite")):
        raise EngineError(f"Vela cannot compile {model.name} for {target.name}: {_reason(said)}")
    return said


def vela_version() -> str:
    """Of the installed one."""
    return version("ethos-u-vela")


def _reason(said: str) -> str:
    """The first line that tells, else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if TELLING.search(line)]
    return (telling or lines[-1:] or ["it said nothing"])[0]

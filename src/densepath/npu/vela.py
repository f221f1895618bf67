"""Arm's compiler Vela, run in a process of its own: a crash there is an error message here."""

from __future__ import annotations

import re
import signal
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
# What `--show-cpu-operations` says of an operator, without the names of its tensors.
ON_CPU = re.compile(
    r"^Warning \([^)]*\) operator: (?P<kind>\w+).*\nReason: (?P<reason>[^(\n]*[^(\s])", re.MULTILINE
)
# How Python shows an error that is Vela's own.
OWN_ERROR = re.compile(r"ethosu\.[\w.]+: (?P<quote>['\"])(?P<text>Error: .*)(?P=quote)")
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
        sys.executable,
        "-c",
        RUN,
        str(model),
        "--accelerator-config",
        target.name,
        "--config",
        CONFIG,
        "--system-config",
        target.system_config,
        "--memory-mode",
        target.memory_mode,
        "--output-dir",
        str(folder),
        "--verbose-performance",
        "--show-cpu-operations",
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
        why = _reason(said, done.returncode)
        raise EngineError(f"Vela cannot compile {model.name} for {target.name}: {why}")
    return said


def vela_version() -> str:
    """Of the installed one."""
    return version("ethos-u-vela")


def cpu_reasons(said: str) -> list[str]:
    """Why operators stay on the CPU, by what Vela said: each kind of operator and reason once."""
    found = ON_CPU.finditer(said)
    return list(dict.fromkeys(f"{one['kind']}: {one['reason']}" for one in found))


def _reason(said: str, code: int) -> str:
    """Why it failed: its own word for it, else what its Python raised, else the signal."""
    told, raised = _split_tracebacks(said)
    telling = [line for line in told if TELLING.search(line)]
    errors = [line for line in telling if line.startswith("Error")]
    if errors:
        return errors[0]
    if raised:
        own = OWN_ERROR.fullmatch(raised[-1])
        return own["text"] if own else f"it broke off with {raised[-1]}"
    if telling:
        return telling[0]
    if code < 0:
        name = signal.strsignal(-code) or "unknown"
        return f"it was ended by signal {-code} ({name}), as when memory runs out"
    return told[-1] if told else "it said nothing"


def _split_tracebacks(said: str) -> tuple[list[str], list[str]]:
    """The lines outside of Python's tracebacks, and the exception that each of these ends with."""
    told: list[str] = []
    raised: list[str] = []
    inside = False
    for line in said.splitlines():
        if line.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and line[:1].strip():
            raised.append(line.strip())
            inside = False
        elif not inside and line.strip():
            told.append(line.strip())
    return told, raised

"""What shortens a program's time or makes it fit its memory: options that its target really has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from densepath.errors import EngineError
from densepath.npu.targets import DEFAULTS

if TYPE_CHECKING:
    from densepath.npu.description import CompiledFor, Description
    from densepath.npu.program import Program

KIB = 1024
# The modes whose features lie in DRAM, and how much SRAM each takes to work in.
SHARES = {f"Dedicated_Sram_{size}KB": size for size in (256, 384, 512)}
# From the least SRAM for features to all of them in it.
MORE_SRAM = (*SHARES, "Dedicated_Sram", "Shared_Sram")
# The mode whose weights lie beside the NPU.
ON_CHIP = "Sram_Only"
# The same with weights in a flash or DRAM.
WEIGHTS_OUTSIDE = "Shared_Sram"
# A system with faster DRAM, of Vela's configuration file.
FASTER = {
    "Ethos_U65_Mid_End": "Ethos_U65_High_End",
    "Ethos_U65_High_End": "Ethos_U65_Client_Server",
    "Ethos_U85_SYS_DRAM_Low": "Ethos_U85_SYS_DRAM_Mid",
    "Ethos_U85_SYS_DRAM_Mid": "Ethos_U85_SYS_DRAM_High",
}
# The system of a generation with DRAM beside it; a U55 has none, and a U65 is the next with one.
WITH_DRAM = {"ethos-u65": "Ethos_U65_High_End", "ethos-u85": "Ethos_U85_SYS_DRAM_Mid"}
NEXT_WITH_DRAM = "ethos-u65-256"


def more_sram(target: CompiledFor) -> str:
    """What lets a program wait less for its DRAM: options, and where there are none, words."""
    mode, system = target.memory_mode, target.system_config
    larger = MORE_SRAM[MORE_SRAM.index(mode) + 1 :] if mode in MORE_SRAM else ()
    cures = []
    if larger:
        cures.append(f"a memory mode with more SRAM (--memory-mode {larger[0]})")
    if system in FASTER:
        cures.append(f"a board with faster DRAM (--system-config {FASTER[system]})")
    return " or ".join(cures) or "smaller images"


def less_flash(target: CompiledFor) -> str:
    """What lets a program wait less for weights."""
    if target.memory_mode == ON_CHIP:
        return "fewer classes shorten them"
    return f"fewer classes, or weights on the chip (--memory-mode {ON_CHIP}), shorten them"


def check_fits(program: Program) -> None:
    """Raise unless the program has the memory that it needs on its board.

    Raises:
        EngineError: it needs more; the message has the cures.
    """
    unfit = why_unfit(program.description)
    if unfit is not None:
        target = program.description.target.name
        raise EngineError(f"{program.folder} does not fit its {target}: {unfit}")


def why_unfit(described: Description) -> str | None:
    """Why the program does not fit its board, and what would; None where it fits."""
    estimate, target = described.estimate, described.target
    if estimate.fits:
        return None
    needed, there = -(-estimate.memory_bytes["sram"] // KIB), estimate.sram_limit_bytes // KIB
    cures = []
    if SHARES.get(target.memory_mode, needed) >= needed:
        named = f"{_options(target)} --sram-kib {needed}"
        cures.append(f"On a board that has as much: {_compile(named)}.")
    if _fits_without_program(described):
        moved = f"{_options(replace(target, memory_mode=WEIGHTS_OUTSIDE))} --sram-kib {there}"
        cures.append(f"With the program outside the SRAM: {_compile(moved)}.")
    options = _features_in_dram(target, there)
    if options:
        cures.append(f"With features in DRAM: {_compile(options)}.")
    cures.append(
        "Or with smaller images: densepath export SUBJECT --to torch --size N -o DIR, which is "
        "quantised and compiled in its place."
    )
    return f"it needs {needed:,} KiB of SRAM, and there are {there:,}. {' '.join(cures)}"


def _fits_without_program(described: Description) -> bool:
    """Whether the SRAM is too small just because the program, weights and all, lies in it."""
    if described.target.memory_mode != ON_CHIP:
        return False
    return described.layout.arena_bytes <= described.estimate.sram_limit_bytes


def _compile(options: str) -> str:
    """The command."""
    return f"densepath npu compile BUNDLE {options} -o DIR"


def _options(target: CompiledFor) -> str:
    """The options of `npu compile` that name the target; its usual surroundings need none."""
    system, mode = DEFAULTS[_generation(target)]
    options = f"--target {target.name}"
    if target.memory_mode != mode:
        options += f" --memory-mode {target.memory_mode}"
    if target.system_config != system:
        options += f" --system-config {target.system_config}"
    return options


def _features_in_dram(target: CompiledFor, there: int) -> str | None:
    """The options of `npu compile` for features in DRAM beside an SRAM of `there` KiB.

    None where no memory mode has its share of the SRAM within that, or but the one that needs more.
    """
    modes = [mode for mode, share in SHARES.items() if share <= there]
    if not modes or modes[-1] == target.memory_mode:
        return None
    generation = _generation(target)
    moved = replace(target, memory_mode=modes[-1])
    if generation not in WITH_DRAM:
        moved = replace(moved, name=NEXT_WITH_DRAM)
    if target.system_config not in (*FASTER, *FASTER.values()):
        moved = replace(moved, system_config=WITH_DRAM[_generation(moved)])
    return f"{_options(moved)} --sram-kib {there}"


def _generation(target: CompiledFor) -> str:
    """`ethos-u55`."""
    return target.name.rsplit("-", 1)[0]

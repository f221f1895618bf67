"""The NPUs that Vela compiles for: Arm's Ethos-U55, U65 and U85, and the memory around them.

Source: Arm's `vela.ini`, which comes with Vela, for clocks, memories and their names.
"""

from __future__ import annotations

import configparser
import functools
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from densepath.errors import MissingPackageError, UnknownNameError

PACKAGE = ("ethosu", "npu")
CONFIG = "Arm/vela.ini"
SYSTEM, MEMORY = "System_Config.", "Memory_Mode."
MACS = {
    "ethos-u55": (32, 64, 128, 256),
    "ethos-u65": (256, 512),
    "ethos-u85": (128, 256, 512, 1024, 2048),
}
# Of each generation the system that is taken unless another is named, and its memory mode.
DEFAULTS = {
    "ethos-u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": ("Ethos_U65_High_End", "Dedicated_Sram_512KB"),
    "ethos-u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_512KB"),
}
# The SRAM of a usual board, where the memory mode does not say: 2 MiB on Arm's Corstone-300.
BOARD_SRAM_BYTES = 2 << 20
# Where there is no DRAM, activations live in the SRAM: the other modes are refused by Vela.
MODES_WITHOUT_DRAM = ("Sram_Only", "Shared_Sram")
DRAM = "Dram"


@dataclass(frozen=True)
class Target:
    """An NPU and its surroundings.

    Attributes:
        name: as Vela calls it: `ethos-u55-128`.
        macs_per_cycle: multiply-accumulates of 8 bits.
        system_config, memory_mode: of Vela's configuration file.
        clock_hz: of the NPU.
        sram_bytes: of the board; a memory mode with a smaller share of it counts.
    """

    name: str
    macs_per_cycle: int
    system_config: str
    memory_mode: str
    clock_hz: float
    sram_bytes: int = BOARD_SRAM_BYTES

    @property
    def generation(self) -> str:
        """`ethos-u55`."""
        return self.name.rsplit("-", 1)[0]


def target_names() -> list[str]:
    """All of them, the smallest first."""
    return [f"{generation}-{macs}" for generation, sizes in MACS.items() for macs in sizes]


def find_target(
    name: str,
    *,
    system_config: str | None = None,
    memory_mode: str | None = None,
    sram_bytes: int = BOARD_SRAM_BYTES,
) -> Target:
    """The NPU of that name, with its usual surroundings or others.

    Raises:
        UnknownNameError: no such target; no such system or memory mode for it.
        MissingPackageError: Vela is not installed.
    """
    if name not in target_names():
        raise UnknownNameError("NPU target", name, target_names())
    generation, macs = name.rsplit("-", 1)
    systems = system_configs(generation)
    system = system_config or DEFAULTS[generation][0]
    if system not in systems:
        raise UnknownNameError(f"system configuration of {name}", system, systems)
    modes = memory_modes(system)
    usual = DEFAULTS[generation][1]
    mode = memory_mode or (usual if usual in modes else MODES_WITHOUT_DRAM[-1])
    if mode not in modes:
        raise UnknownNameError(f"memory mode of {name} with {system}", mode, modes)
    return Target(name, int(macs), system, mode, systems[system], sram_bytes)


def system_configs(generation: str) -> dict[str, float]:
    """The systems of a generation and their clocks in hertz."""
    prefix = generation.replace("ethos-u", "Ethos_U")
    return {
        name.removeprefix(SYSTEM): float(section["core_clock"])
        for name, section in vela_config().items()
        if name.startswith(f"{SYSTEM}{prefix}_")
    }


def memory_modes(system_config: str) -> tuple[str, ...]:
    """The memory modes of a system."""
    system = vela_config()[f"{SYSTEM}{system_config}"]
    if DRAM not in (system["axi0_port"], system["axi1_port"]):
        return MODES_WITHOUT_DRAM
    return tuple(name.removeprefix(MEMORY) for name in vela_config() if name.startswith(MEMORY))


@functools.cache
def vela_config() -> configparser.ConfigParser:
    """Vela's configuration file.

    Raises:
        MissingPackageError: Vela is not installed.
    """
    found = find_spec(PACKAGE[0])
    if found is None or not found.submodule_search_locations:
        raise MissingPackageError("ethos-u-vela", PACKAGE[1])
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    folder = Path(next(iter(found.submodule_search_locations)))
    parser.read(folder / "config_files" / CONFIG, encoding="utf-8")
    return parser

"""A program on a board: its parts, how large each is, and the memory that each belongs in.

On the line: the compiled file and Vela's memory mode go in; the board's folder is written from it.
Sizes are the file's own: what its `ethos-u` operators read and write, and where Vela put it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from densepath.bundle.tflite import TfliteNetwork, TfliteTensor, read_network
from densepath.npu.targets import MEMORY, SYSTEM, Target, vela_config

NPU_OPERATOR = "ethos-u"
# What such an operator reads before its own inputs.
# Source: TensorFlow Lite Micro, `kernels/ethos_u/ethosu.cc`.
COMMANDS, WEIGHTS, SCRATCH, FAST = range(4)
MEMORIES = {"Sram": "SRAM", "Dram": "DRAM", "OffChipFlash": "flash", "OnChipFlash": "on-chip flash"}
# The same, as the files of Vela's estimates and the description of a program call them.
MEMORY_NAMES = {
    "SRAM": "sram",
    "DRAM": "dram",
    "on-chip flash": "on_chip_flash",
    "flash": "off_chip_flash",
}
ALIGNMENT = 32
# What TensorFlow Lite Micro keeps in the arena beside the tensors. It needs about 0.8 KB for a
# program of one operator and 0.3 KB for each further one, measured on a PC with pointers twice as
# large as a microcontroller's; optimised kernels of the CPU may take more.
RUNTIME_BYTES, OPERATOR_BYTES = 2048, 1024


@dataclass(frozen=True)
class Layout:
    """What lies where.

    Attributes:
        program_bytes: of the compiled file, weights and commands included.
        weights_bytes, commands_bytes: what the NPU reads of it.
        scratch_bytes: of the arena, for the NPU.
        fast_bytes: of the driver's fast memory; 0 where the NPU works in the arena alone.
        arena_bytes: that TensorFlow Lite Micro needs for all tensors and itself.
        program_memory, arena_memory, fast_memory: the memory that each belongs in.
        program_port, arena_port: the NPU's ports to these: 0 or 1.
        operators: the kinds that the file has, each once.
    """

    program_bytes: int
    weights_bytes: int
    commands_bytes: int
    scratch_bytes: int
    fast_bytes: int
    arena_bytes: int
    program_memory: str
    arena_memory: str
    fast_memory: str
    program_port: int
    arena_port: int
    operators: tuple[str, ...]

    def memory_bytes(self) -> dict[str, int]:
        """What a board has to have of each memory, by Vela's names for them."""
        needed = dict.fromkeys(MEMORY_NAMES.values(), 0)
        for memory, size in (
            (self.program_memory, self.program_bytes),
            (self.arena_memory, self.arena_bytes),
            (self.fast_memory, self.fast_bytes),
        ):
            needed[MEMORY_NAMES[memory]] += size
        return needed

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "operators": list(self.operators)}


def read_layout(compiled: Path, target: Target) -> Layout:
    """The layout of a compiled file.

    Raises:
        BundleError: it cannot be read.
        MissingPackageError: `ai-edge-litert` is not installed.
    """
    network = read_network(compiled)
    parts = [one.inputs for one in network.operators if one.kind == NPU_OPERATOR]
    scratch = _bytes_of(inputs[SCRATCH] for inputs in parts)
    # The same tensor twice: there is no fast memory, and the arena is named in its place.
    fast = _bytes_of(inputs[FAST] for inputs in parts if inputs[FAST] is not inputs[SCRATCH])
    uses = {use: _port(target, use) for use in ("const", "arena", "cache")}
    memory = {use: _memory(target, port) for use, port in uses.items()}
    return Layout(
        program_bytes=compiled.stat().st_size,
        weights_bytes=_bytes_of(inputs[WEIGHTS] for inputs in parts),
        commands_bytes=_bytes_of(inputs[COMMANDS] for inputs in parts),
        scratch_bytes=scratch,
        fast_bytes=fast,
        arena_bytes=_arena(network),
        program_memory=memory["const"],
        arena_memory=memory["arena"],
        fast_memory=memory["cache"],
        program_port=uses["const"],
        arena_port=uses["arena"],
        operators=tuple(dict.fromkeys(one.kind for one in network.operators)),
    )


def _bytes_of(tensors: Iterable[TfliteTensor | None]) -> int:
    """The bytes of the tensors, each counted once."""
    return sum({one.index: one.nbytes for one in tensors if one is not None}.values())


def _arena(network: TfliteNetwork) -> int:
    """The arena that holds every tensor where the compiler put it, and the runtime.

    TensorFlow Lite Micro plans a place for the fast memory, too, although the driver then takes
    another: an arena is never smaller than the fast memory.
    """
    planned, unplanned = 0, 0
    for tensor in network.tensors:
        if tensor.data is not None:
            continue
        offset = network.offsets[tensor.index] if network.offsets else -1
        if offset < 0:
            unplanned += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        else:
            planned = max(planned, offset + tensor.nbytes)
    total = planned + unplanned + RUNTIME_BYTES + OPERATOR_BYTES * len(network.operators)
    return -(-total // ALIGNMENT) * ALIGNMENT


def _port(target: Target, use: str) -> int:
    """The NPU's port, 0 or 1, to the memory of a `use`: const, arena or cache."""
    config, name = vela_config(), MEMORY + target.memory_mode
    while f"{use}_mem_area" not in config[name]:
        name = config[name]["inherit"]
    return int(config[name][f"{use}_mem_area"].removeprefix("Axi"))


def _memory(target: Target, port: int) -> str:
    """The kind of memory that the system has at a port."""
    return MEMORIES[vela_config()[SYSTEM + target.system_config][f"axi{port}_port"]]

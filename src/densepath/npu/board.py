"""What a board needs besides the program: how to run it, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from densepath.files import write_text
from densepath.wording import percent


def write_board(folder: Path, about: dict[str, Any]) -> None:
    """`README.md` in the program's folder says how TensorFlow Lite Micro runs it."""
    write_text(folder / "README.md", _text(about))


def _text(about: dict[str, Any]) -> str:
    """The page."""
    target, estimate = about["target"], about["estimate"]
    preprocess = about["preprocess"]
    height, width = preprocess["size"]
    channels = len(preprocess["mean"])
    memory = estimate["memory_bytes"]
    cpu = about["operators"]["cpu"]
    resolver = "AddEthosU()" + (
        f", and for what stays on the CPU: {', '.join(sorted({op.split()[0] for op in cpu}))}"
        if cpu
        else ""
    )
    return f"""# {about["model"]} for {target["name"]}

Compiled by Vela {about["tools"]["vela"]} for {target["system_config"]}, memory mode
{target["memory_mode"]}, {target["clock_hz"] / 1e6:.0f} MHz.

| | |
|---|---|
| estimated time of an image | {estimate["inference_ms"]:.2f} ms |
| operators on the NPU | {percent(about["operators"]["share"])} |
| SRAM | {memory["sram"] / 1024:.0f} KiB of {estimate["sram_limit_bytes"] / 1024:.0f} |
| DRAM | {memory["dram"] / 1024:.0f} KiB |
| flash | {(memory["on_chip_flash"] + memory["off_chip_flash"]) / 1024:.0f} KiB |

## On a board

The program, `program_vela.tflite`, is run by TensorFlow Lite Micro with Arm's Ethos-U driver
(`ethos-u-core-driver`).

1. Link the program into flash: `densepath npu compile … --c-array program.cc` writes it as an
   array, aligned to 16 bytes.
2. `ethosu_init()` with the NPU's address and interrupt, as the board's support package does it.
3. A `tflite::MicroMutableOpResolver` with {resolver}.
4. A `tflite::MicroInterpreter` with an arena of at least {memory["sram"] + 65536:,} bytes in SRAM,
   aligned to 16: what Vela says the program needs, and 64 KiB for the interpreter.
5. Fill the input: uint8, {height} × {width} × {channels}, the pixels of the resized image as they
   are, {height * width * channels:,} bytes, row by row, channels side by side. `densepath npu
   simulate` takes the same bytes from a file.
6. `Invoke()`. The output is int8, one value a class; its scale and zero point are the tensor's.

`densepath npu simulate` gives the bytes that the board must give.
"""

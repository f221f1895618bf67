"""What a board needs besides the program: firmware that runs it, and how to build that."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from densepath.bundle.tflite import TfliteNetwork, read_network
from densepath.files import write_text
from densepath.images.preprocess import Preprocess
from densepath.npu.c_source import labels_source, program_header, resolver_name
from densepath.npu.description import COMPILED, Description
from densepath.npu.layout import Layout
from densepath.wording import counted, in_markdown, percent

# Firmware that is the same for every program.
FIRMWARE = ("main.cc", "program.S")
# What a person may write into: no hash of it is kept.
TO_CHANGE = ("main.cc",)
ORDERS = {1: "grey", 3: "red, green, blue"}


def write_board(folder: Path, described: Description) -> None:
    """The program's folder has firmware in C and C++, and `README.md`, which says how it is built.

    Raises:
        BundleError: the compiled file cannot be read.
        OutputError: a file cannot be written.
    """
    network = read_network(folder / COMPILED)
    title, layout = described.title, described.layout
    for name in FIRMWARE:
        source = files("densepath.npu").joinpath("firmware", name)
        write_text(folder / name, source.read_text(encoding="utf-8"))
    header = program_header(title, network, layout, multi_label=described.multi_label)
    write_text(folder / "program.h", header)
    write_text(folder / "labels.c", labels_source(described.labels))
    parts = (
        _overview(described),
        _memory(layout),
        _build(described.target.name, layout),
        _input(network, described.preprocess),
        _output(network, multi_label=described.multi_label),
        VECTORS,
    )
    write_text(folder / "README.md", "\n".join(parts))


def _overview(described: Description) -> str:
    """What was compiled, and the files."""
    target, left = described.target, described.estimate.not_counted
    aside = f" {in_markdown(str(left))}." if left.operators else ""
    return f"""# {in_markdown(described.title)}

Compiled by Vela {described.tools["vela"]} for {target.system_config}, memory mode
{target.memory_mode}, {target.clock_hz / 1e6:.0f} MHz. Estimated:
{described.estimate.inference_ms:.2f} ms an image on the NPU, which runs
{percent(described.operators.share)} of the operators.{aside}

| file | |
|---|---|
| `{COMPILED}` | the program, as TensorFlow Lite Micro reads it |
| `main.cc` | firmware: starts the NPU, runs the program, makes probabilities; yours to change |
| `program.h`, `labels.c`, `program.S` | what `main.cc` asks of this network; the program as data |
| `model.tflite` | the INT8 network that was compiled, for TensorFlow Lite on a PC |
| `program.json`, `layers.csv` | target, tools, sizes and hashes; Vela's estimate of each layer |
| `program.json.sha256` | the hash of `program.json`, for `sha256sum -c` |
"""


def _memory(layout: Layout) -> str:
    """Which part lies in which memory, and the linker script that puts it there."""
    unused = layout.arena_bytes - layout.scratch_bytes
    rows = [
        (
            "program",
            ".rodata.densepath_program",
            layout.program_memory,
            layout.program_bytes,
            f"the whole file: {layout.weights_bytes:,} of weights, {layout.commands_bytes:,} of "
            "the NPU's commands",
        ),
        (
            "arena",
            ".bss.densepath_arena",
            layout.arena_memory,
            layout.arena_bytes,
            f"TensorFlow Lite Micro's: {layout.scratch_bytes:,} for the NPU (`scratch`), "
            f"{unused:,} for its plan and itself",
        ),
    ]
    if layout.fast_bytes:
        what = "the Ethos-U driver's fast memory (`scratch_fast`)"
        rows.append(
            ("fast", ".bss.densepath_fast", layout.fast_memory, layout.fast_bytes, what),
        )
    return "\n".join(
        [
            "## Memory",
            "",
            "Sizes are those of the compiled file, memories those that Vela reckoned with.",
            "",
            "| section | memory | bytes | what |",
            "|---|---|---|---|",
            *(
                f"| `{name}` | {memory} | {size:,} | {what} |"
                for _, name, memory, size, what in rows
            ),
            "",
            *_remarks(layout),
            "In the linker script, before what takes `.rodata*` and `.bss*`, with your memories'",
            "names:",
            "",
            "```",
            *(
                f"  .densepath_{part}{'' if part == 'program' else ' (NOLOAD)'} : "
                f"{{ *({name}) }} > {place.upper()}"
                for part, name, place, *_ in rows
            ),
            "```",
            "",
        ]
    )


def _remarks(layout: Layout) -> list[str]:
    """What the table does not say."""
    said = ["The NPU reaches none of the CPU's own memories (ITCM, DTCM).", ""]
    if layout.fast_bytes:
        said += [
            "Without the fast memory, or with less, the driver refuses to run. It is not a part of "
            "the arena;",
            "but TensorFlow Lite Micro plans a place for it there, too, so that an arena below "
            f"{layout.fast_bytes:,} bytes",
            "is refused.",
            "",
        ]
    else:
        said += [
            "There is no fast memory beside the arena: `main.cc` gives `ethosu_init` none, for the "
            "driver would",
            "take it in place of the arena.",
            "",
        ]
    if layout.program_memory == "SRAM":
        said += ["For SRAM, the program may lie in a flash as fast, on the same port.", ""]
    elif layout.program_memory == "DRAM":
        said += [
            "Your start-up code copies the program from flash into DRAM (`> DRAM AT > FLASH`). "
            "Left in flash it",
            "runs, too, slower than estimated.",
            "",
        ]
    return said


def _build(target: str, layout: Layout) -> str:
    """TensorFlow Lite Micro, the driver and this folder, as compiler options."""
    generation = target.split("-")[1]
    resolver = ", ".join(f"`{resolver_name(one)}`" for one in layout.operators)
    ports = {
        "NPU_QCONFIG": 2 * layout.program_port,
        "NPU_REGIONCFG_0": 2 * layout.program_port + 1,
        "NPU_REGIONCFG_1": 2 * layout.arena_port,
        "NPU_REGIONCFG_2": 1,
    }
    options = " ".join(f"-D{name}={value}" for name, value in ports.items())
    return f"""## Build

1. TensorFlow Lite Micro with Arm's driver (`ethos-u-core-driver`, which it downloads):

   ```
   make -f tensorflow/lite/micro/tools/make/Makefile TARGET=cortex_m_generic \\
       TARGET_ARCH=cortex-m55 CO_PROCESSOR=ethos_u ETHOSU_ARCH={generation} \\
       ETHOSU_EXTRA_FLAGS="{options}" \\
       microlite
   ```

   The last options tell the driver by which port of the NPU it reaches which memory; those that it
   has by itself are for another memory mode or, where they are the same, may change.
2. `main.cc` (a copy in your firmware: `--overwrite` replaces this folder whole), `labels.c` and
   `program.S`, with the include paths of both and with `-I` for this folder. C++17; no exceptions,
   no RTTI. In place of `program.S` an array, which any compiler reads, is written by
   `densepath npu compile … --c-array program.c`.

   ```
   arm-none-eabi-g++ -mcpu=cortex-m55 -std=c++17 -O2 -DTF_LITE_STATIC_MEMORY -I . … \\
       -DCMSIS_device_header='"ARMCM55.h"' -DDENSEPATH_NPU_BASE=0x48102000 -DDENSEPATH_NPU_IRQ=56 \\
       main.cc labels.c program.S
   ```

   Address and interrupt are your board's; these are Corstone-300's. `-DDENSEPATH_NPU_SECURE=0` for
   an NPU in the non-secure state.
3. `main.cc` registers the operators that the file has: {resolver}. It prints what the arena took.

`main.cc` has the driver's hooks for the data cache (those of driver 1.0, and those of before) where
the device's header says that there is one, and the NPU's interrupt. Under an operating system,
define the driver's mutex and semaphore functions as well: its own are for a single thread.
"""


def _input(network: TfliteNetwork, preprocess: Preprocess) -> str:
    """What the firmware writes into the input."""
    _, height, width, channels = network.input.shape
    order = ORDERS.get(channels, f"the {channels} channels as the network was trained")
    return f"""## Input

{network.input.dtype}, {height} rows of {width} pixels, row by row from the top left, of each pixel
{counted(channels, "byte")} ({order}): {network.input.nbytes:,} bytes. They are the image's, 0 to
255: normalising is a part of the program. The input lies in the arena, where the NPU writes over
it: fill it anew for every image.

{_resizing(preprocess)} An image's orientation (EXIF) comes before. `densepath npu vectors`
writes the bytes of any image, to compare with a camera's.
"""


def _resizing(preprocess: Preprocess) -> str:
    """How an image gets its size."""
    height, width = preprocess.size
    kinds = {
        "cv2_bilinear": "bilinear without antialiasing, as OpenCV's `INTER_LINEAR`",
        "bilinear": "bilinear with antialiasing, as Pillow's `BILINEAR`",
        "bicubic": "bicubic with antialiasing, as Pillow's `BICUBIC`",
    }
    kind = kinds[preprocess.interpolation]
    if preprocess.resize_short is None:
        return f"The whole image is resized to {height} × {width}, whatever its shape: {kind}."
    return (
        f"The short side is resized to {preprocess.resize_short} pixels, the long one in "
        f"proportion\n({kind});\nof that the middle {height} × {width} is taken."
    )


def _output(network: TfliteNetwork, *, multi_label: bool) -> str:
    """What the firmware reads from the output."""
    output = network.output
    if output.dtype == "float32":
        logit = "The output is float32, a logit a class"
    else:
        logit = (
            f"The output is {output.dtype}, one a class: logit = {float(output.scale):.9g} · "
            f"(value − {output.zero_point})".replace("− -", "+ ")
        )
    probability = (
        "Several classes may be right at once: the probability of each is 1 / (1 + exp(−logit))."
        if multi_label
        else "A class's probability is exp(logit − highest) / the sum of that over all classes."
    )
    return f"""## Output

{logit}, in the order of `labels.c`.
{probability}
`Score` in `main.cc` does both. The best class needs neither: it is that of the highest value.
"""


VECTORS = """## Test vectors

```
densepath npu vectors THIS_FOLDER photos/ -o vectors --check
```

writes the input and the expected output of each image, byte for byte; the last option compares the
latter with TensorFlow Lite Micro's interpreter before. With `-DDENSEPATH_TEST_VECTORS`,
`-I vectors` and `vectors/vectors.S`, `main.cc` runs them all and prints how many outputs are equal.
"""

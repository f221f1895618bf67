"""What of a program a board's firmware compiles: numbers, labels, and the program as an array.

On the line: `board.py` writes these files into a program's folder, `npu compile --c-array` one
beside it. They are C that C++ reads, too, and carry no more than `firmware/main.cc` asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densepath.bundle.tflite import TfliteNetwork
from densepath.files import write_text
from densepath.names import readable
from densepath.npu.layout import NPU_OPERATOR, Layout
from densepath.npu.program import Program
from densepath.wording import printable

ROW_BYTES = 16
# How `MicroMutableOpResolver` writes what is not `Add` and the words of TFLite's name.
# Source: TensorFlow Lite Micro, `micro_mutable_op_resolver.h`.
RESOLVER_NAMES = {
    NPU_OPERATOR: "AddEthosU",
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}


def resolver_name(operator: str) -> str:
    """`AddConv2D` for `CONV_2D`: the resolver's function that adds an operator."""
    words = [word if word[:1].isdigit() else word.capitalize() for word in operator.split("_")]
    return RESOLVER_NAMES.get(operator, "Add" + "".join(words))


def program_header(title: str, network: TfliteNetwork, layout: Layout, *, multi_label: bool) -> str:
    """`program.h`: what `main.cc` asks about a network."""
    _, height, width, channels = network.input.shape
    output = network.output
    is_float = output.dtype == np.float32
    scale, zero_point = (1.0, 0) if is_float else (float(output.scale), output.zero_point)
    adding = " && \\\n   ".join(
        f"(resolver).{resolver_name(one)}() == kTfLiteOk" for one in layout.operators
    )
    numbers = {
        "ARENA_BYTES": layout.arena_bytes,
        "FAST_BYTES": layout.fast_bytes,
        "INPUT_HEIGHT": height,
        "INPUT_WIDTH": width,
        "INPUT_CHANNELS": channels,
        "INPUT_BYTES": network.input.nbytes,
        "OUTPUT_BYTES": output.nbytes,
        "OUTPUT_IS_FLOAT": int(is_float),
        "OUTPUT_SCALE": c_float(scale),
        "OUTPUT_ZERO_POINT": f"({zero_point})",
        "NUM_CLASSES": output.nbytes // output.dtype.itemsize,
        "MULTI_LABEL": int(multi_label),
        "NUM_OPERATORS": len(layout.operators),
    }
    return "\n".join(
        [
            *_opening(title, "PROGRAM"),
            "/* program_vela.tflite, from program.S or an array of --c-array; labels.c */",
            "extern const unsigned char densepath_program[];",
            "extern const size_t densepath_program_size;",
            "extern const char *const densepath_labels[];",
            "",
            f"/* The arena belongs in {layout.arena_memory}; the NPU's fast memory, if it has any, "
            f"in {layout.fast_memory}. */",
            *(f"#define DENSEPATH_{name} {value}" for name, value in numbers.items()),
            "",
            "#define DENSEPATH_ADD_OPERATORS(resolver) \\",
            f"  ({adding})",
            *_closing(),
        ]
    )


def labels_source(labels: Sequence[str]) -> str:
    """`labels.c`: the name of each class, in UTF-8."""
    lines = [f"  {c_string(label)}," for label in labels]
    return "\n".join(
        [
            '#include "program.h"',
            "",
            "const char *const densepath_labels[DENSEPATH_NUM_CLASSES] = {",
            *lines,
            "};",
            "",
        ]
    )


def c_string(text: str) -> str:
    """The text as a literal of C: UTF-8, and octal numbers for what is not plain ASCII.

    Octal, for such a number has three digits at most: a letter behind it is not taken for one more.
    """
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in readable(text).encode("utf-8")
    )
    return f'"{plain}"'


def c_float(value: float) -> str:
    """The number as a literal of C, to the last bit of a float32."""
    digits = f"{value:.9g}"
    return f"{digits}f" if "." in digits or "e" in digits else f"{digits}.0f"


def vectors_header(count: int) -> str:
    """`vectors.h`: what `main.cc` asks about test vectors."""
    return "\n".join(
        [
            *_opening("Test vectors", "VECTORS"),
            "/* One behind the other: DENSEPATH_INPUT_BYTES and DENSEPATH_OUTPUT_BYTES each. */",
            "extern const unsigned char densepath_vector_inputs[];",
            "extern const unsigned char densepath_vector_outputs[];",
            "",
            f"#define DENSEPATH_NUM_VECTORS {count}",
            *_closing(),
        ]
    )


def vectors_source(inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """`vectors.S`: the files of test vectors, as they are."""
    lines = [
        "/* The assembler looks for the files in the folders named by -I. */",
        '  .section .rodata.densepath_vectors, "a", %progbits',
    ]
    for name, files in (("inputs", inputs), ("outputs", outputs)):
        lines += [f"  .global densepath_vector_{name}", "  .balign 16"]
        lines += [f"densepath_vector_{name}:", *(f'  .incbin "{file}"' for file in files)]
    return "\n".join([*lines, "", '  .section .note.GNU-stack, "", %progbits', ""])


def write_c_array(program: Program, path: Path) -> None:
    """`path` holds the compiled program as an array, in C that is C++ as well.

    Raises:
        OutputError: it cannot be written.
    """
    data = program.compiled.read_bytes()
    rows = (data[start : start + ROW_BYTES] for start in range(0, len(data), ROW_BYTES))
    text = [
        f"/* {_in_comment(program.description.title)}, by densepath. */",
        "#include <stddef.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "extern const unsigned char densepath_program[];",
        "extern const size_t densepath_program_size;",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        f"const size_t densepath_program_size = {len(data)};",
        "",
        "#define DENSEPATH_QUOTED(text) #text",
        "#define DENSEPATH_STRING(text) DENSEPATH_QUOTED(text)",
        "#ifdef DENSEPATH_PROGRAM_SECTION /* as -DDENSEPATH_PROGRAM_SECTION=.flash */",
        "__attribute__((section(DENSEPATH_STRING(DENSEPATH_PROGRAM_SECTION))))",
        "#endif",
        "__attribute__((aligned(16)))",
        "const unsigned char densepath_program[] = {",
        *("  " + ", ".join(f"0x{byte:02x}" for byte in row) + "," for row in rows),
        "};",
        "",
    ]
    write_text(path, "\n".join(text))


def _opening(title: str, name: str) -> list[str]:
    """The first lines of a header."""
    return [
        f"/* {_in_comment(title)}, by densepath. */",
        f"#ifndef DENSEPATH_{name}_H",
        f"#define DENSEPATH_{name}_H",
        "",
        "#include <stddef.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
    ]


def _closing() -> list[str]:
    """The last lines of a header."""
    return ["", "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""]


def _in_comment(text: str) -> str:
    """The text where nothing ends the comment around it."""
    return printable(text).replace("*/", "* /").replace("/*", "/ *")

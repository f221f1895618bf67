"""A program's folder as firmware engineers use it: sizes, sources in C and C++, test vectors.

No package registry has the headers of TensorFlow Lite Micro or of Arm's driver: `board/` has what
`main.cc` uses of them, with the source of each. `benchmarks/npu_board.py` compiles against the real
ones, where they are.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from densepath.bundle.tflite import read_network
from densepath.errors import BundleError, DataError, EngineError, OutputError
from densepath.exporting.parity_images import write_photographs
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model
from densepath.models.spec import DPNArch, ModelSpec
from densepath.npu import vectors as making
from densepath.npu.board import write_board
from densepath.npu.c_source import (
    c_float,
    labels_source,
    program_header,
    resolver_name,
    vectors_header,
    vectors_source,
    write_c_array,
)
from densepath.npu.compile import compile_program
from densepath.npu.description import COMPILED
from densepath.npu.fitting import why_unfit
from densepath.npu.layout import read_layout
from densepath.npu.program import Program
from densepath.npu.simulate import differing_layers, read_pixels, simulate, simulate_integers
from densepath.npu.targets import find_target
from densepath.npu.tflm_reference import MOST_INPUTS
from densepath.npu.vectors import INDEX, write_vectors
from densepath.quantize.quantize import quantize
from densepath.weights.checkpoint import Checkpoint

pytestmark = pytest.mark.npu

STAND_INS = Path(__file__).parent / "board"
SHIPPED = "cifar10/densenet_bc_22_12"
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
needs_micro = pytest.mark.skipif(
    find_spec("tflite_micro") is None, reason="tflite-micro is for Linux on x86-64"
)
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
MODES = [
    ("ethos-u55-128", "Sram_Only"),
    ("ethos-u55-128", "Shared_Sram"),
    ("ethos-u65-512", "Sram_Only"),
    ("ethos-u65-512", "Shared_Sram"),
    ("ethos-u65-512", "Dedicated_Sram_256KB"),
    ("ethos-u85-256", "Shared_Sram"),
    ("ethos-u85-256", "Dedicated_Sram"),
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder)
    return sorted(folder.iterdir())


def make_bundle(photographs, folder, **options):
    options = {"num_images": 6, "purpose": "npu", "method": "minmax", **options}
    return quantize(SHIPPED, folder, data=photographs[0].parent, **options)


@pytest.fixture(scope="module")
def bundle(photographs, tmp_path_factory):
    return make_bundle(photographs, tmp_path_factory.mktemp("bundles") / "npu")


@pytest.fixture(scope="module")
def programs(bundle, tmp_path_factory):
    """Target and memory mode → the program, compiled once."""
    folder, made = tmp_path_factory.mktemp("programs"), {}

    def compiled(name, mode):
        if (name, mode) not in made:
            target = find_target(name, memory_mode=mode)
            made[name, mode] = compile_program(bundle, target, folder / f"{name}-{mode}")
        return made[name, mode]

    return compiled


@pytest.fixture(scope="module")
def program(programs):
    """With fast memory of its own."""
    return programs("ethos-u65-512", "Dedicated_Sram_256KB")


def defined(folder: Path) -> dict[str, int]:
    """The whole numbers of a program's `program.h`."""
    text = (folder / "program.h").read_text(encoding="utf-8")
    return {
        name: int(value)
        for name, value in re.findall(r"#define DENSEPATH_(\w+) (\d+)$", text, re.M)
    }


def compiled_sizes(folder: Path) -> tuple[int, int]:
    """The bytes of `scratch` and `scratch_fast` in the compiled file, 0 where it has none."""
    tensors = {one.name: one.nbytes for one in read_network(folder / COMPILED).tensors}
    return tensors["scratch"], tensors.get("scratch_fast", 0)


# Sizes and memories


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_sizes_are_those_of_the_compiled_file(programs, name, mode):
    folder = programs(name, mode).folder
    scratch, fast = compiled_sizes(folder)
    numbers = defined(folder)
    assert numbers["FAST_BYTES"] == fast
    assert (fast > 0) == mode.startswith("Dedicated")
    # As much as TensorFlow Lite Micro's plan is; 784 to 816 bytes above that were measured.
    assert 1024 < numbers["ARENA_BYTES"] - max(scratch, fast) < 8192
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{scratch:,} for the NPU" in readme
    assert f"| {numbers['ARENA_BYTES']:,} |" in readme
    assert f"| {(folder / COMPILED).stat().st_size:,} |" in readme
    assert (f"| SRAM | {fast:,} |" in readme) == (fast > 0)


@pytest.mark.parametrize(
    ("name", "mode", "system", "program", "arena", "options"),
    [
        ("ethos-u55-64", "Sram_Only", None, "SRAM", "SRAM", (0, 1, 0, 1)),
        ("ethos-u55-64", "Shared_Sram", None, "flash", "SRAM", (2, 3, 0, 1)),
        ("ethos-u65-256", "Shared_Sram", "Ethos_U65_Embedded", "flash", "SRAM", (2, 3, 0, 1)),
        ("ethos-u65-256", "Shared_Sram", "Ethos_U65_High_End", "DRAM", "SRAM", (2, 3, 0, 1)),
        ("ethos-u85-128", "Dedicated_Sram_384KB", None, "DRAM", "DRAM", (2, 3, 2, 1)),
    ],
)
def test_each_part_lies_in_the_memory_of_the_mode_and_the_driver_is_told(
    bundle, tmp_path, name, mode, system, program, arena, options
):
    target = find_target(name, memory_mode=mode, system_config=system)
    made = compile_program(bundle, target, tmp_path / "p")
    readme = (made.folder / "README.md").read_text(encoding="utf-8")
    assert f"| `.rodata.densepath_program` | {program} |" in readme
    assert f"| `.bss.densepath_arena` | {arena} |" in readme
    assert f"(.bss.densepath_arena) }} > {arena}" in readme
    keys = ("NPU_QCONFIG", "NPU_REGIONCFG_0", "NPU_REGIONCFG_1", "NPU_REGIONCFG_2")
    assert " ".join(f"-D{key}={value}" for key, value in zip(keys, options, strict=True)) in readme
    assert made.description.layout.arena_memory == arena


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_a_program_fits_where_all_of_it_that_lies_in_sram_does(
    bundle, programs, tmp_path, name, mode
):
    made = programs(name, mode)
    memory, numbers = made.description.estimate.memory_bytes, defined(made.folder)
    program = made.compiled.stat().st_size
    in_sram = {"Sram_Only": program + numbers["ARENA_BYTES"], "Shared_Sram": numbers["ARENA_BYTES"]}
    needed = in_sram.get(mode, numbers["FAST_BYTES"])
    everything = program + numbers["ARENA_BYTES"] + numbers["FAST_BYTES"]
    assert memory["sram"] == needed
    assert sum(memory.values()) == everything
    for board, fits in ((needed, True), (needed - 1, False)):
        target = find_target(name, memory_mode=mode, sram_bytes=board)
        again = compile_program(bundle, target, tmp_path / "p", overwrite=True)
        assert again.description.estimate.fits is fits


def test_a_program_that_is_too_large_beside_its_weights_is_told_to_put_them_outside(
    bundle, tmp_path
):
    said = {}
    for size in (200 << 10, 100 << 10):
        target = find_target("ethos-u65-256", memory_mode="Sram_Only", sram_bytes=size)
        made = compile_program(bundle, target, tmp_path / "p", overwrite=True)
        said[size] = why_unfit(made.description)
    outside = "--target ethos-u65-256 --memory-mode Shared_Sram --sram-kib"
    assert f"{outside} 200 -o DIR" in said[200 << 10]
    assert outside not in said[100 << 10]  # the features alone are more


def test_a_program_with_layers_on_the_cpu_registers_them_and_no_others(photographs, tmp_path):
    bundle = make_bundle(photographs, tmp_path / "b", keep_float=["features.conv0"])
    target = find_target("ethos-u65-256", memory_mode="Dedicated_Sram")
    folder = compile_program(bundle, target, tmp_path / "p").folder
    header = (folder / "program.h").read_text(encoding="utf-8")
    added = re.findall(r"\(resolver\)\.(\w+)\(\)", header)
    assert added == ["AddEthosU", "AddDequantize", "AddConv2D", "AddQuantize"]
    assert defined(folder)["NUM_OPERATORS"] == 4
    assert "`AddDequantize`" in (folder / "README.md").read_text(encoding="utf-8")


def test_resolver_functions_have_tensorflow_lite_micros_names():
    names = {"CONV_2D": "AddConv2D", "PADV2": "AddPadV2", "BATCH_MATMUL": "AddBatchMatMul"}
    names |= {"ethos-u": "AddEthosU", "RELU6": "AddRelu6", "SPACE_TO_BATCH_ND": "AddSpaceToBatchNd"}
    assert {name: resolver_name(name) for name in names} == names


def test_a_file_without_a_plan_gets_an_arena_for_all_tensors(program):
    network = read_network(program.model)
    flowing = sum(one.nbytes for one in network.tensors if one.data is None)
    layout = read_layout(program.model, find_target("ethos-u55-32"))
    assert network.offsets == ()
    assert layout.arena_bytes > flowing
    assert (layout.scratch_bytes, layout.fast_bytes, layout.weights_bytes) == (0, 0, 0)


def test_firmware_may_be_changed_and_what_describes_the_program_may_not(program, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(program.folder, copy)
    (copy / "main.cc").write_text("// mine\n")
    assert Program.open(copy).labels == program.labels
    (copy / "program.h").write_text("// mine\n")
    with pytest.raises(BundleError, match=r"program\.h was changed"):
        Program.open(copy)


# Sources


def run(*command, **options):
    done = subprocess.run(
        [str(one) for one in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(folder: Path, vectors: Path, target: Path, *options, source: Path | None = None) -> Path:
    """`main.cc` and what it needs, with the stand-ins, as a program of this machine."""
    sources = [folder / "main.cc", STAND_INS / "playing.cc", folder / "labels.c"]
    sources += [source or folder / "program.S", vectors / "vectors.S"]
    objects = []
    for number, one in enumerate(sources):
        objects.append(target.with_name(f"{target.name}-{number}.o"))
        language = ["-std=c++17", *STRICT] if one.suffix == ".cc" else []
        compiler = "g++" if one.suffix == ".cc" else "gcc"
        paths = [f"-I{path}" for path in (folder, vectors, STAND_INS)]
        run(compiler, *language, *options, *paths, "-c", one, "-o", objects[-1])
    run("g++", *objects, "-o", target)
    return target


@pytest.fixture(scope="module")
def vectors(program, photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors") / "v"
    return write_vectors(program, photographs[:5], folder)


@needs_compiler
@pytest.mark.parametrize(("name", "mode"), [MODES[1], MODES[4]])
def test_main_cc_runs_the_vectors_and_gives_the_driver_its_fast_memory(
    programs, photographs, tmp_path, name, mode
):
    made = programs(name, mode)
    vectors = write_vectors(made, photographs[:3], tmp_path / "v")
    main = build(made.folder, vectors.folder, tmp_path / "main", "-DDENSEPATH_TEST_VECTORS")
    said = run(main)
    _, fast = compiled_sizes(made.folder)
    assert f"fast memory: {'given' if fast else 'none'}, {fast} bytes" in said
    assert "operator ethos-u\narena: " in said
    assert said.endswith("3 of 3 vectors are equal\n")


@needs_compiler
def test_main_cc_tells_a_vector_that_differs(program, vectors, tmp_path):
    wrong = tmp_path / "v"
    shutil.copytree(vectors.folder, wrong)
    playing = build(program.folder, wrong, tmp_path / "right", "-DDENSEPATH_TEST_VECTORS")
    assert "5 of 5" in run(playing)
    shutil.copy(wrong / "0000_input.bin", wrong / "0001_input.bin")  # answered as the first is
    main = build(program.folder, wrong, tmp_path / "wrong", "-DDENSEPATH_TEST_VECTORS")
    done = subprocess.run([main], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "vector 1 differs" in done.stdout
    assert "4 of 5 vectors are equal" in done.stdout


@needs_compiler
@pytest.mark.parametrize("name", ["array.c", "array.cc", "array.h.cpp"])
def test_main_cc_answers_as_the_simulator_does(program, vectors, photographs, tmp_path, name):
    write_c_array(program, tmp_path / name)
    main = build(
        program.folder,
        vectors.folder,
        tmp_path / "main",
        "-DFIRST_VECTOR",
        source=tmp_path / name,
    )
    best = simulate(program, photographs[0], top_k=1).prediction
    assert run(main).splitlines()[-1] == f"{best.labels[0]}: {100 * best.scores[0]:.1f} %"


@needs_compiler
def test_main_cc_takes_float_logits_of_several_labels_at_once(program, tmp_path):
    network = read_network(program.folder / COMPILED)
    output = dataclasses.replace(network.output, dtype=np.dtype(np.float32), scales=np.zeros(0))
    layout = read_layout(program.folder / COMPILED, find_target("ethos-u65-512"))
    header = program_header(
        "a */ b", dataclasses.replace(network, output=output), layout, multi_label=True
    )
    folder = tmp_path / "p"
    shutil.copytree(program.folder, folder)
    (folder / "program.h").write_text(header, encoding="utf-8")
    logits = np.full(10, -2.0, np.float32)
    logits[[3, 7]] = 1.5, 1.25
    made = tmp_path / "v"
    made.mkdir()
    (made / "in.bin").write_bytes(bytes(3072))
    (made / "out.bin").write_bytes(logits.tobytes())
    (made / "vectors.h").write_text(vectors_header(1))
    (made / "vectors.S").write_text(vectors_source(["in.bin"], ["out.bin"]))
    said = run(build(folder, made, tmp_path / "main", "-DFIRST_VECTOR"))
    assert said.endswith(f"\n{program.labels[3]}: {100 / (1 + np.exp(-1.5)):.1f} %\n")


@needs_compiler
@pytest.mark.parametrize("suffix", [".c", ".cc", ".cpp", ".h"])
@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_array_is_c_and_cpp_whatever_its_file_is_called(program, tmp_path, suffix, language):
    array = tmp_path / f"array{suffix}"
    write_c_array(program, array)
    standard = "c99" if language == "c" else "c++17"
    options = [f"-std={standard}", *STRICT, "-DDENSEPATH_PROGRAM_SECTION=.flash"]
    run("g++", "-x", language, *options, "-c", array, "-o", tmp_path / "array.o")
    run("objcopy", "-O", "binary", "-j", ".flash", tmp_path / "array.o", tmp_path / "bytes")
    assert (tmp_path / "bytes").read_bytes() == (program.folder / COMPILED).read_bytes()
    assert re.search(
        r" 2\*\*[456789]\n", run("objdump", "-h", "-j", ".flash", tmp_path / "array.o")
    )


@needs_compiler
@pytest.mark.parametrize(
    "label",
    [
        "cat",
        'a "quoted" one',
        "back\\slash",
        "what??/now",
        "naïve 猫",
        "two\nlines",
        "%s",
        "\x011",
        "",
    ],
)
def test_labels_are_the_same_bytes_in_c(tmp_path, label):
    (tmp_path / "program.h").write_text("#define DENSEPATH_NUM_CLASSES 2\n")
    (tmp_path / "labels.c").write_text(labels_source(["first", label]), encoding="utf-8")
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "labels.c"\n'
        "int main(void) { return fputs(densepath_labels[1], stdout) < 0; }\n"
    )
    run("gcc", "-std=c99", "-trigraphs", *STRICT, tmp_path / "main.c", "-o", tmp_path / "main")
    assert subprocess.run([tmp_path / "main"], capture_output=True).stdout == label.encode()


@pytest.mark.parametrize(
    ("value", "written"), [(0.5, "0.5f"), (1.0, "1.0f"), (1e-7, "1e-07f"), (3.0e9, "3e+09f")]
)
def test_a_scale_is_a_literal_of_c(value, written):
    assert c_float(value) == written


@needs_compiler
@pytest.mark.parametrize("version", [0, 1])
def test_main_cc_has_the_cache_hooks_of_both_generations_of_the_driver(program, tmp_path, version):
    device = "\n".join(
        [
            "#include <stdint.h>",
            "#define __DCACHE_PRESENT 1U",
            "typedef enum { Reset_IRQn = -15 } IRQn_Type;",
            "static inline void SCB_CleanDCache(void) {}",
            "static inline void SCB_CleanInvalidateDCache(void) {}",
            "static inline void NVIC_EnableIRQ(IRQn_Type) {}",
            "static inline void NVIC_SetVector(IRQn_Type, uintptr_t) {}",
        ]
    )
    (tmp_path / "device.h").write_text(device)
    source = (program.folder / "main.cc").read_text(encoding="utf-8")
    # A pointer of this machine's is no uint32_t.
    (tmp_path / "main.cc").write_text(
        source.replace("reinterpret_cast<std::uint32_t>(", "reinterpret_cast<std::uintptr_t>(")
    )
    options = ['-DCMSIS_device_header="device.h"', f"-DETHOSU_DRIVER_VERSION_MAJOR={version}"]
    paths = [f"-I{path}" for path in (tmp_path, program.folder, STAND_INS)]
    command = ["g++", "-std=c++17", *STRICT, *options, *paths, "-c", tmp_path / "main.cc"]
    board = ["-DDENSEPATH_NPU_BASE=0x48102000", "-DDENSEPATH_NPU_IRQ=56"]
    run(*command, *board, "-o", tmp_path / "main.o")
    names = run("nm", tmp_path / "main.o")
    assert "T ethosu_flush_dcache" in names
    assert "T ethosu_invalidate_dcache" in names
    done = subprocess.run(
        [str(one) for one in [*command, "-o", tmp_path / "none.o"]], capture_output=True, text=True
    )
    assert "name the NPU's address and interrupt" in done.stderr


# Test vectors


def test_vectors_are_the_inputs_bytes_and_what_the_simulator_answers(program, vectors, photographs):
    index = json.loads((vectors.folder / INDEX).read_text(encoding="utf-8"))
    assert index == vectors.index
    assert len(vectors) == len(index["vectors"]) == 5
    assert index["input"] == {"type": "uint8", "shape": [1, 32, 32, 3]}
    for vector, photo in zip(index["vectors"], photographs, strict=False):
        made = simulate(program, photo, top_k=1)
        pixels = read_pixels(photo, program.preprocess)
        assert (vectors.folder / vector["input"]).read_bytes() == pixels.tobytes()
        assert (vectors.folder / vector["output"]).read_bytes() == made.logits.tobytes()
        assert vector["label"] == made.prediction.labels[0]
        assert vector["score"] == pytest.approx(made.prediction.scores[0])
        again = simulate(program, vectors.folder / vector["input"])
        assert again.logits.tobytes() == made.logits.tobytes()


def test_vectors_are_replaced_only_when_asked_and_nothing_else_ever(program, photographs, tmp_path):
    folder = tmp_path / "v"
    write_vectors(program, photographs[:3], folder)
    with pytest.raises(OutputError, match="--overwrite replaces them"):
        write_vectors(program, photographs[:1], folder)
    (folder / "notes.txt").write_text("mine")
    write_vectors(program, photographs[:1], folder, overwrite=True)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("0000_input.bin", "0000_output.bin", "vectors.S", "vectors.h", INDEX, "notes.txt")
    }
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("dear to me")
    with pytest.raises(OutputError, match="something else than test vectors"):
        write_vectors(program, photographs[:1], tmp_path / "other", overwrite=True)
    with pytest.raises(OutputError, match="it is a file; name a folder"):
        write_vectors(program, photographs[:1], tmp_path / "other" / "thesis.txt")


def test_old_vectors_stand_until_the_new_ones_are_whole(
    program, photographs, tmp_path, monkeypatch
):
    folder = tmp_path / "v"
    write_vectors(program, photographs[:3], folder)
    (folder / "build").mkdir()
    (folder / "build" / "main.o").write_bytes(b"mine")
    (folder / "newest").symlink_to("0002_input.bin")
    before = {path.name for path in folder.iterdir()}

    def full(path, values):
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(making, "write_json", full)
    with pytest.raises(OutputError, match=re.escape(f"cannot write {folder / INDEX}: No space")):
        write_vectors(program, photographs[:1], folder, overwrite=True)
    assert {path.name for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
    monkeypatch.undo()
    write_vectors(program, photographs[:1], folder, overwrite=True)
    assert (folder / "build" / "main.o").read_bytes() == b"mine"
    assert (folder / "newest").is_symlink()
    assert not (folder / "0002_input.bin").exists()


def test_vectors_go_to_what_a_link_names_and_into_a_folder_that_is_empty(
    program, photographs, tmp_path, monkeypatch
):
    (tmp_path / "current").symlink_to("v1")
    write_vectors(program, photographs[:1], tmp_path / "current")
    write_vectors(program, photographs[1:2], tmp_path / "current", overwrite=True)
    assert (tmp_path / "current").is_symlink()
    assert (tmp_path / "v1" / INDEX).is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_vectors(program, photographs[:1], ".")
    assert (tmp_path / "here" / INDEX).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "here", "v1"]


def test_an_image_that_cannot_be_read_has_no_vector_and_is_named(program, photographs, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    short = tmp_path / "short.bin"
    short.write_bytes(b"x" * 100)
    made = write_vectors(program, [broken, photographs[0], short], tmp_path / "v")
    assert len(made) == 1
    assert len(made.unreadable) == 2
    assert "short.bin has 100 bytes" in made.unreadable[1]
    with pytest.raises(DataError, match="no image could be read"):
        write_vectors(program, [broken], tmp_path / "none")
    assert not (tmp_path / "none").exists()


@needs_micro
def test_twenty_vectors_are_those_of_tensorflow_lite_micro(program, photographs, tmp_path):
    noise = tmp_path / "noise.bin"
    noise.write_bytes(np.random.default_rng(3).integers(0, 256, 3072, np.uint8).tobytes())
    dark = tmp_path / "dark.bin"
    dark.write_bytes(bytes(3072))
    images = [*photographs, noise, dark]
    made = write_vectors(program, images, tmp_path / "v", check=True)
    assert len(made) == len(images) >= 20


@needs_micro
def test_a_stage_of_more_blocks_than_tensorflow_lite_micro_concatenates_is_compared(
    photographs, tmp_path
):
    torch.manual_seed(0)
    spec = ModelSpec("deep", DPNArch(8, 3, 8, 2, (23,), (4,), 1, stem="small"), 16, "none")
    model = build_model(spec, num_classes=2)
    checkpoint = Checkpoint.of(model, preprocess=Preprocess((16, 16)), labels=["a", "b"])
    checkpoint.save(tmp_path / "deep.safetensors")
    bundle = quantize(
        tmp_path / "deep.safetensors",
        tmp_path / "b",
        **{"data": photographs[0].parent, "num_images": 4, "purpose": "npu", "method": "minmax"},
    )
    made = compile_program(bundle, find_target("ethos-u65-256"), tmp_path / "p")
    joined = [o for o in read_network(made.model).operators if o.kind == "CONCATENATION"]
    assert max(len(one.inputs) for one in joined) > 2 * MOST_INPUTS
    assert len(write_vectors(made, photographs[:2], tmp_path / "v", check=True)) == 2


@needs_micro
def test_bytes_that_tensorflow_lite_micro_does_not_give_are_told_and_not_written(
    program, photographs, tmp_path, monkeypatch
):
    def off_by_one(program, pixels, kernels="densepath"):
        made = simulate_integers(program, pixels, kernels=kernels)
        if kernels == "densepath":
            made.values[0, 3] += 1
        return made

    monkeypatch.setattr(making, "simulate_integers", off_by_one)
    with pytest.raises(EngineError, match="for 1 of 3 images"):
        write_vectors(program, photographs[:3], tmp_path / "v", check=True)
    assert not (tmp_path / "v").exists()


@needs_micro
def test_a_fully_connected_layer_rounds_as_tensorflow_lite_micro_and_the_npu_do(
    program, photographs
):
    # An image whose logits differ from those of LiteRT's kernels, which round once.
    (photo,) = (one for one in photographs if one.name == "flower-131x411.png")
    ours, micro, litert = (
        simulate(program, photo, kernels=one) for one in ("densepath", "tflm", "litert")
    )
    assert ours.logits.tobytes() == micro.logits.tobytes()
    assert ours.logits.tobytes() != litert.logits.tobytes()
    assert differing_layers(ours, litert) == []


def test_vela_gives_the_last_layer_the_rounding_of_the_simulator(programs):
    # The commands are words of 32 bits: 10 of opcode, 2 of kind at bit 14, 16 of parameter.
    # Source: `src/ethosu55_interface.h` of Arm's driver, NPU_SET_OFM_PRECISION and round_mode.
    network = read_network(programs("ethos-u55-128", "Shared_Sram").folder / COMPILED)
    commands = network.operators[0].inputs[0].data.view("<u4").tolist()
    start = next(i for i, word in enumerate(commands) if i and word & 0xFF == 2) + 1
    precision, rounding, position = 0, [], start
    while position < len(commands):
        word = commands[position]
        opcode, parameter = word & 0x3FF, word >> 16
        if word >> 14 & 3 == 0 and opcode == 276:
            precision = parameter
        if word >> 14 & 3 == 0 and opcode in (2, 3):  # convolutions, depthwise ones
            rounding.append(precision >> 14 & 3)
        position += 1 if word >> 14 & 3 == 0 else 2
    assert len(rounding) > 30
    assert set(rounding) == {0}  # DBL: rounded twice


def test_the_boards_folder_is_made_again_with_the_same_bytes(program, tmp_path):
    target = find_target("ethos-u65-512", memory_mode="Dedicated_Sram_256KB")
    shutil.copy(program.folder / COMPILED, tmp_path / COMPILED)
    assert read_layout(tmp_path / COMPILED, target) == program.description.layout
    write_board(tmp_path, program.description)
    for name in ("README.md", "program.h", "labels.c", "main.cc", "program.S"):
        assert (tmp_path / name).read_bytes() == (program.folder / name).read_bytes()

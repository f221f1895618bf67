"""A program's folder on every generation and memory mode: its sizes, its firmware, its vectors.

Run: .venv/bin/python benchmarks/npu_board.py imagenet-photos-250.zip --bundles bundles

Compares what the compiled file holds with the sections of `main.cc`, and 20 test vectors with
TensorFlow Lite Micro's interpreter. `--cross` and `--pc` name compilers that find the headers of
TensorFlow Lite Micro and of Arm's driver: the first for a Cortex-M, with -DCMSIS_device_header,
-DDENSEPATH_NPU_BASE and -DDENSEPATH_NPU_IRQ; the second for this machine, which also links
TensorFlow Lite Micro. Without them `main.cc` is compiled against the stand-ins of the tests, and
what TensorFlow Lite Micro takes of the arena is not measured.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import HERE, ROOT, Budget, Results, add_options, list_photos, photos, table
from npu import DRAWN, quantised

TARGETS = ("ethos-u55-256", "ethos-u65-512", "ethos-u85-512")
STAND_INS = ROOT / "tests" / "npu" / "board"
SMALL = "cifar10/densenet_bc_22_12"
SECTIONS = (".rodata.densepath_program", ".bss.densepath_arena", ".bss.densepath_fast")
FLAGS = ("-std=c++17", "-Os", "-fno-exceptions", "-fno-rtti", "-DTF_LITE_STATIC_MEMORY")
USED = re.compile(r"arena: (\d+) of")
EQUAL = re.compile(r"(\d+) of (\d+) vectors are equal")


def main() -> None:
    """Measures what the results lack, and writes the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="a zip archive of photographs")
    parser.add_argument("--images", type=int, default=16, help="to calibrate with")
    parser.add_argument("--vectors", type=int, default=20, help="photographs that become vectors")
    parser.add_argument("--cross", type=Path, help="a compiler for the board, with its headers")
    parser.add_argument("--pc", type=Path, help="one for this machine, with TensorFlow Lite Micro")
    parser.add_argument("--built-with", default="", help="what these compilers are, for the report")
    add_options(parser, "npu-board")
    options = parser.parse_args()
    results, budget = Results(options.output, options), Budget(options.minutes)
    results.place["built_with"] = options.built_with or results.place.get("built_with", "")
    with TemporaryDirectory() as scratch:
        bundles = {
            DRAWN: quantised(DRAWN, (options.bundles or Path(scratch)).resolve(), options),
            SMALL: small_bundle(Path(scratch) / "small", options),
        }
        for model, bundle in bundles.items():
            if model in results.parts or budget.is_spent():
                continue
            results.add(model, measure(bundle, Path(scratch), options))
            results.write_report(report(results))
    results.write_report(report(results))


def small_bundle(folder: Path, options: argparse.Namespace) -> Path:
    """The shipped network's bundle, for weights that were trained."""
    from densepath.quantize.quantize import quantize

    chosen = {"num_images": options.images, "num_held_out": 4, "method": "minmax"}
    return quantize(SMALL, folder, data=options.photos, purpose="npu", **chosen).folder


def measure(bundle: Path, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The model on every target in every memory mode."""
    from densepath.errors import EngineError
    from densepath.npu.compile import compile_program
    from densepath.npu.targets import find_target, memory_modes
    from densepath.npu.vectors import write_vectors

    rows: list[dict[str, Any]] = []
    vectors, checked = scratch / f"vectors-{bundle.name}", {}
    for name in TARGETS:
        for mode in memory_modes(find_target(name).system_config):
            target = find_target(name, memory_mode=mode)
            program = compile_program(bundle, target, scratch / "program", overwrite=True)
            if not checked:  # the same network for all
                with photos(options.photos) as folder:
                    files = list_photos(folder)[: options.vectors]
                    try:
                        made = write_vectors(program, files, vectors, check=True)
                        checked = {"images": len(made), "error": ""}
                    except EngineError as error:
                        checked = {"images": len(files), "error": str(error)}
            sizes = sections(program.folder, scratch, options.cross)
            ran = run_on_pc(program.folder, vectors, scratch, options.pc)
            rows.append({"target": name, "mode": mode, "sizes": sizes, "ran": ran})
            rows[-1]["layout"] = program.description.layout.to_dict()
            print(f"{bundle.name} {name} {mode}", flush=True)
    return {"rows": rows, "checked": checked}


def sections(folder: Path, scratch: Path, cross: Path | None) -> dict[str, int]:
    """The bytes of our sections in `main.cc` and `program.S`, compiled for the board."""
    command = [cross, f"-I{folder}"] if cross else ["g++", f"-I{STAND_INS}", f"-I{folder}"]
    found = dict.fromkeys(SECTIONS, 0)
    for source in ("main.cc", "program.S", "labels.c"):
        target = scratch / f"{source}.o"
        language = [*FLAGS, "-Wall", "-Wextra", "-Werror"] if source == "main.cc" else []
        as_c = ["-x", "c"] if source == "labels.c" else []
        run(*command, *language, *as_c, "-c", folder / source, "-o", target)
        for line in run("readelf", "-SW", target).splitlines():
            words = line.partition("]")[2].split()
            if words and words[0] in found:
                found[words[0]] += int(words[4], 16)
    return found


def run_on_pc(
    folder: Path, vectors: Path, scratch: Path, compiler: Path | None
) -> dict[str, int] | None:
    """What `main.cc` says that ran all vectors with TensorFlow Lite Micro and a played NPU."""
    if compiler is None or not vectors.exists():
        return None
    sources = [folder / "main.cc", HERE / "npu_playing.cc", folder / "program.S"]
    sources += [vectors / "vectors.S"]
    objects = []
    for source in sources:
        objects.append(scratch / f"{source.name}.pc.o")
        flags = FLAGS if source.suffix == ".cc" else ()
        paths = (f"-I{folder}", f"-I{vectors}", "-DDENSEPATH_TEST_VECTORS")
        run(compiler, *flags, *paths, "-c", source, "-o", objects[-1])
    objects.append(scratch / "labels.pc.o")
    run("gcc", f"-I{folder}", "-c", folder / "labels.c", "-o", objects[-1])
    run(compiler, *objects, "-o", scratch / "main")
    done = subprocess.run([scratch / "main"], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    used, equal = USED.search(said), EQUAL.search(said)
    if used is None or equal is None:
        raise SystemExit(f"main.cc ended with {done.returncode}: {said[-500:]}")
    return {"used": int(used[1]), "equal": int(equal[1]), "vectors": int(equal[2])}


def run(*command: Any) -> str:
    """What a tool prints."""
    done = subprocess.run(
        [str(one) for one in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def report(results: Results) -> str:
    """The page."""
    with_micro = any(row["ran"] for part in results.parts.values() for row in part["rows"])
    by = results.place["built_with"] or "the stand-ins of the tests, not the real headers"
    lines = [
        "# A program's folder, as firmware",
        "",
        results.header(),
        "",
        f"`main.cc`, `program.S` and `labels.c` were compiled with {by}.",
        "No board and no simulated one was at hand: nothing here ran on an NPU.",
        "",
        "`read_only`, `scratch`, `scratch_fast`: the tensors of the compiled file's `ethos-u`",
        "operators. `main.cc`: the sections of its object file and of `program.S`'s, in bytes; the",
        "program's has four more, for its size.",
    ]
    if with_micro:
        lines += [
            "Taken: of the arena, by TensorFlow Lite Micro on a PC, whose pointers are twice as",
            "large as a Cortex-M's. Vectors: those for which `main.cc` found equal bytes there,",
            "with a driver that plays the NPU: that shows that `main.cc` works, not what an NPU",
            "computes.",
        ]
    for model, part in results.parts.items():
        lines += ["", f"## {model}", "", _sizes(part).rstrip("\n"), "", *_checked(part["checked"])]
    return "\n".join([*lines, ""])


def _sizes(part: dict[str, Any]) -> str:
    """A row a target and mode."""
    head = ["target", "memory mode", "program in", "arena in", "file", "`read_only`", "`scratch`"]
    head += ["`scratch_fast`", *(f"main.cc `{name}`" for name in ("program", "arena", "fast"))]
    head += ["taken", "vectors"]
    rows = []
    for row in part["rows"]:
        layout, sizes, ran = row["layout"], row["sizes"], row["ran"]
        numbers = [layout[f"{name}_bytes"] for name in ("program", "weights", "scratch", "fast")]
        numbers += [sizes[name] for name in SECTIONS]
        places = [layout["program_memory"], layout["arena_memory"]]
        told = [f"{ran['used']:,}", f"{ran['equal']} of {ran['vectors']}"] if ran else ["", ""]
        rows.append([row["target"], row["mode"], *places, *(f"{n:,}" for n in numbers), *told])
    return table(head, rows, names=4)


def _checked(checked: dict[str, Any]) -> list[str]:
    """How the simulator's bytes compare with TensorFlow Lite Micro's."""
    if checked["error"]:
        return [f"TensorFlow Lite Micro's interpreter: {checked['error']}"]
    return [
        "TensorFlow Lite Micro ran the INT8 network that was compiled (on a PC it has",
        f"no NPU) on {checked['images']} photographs: all bytes are those of our simulator.",
    ]


if __name__ == "__main__":
    main()

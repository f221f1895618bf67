"""All ten models in INT8 on an NPU of each generation: time, memory, what runs where.

Run: .venv/bin/python benchmarks/npu.py imagenet-photos-250.zip --bundles bundles

Weights are the formula's; times and memory do not depend on them. Every program is also run in the
simulator on a few photographs and held against the float network and LiteRT's reference kernels.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import MODELS, RESULTS, ROOT, Budget, Results, add_options, list_photos, photos, table

TARGETS = ("ethos-u55-256", "ethos-u65-512", "ethos-u85-1024")
DRAWN = "densenet121"
AGREEMENT = "agreement"  # its part of the results, beside those of the models
KIB = 1024


def main() -> None:
    """Compiles what the results lack, and writes the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="a zip archive of photographs")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--images", type=int, default=16, help="to calibrate with")
    parser.add_argument(
        "--compared", type=int, default=100, help=f"photographs that {DRAWN} answers in both"
    )
    parser.add_argument("--simulated", type=int, default=2, help="photographs in the simulator")
    add_options(parser, "npu")
    options = parser.parse_args()
    results, budget = Results(options.output, options), Budget(options.minutes)
    drawn = ROOT / "docs" / "images" if options.output.parent == RESULTS else None
    for model in options.models:
        if model in results.parts or budget.is_spent():
            continue
        results.add(model, measure(model, options, drawn))
        results.write_report(report(results))
    if AGREEMENT not in results.parts and DRAWN in results.parts and not budget.is_spent():
        results.add(AGREEMENT, compare(options))
    results.write_report(report(results))


def measure(model: str, options: argparse.Namespace, drawn: Path | None) -> dict[str, Any]:
    """The model on every target."""
    with TemporaryDirectory() as scratch:
        bundle = quantised(model, (options.bundles or Path(scratch)).resolve(), options)
        part = {name: compile_for(bundle, name, Path(scratch), model, drawn) for name in TARGETS}
        part["simulation"] = simulate(bundle, Path(scratch), options)
        return part


def quantised(model: str, kept: Path, options: argparse.Namespace) -> Path:
    """The model's INT8 bundle, one that is there or a new one."""
    bundle = kept / f"{model}-npu"
    if not bundle.exists():
        # In a process of its own, whose memory is free afterwards.
        command = [sys.executable, __file__, "--quantise", model, str(bundle)]
        subprocess.run([*command, str(options.photos), str(options.images)], check=True)
    return bundle


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """The simulator's answers and the float network's to the same photographs."""
    from formula_bundle import formula_bundle

    import densepath
    from densepath.npu.compile import compile_program
    from densepath.npu.simulate import simulate as run
    from densepath.npu.targets import find_target

    with (
        TemporaryDirectory() as scratch,
        formula_bundle(DRAWN, options.bundles, "torch") as plain,
        photos(options.photos) as folder,
        densepath.load(plain, engine="native") as predictor,
    ):
        bundle = quantised(DRAWN, (options.bundles or Path(scratch)).resolve(), options)
        program = compile_program(bundle, find_target(TARGETS[0]), Path(scratch) / "program")
        files = list_photos(folder)[: options.compared]
        same, common = 0, 0
        for file, expected in zip(files, predictor.predict(files), strict=True):
            found = run(program, file).prediction
            same += found.class_ids[0] == expected.class_ids[0]
            common += len({*found.class_ids} & {*expected.class_ids})
    return {"photos": len(files), "same_best": same, "common_of_five": common / len(files)}


def quantise(model: str, folder: str, archive: str, images: str) -> None:
    """The model's INT8 bundle for NPUs."""
    from formula_bundle import formula_checkpoint

    from densepath.quantize.quantize import quantize

    quantize(
        formula_checkpoint(model),
        folder,
        data=archive,
        num_images=int(images),
        num_held_out=4,
        purpose="npu",
        method="minmax",
        say=lambda step: print(f"{model}: {step}", flush=True),
    )


def compile_for(
    bundle: Path, name: str, scratch: Path, model: str, drawn: Path | None
) -> dict[str, Any]:
    """The estimate for a target, or why there is none."""
    from densepath.errors import EngineError
    from densepath.npu.compile import compile_program
    from densepath.npu.figure import draw_profile
    from densepath.npu.profile import profile
    from densepath.npu.targets import find_target

    folder = scratch / name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        program = compile_program(bundle, find_target(name), folder)
    except EngineError as error:
        return {"error": str(error)}
    made = profile(program)
    if drawn is not None and model == DRAWN:
        draw_profile(made, drawn / f"npu-{name}.png")
    return made.to_dict()


def simulate(bundle: Path, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Our integers against LiteRT's, on some photographs; and the quantiser's own comparison."""
    from densepath.bundle.bundle import Bundle
    from densepath.npu.program import Program
    from densepath.npu.simulate import differing_layers
    from densepath.npu.simulate import simulate as run

    program = Program.open(
        next(path for path in (scratch / name for name in TARGETS) if path.exists())
    )
    differing, seconds, layers = 0, [], 0
    with photos(options.photos) as folder:
        for file in list_photos(folder)[: options.simulated]:
            ours, theirs = (run(program, file, kernels=one) for one in ("densepath", "litert"))
            differing += len(differing_layers(ours, theirs))
            seconds.append(ours.seconds)
            layers = len(ours.layers)
    form = Bundle.open(bundle).manifest.quantization["formats"]["litert"]
    return {
        "photos": options.simulated,
        "layers": layers,
        "differing_layers": differing,
        "seconds": round(min(seconds), 2),
        "snr_db": form["tried"]["minmax"]["snr_db"],
        "size_bytes": form["size_bytes"],
    }


def report(results: Results) -> str:
    """The page."""
    rows, checks = [], []
    models = {name: part for name, part in results.parts.items() if name != AGREEMENT}
    for model, part in models.items():
        for name in TARGETS:
            rows.append([model, name, *_cells(part[name])])
        one = part["simulation"]
        checks.append(
            [
                model,
                f"{one['size_bytes'] / 1e6:.1f}",
                f"{one['snr_db']:.1f}",
                f"{one['differing_layers']} of {one['layers'] * one['photos']}",
                f"{one['seconds']:.1f}",
            ]
        )
    head = ["model", "target", "memory mode", "fits", "ms", "SRAM KiB", "of", "DRAM or flash KiB"]
    head += ["on the NPU", "multipliers at work", "bound by"]
    second = ["model", "INT8 file MB", "SNR to float dB", "layers that differ", "simulation s"]
    return "\n".join(
        [
            "# All ten models on Ethos-U55, U65 and U85",
            "",
            results.header(),
            "",
            "Time and memory as Vela estimates them. A U55's board is taken to have 2 MiB of SRAM;",
            "the others' memory modes give 512 KiB of SRAM to the NPU and keep the rest in DRAM.",
            "",
            table(head, rows, names=4),
            "",
            "The simulator: bytes of every layer against LiteRT's reference kernels, and the INT8",
            "network's logits against the float network's on photographs that were held out.",
            "",
            table(second, checks),
            "",
            *_agreement(results.parts.get(AGREEMENT)),
        ]
    )


def _agreement(part: dict[str, Any] | None) -> list[str]:
    """How often the simulator answers as the float network does."""
    if part is None:
        return []
    return [
        f"{DRAWN}, whose weights are a formula's, so that its best classes lie close together: on",
        f"{part['photos']} photographs the simulator's best class is the float network's on "
        f"{part['same_best']};",
        f"of the float network's five best it has {part['common_of_five']:.2f} among its own.",
        "",
    ]


def _cells(one: dict[str, Any]) -> list[str]:
    """A target's figures."""
    if "error" in one:
        return ["", f"no: {one['error']}", *[""] * 7]
    estimate = one["estimate"]
    memory = estimate["memory_bytes"]
    rest = sum(size for name, size in memory.items() if name != "sram")
    bound = ", ".join(f"{name} {share:.0%}" for name, share in one["by_bound"].items() if share > 0)
    return [
        one["target"]["memory_mode"],
        "yes" if estimate["fits"] else "no",
        f"{estimate['inference_ms']:.1f}",
        f"{memory['sram'] / KIB:.0f}",
        f"{estimate['sram_limit_bytes'] / KIB:.0f}",
        f"{rest / KIB:.0f}",
        f"{one['operators']['share']:.1%}",
        f"{one['utilisation']:.1%}",
        bound,
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--quantise"]:
        quantise(*sys.argv[2:6])
    else:
        main()

"""Everything that only an NVIDIA GPU can show, in one command of at most eight minutes.

Takes PyTorch 2.11 or newer and NumPy; no network, no other package, no installation of densepath.
What else is installed (timm, ONNX Runtime for GPUs with what an export takes) is used, and what is
missing is skipped and said. Of DenseNet-121, DPN-68 and DenseNet-BC (L = 100, k = 12):

losses      first steps on the device (plain, channels last, blocks in one operation, bfloat16),
            against the CPU's in float32
resume      steps after saving and loading, against those of a training that went on
engines     PyTorch's engine against the CPU's logits, heat maps, features; evaluation
bundle      ONNX Runtime on the device, from an exported bundle
training    images a second and memory of a step of 256 images, timm's too
inference   the same of answers
compiled    engine and step through torch.compile, timm's too

Each part is a process of its own, so that one that fails, hangs or breaks the GPU's state leaves
the others alone; so are the time limits kept. The result, one Markdown file with all values as JSON
at its end, is written after each part. Exit code 1: something failed, or there is no such device.

Run: python benchmarks/gpu_check.py [--device cuda] [--out gpu-check.md] [--seconds 480]
     [--models densenet121,dpn68,densenet_bc_100_12] [--parts losses,resume] [--batch 256]
     --device cpu does the same with few and small images, to see that it runs
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
if sys.version_info < (3, 11) or not (find_spec("torch") and find_spec("numpy")):
    sys.exit("This check needs Python 3.11 or newer with PyTorch and NumPy; something is missing.")

import torch
from gpu_check_engines import check_bundle, check_compiled, check_engines, time_inference
from gpu_check_parts import MissingError, Say, Sizes, is_installed
from gpu_check_report import write_result
from gpu_check_training import (
    check_losses,
    check_resume,
    time_compiled,
    time_timm_compiled,
    time_training,
)
from harness import command_line, commit, processor_name

from densepath.errors import OutputError

MODELS = ("densenet121", "dpn68", "densenet_bc_100_12")
# Of a step that is compared, and of one that is timed; on a CPU few of both.
FEW, FEW_ON_CPU, MANY_ON_CPU = 8, 4, 4
PACKAGES = ("timm", "onnxruntime", "onnxscript", "safetensors", "pydantic", "PIL", "triton")
# A deterministic cuBLAS has to be asked for before it starts.
ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
LOOK_SECONDS = 60
WHICH = {"all": slice(None), "first": slice(1), "others": slice(1, None)}
Work = Callable[[str, Sizes, Say], None]


@dataclass(frozen=True)
class Part:
    """A kind of check, done for some of the networks.

    Attributes:
        name: as --parts calls it.
        work: does it for a network; by its name in this module, for a new process.
        least_s, most_s: seconds that must be left for it to begin, and that it may take.
        which: of the networks, as `WHICH` has it.
        fresh: densepath is to find PyTorch as a new process does, and not as a forked one.
    """

    name: str
    work: Work
    least_s: float
    most_s: float
    which: str = "all"
    fresh: bool = False


# In the order in which they are done: what is cut off last is worth least.
PARTS = (
    Part("losses", check_losses, 10, 60),
    Part("resume", check_resume, 10, 40, "first"),
    Part("engines", check_engines, 10, 60),
    Part("training", time_training, 15, 80),
    Part("compiled", time_compiled, 40, 150, "first"),
    Part("inference", time_inference, 15, 45),
    Part("compiled engine", check_compiled, 30, 100, "first"),
    Part("bundle", check_bundle, 15, 60, "first", fresh=True),
    Part("timm compiled", time_timm_compiled, 40, 150, "first"),
    Part("compiled others", time_compiled, 40, 150, "others"),
)
SLOW_ON_CPU = ("compiled", "compiled engine", "bundle", "timm compiled", "compiled others")


class Run:
    """The parts that were done, in a file after each.

    Attributes:
        parts: what they found, by part and network, then by their own names.
    """

    def __init__(self, options: argparse.Namespace, place: dict) -> None:
        self._options, self._place = options, place
        self._start = time.monotonic()
        self.parts: dict[str, dict[str, dict]] = {}

    def do(self, part: Part, model: str, sizes: Sizes) -> None:
        """Do a part for a network in a process of its own, within the time that is left."""
        name = f"{part.name}, {model}"
        left = self._options.seconds - (time.monotonic() - self._start)
        found = self.parts[name] = {}
        if left < part.least_s:
            why = f"{max(left, 0):.0f} s were left of {self._options.seconds:.0f}"
            found["all"] = {"state": "skipped", "why": why}
        else:
            run_apart(part.work, (model, sizes), min(part.most_s, left), found, fresh=part.fresh)
        for key, one in found.items():
            print(f"{name}, {key}: {one['state']} {one.get('why', '')}", flush=True)
        self.write()

    def write(self) -> None:
        """Write the result file."""
        seconds = round(time.monotonic() - self._start, 1)
        write_result(self._options.out, self._place, self.parts, seconds)

    def count(self, state: str) -> int:
        """How many results have that state."""
        return sum(one["state"] == state for part in self.parts.values() for one in part.values())


def run_apart(
    work: Any,
    words: tuple[Any, ...],
    seconds: float,
    found: dict[str, dict],
    *,
    fresh: bool = False,
) -> None:
    """Let `work(*words, say)` in a process of its own put what it says into `found`.

    A process that takes longer than so many seconds, or ends by itself, leaves what it had said.
    """
    # A fork is there at once; nothing has been computed here, so no thread is lost by it.
    forks = hasattr(os, "fork") and not fresh
    context: Any = multiprocessing.get_context("fork" if forks else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(work, words, theirs))
    process.start()
    theirs.close()
    end = time.monotonic() + seconds
    said_all = False
    with contextlib.suppress(EOFError):
        while not said_all and ours.poll(max(end - time.monotonic(), 0)):
            key, value = ours.recv()
            said_all = key is None
            if not said_all:
                found[key] = value
    if not said_all:
        late = time.monotonic() >= end
        process.join(0 if late else LOOK_SECONDS)
        why = f"not done after {seconds:.0f} s" if late else f"ended with {process.exitcode}"
        found["the rest"] = {"state": "skipped" if late else "failed", "why": why}
    end_process(process)


def end_process(process: Any) -> None:
    """End the process and what it started, such as compilers."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 9)
    process.kill()
    process.join()


def _work(work: Any, words: tuple[Any, ...], pipe: Any) -> None:
    """In the new process: do the work, and send what it says."""
    if hasattr(os, "setsid"):
        os.setsid()

    def say(name: str | None, found: dict) -> None:
        pipe.send((name, found))

    try:
        work(*words, say)
    except MissingError as error:
        say("all", {"state": "skipped", "why": str(error)})
    except Exception as error:  # whatever a new machine has in store
        say("all", {"state": "failed", "why": f"{type(error).__name__}: {str(error)[:400]}"})
    say(None, {})


def look(device: str, say: Say) -> None:
    """What the device is; looking at a GPU would keep it from processes that are forked later."""
    if device == "cpu":
        say("device", {"name": processor_name()})
        return
    if not torch.cuda.is_available():
        why = (
            "it is a build for CPUs"
            if torch.version.cuda is None
            else "there is none, or no driver"
        )
        raise MissingError(f"PyTorch {torch.__version__} sees no GPU here: {why}.")
    found = torch.cuda.get_device_properties(0)
    say(
        "device",
        {
            "name": found.name,
            "memory_gb": round(found.total_memory / 1e9, 1),
            "capability": f"{found.major}.{found.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        },
    )


def describe(device: str) -> dict:
    """Where and on what this runs.

    Raises:
        SystemExit: there is no such device.
    """
    said: dict[str, dict] = {}
    run_apart(look, (device,), LOOK_SECONDS, said)
    if "device" not in said:
        why = next(iter(said.values()))["why"]
        sys.exit(f"{why} Run this check on a machine with an NVIDIA GPU, or with --device cpu.")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "kind": device,
        "device": said["device"],
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: is_installed(name) for name in PACKAGES},
        "command": command_line(),
        "commit": commit(),
    }


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, their lists split."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu-check.md"))
    parser.add_argument("--seconds", type=float, default=480, help="after which no part goes on")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--parts", help="by their names; all by default, on a CPU the quick ones")
    parser.add_argument("--batch", type=int, default=256, help="of what is timed on a GPU")
    options = parser.parse_args(words)
    usual = [
        part.name for part in PARTS if options.device == "cuda" or part.name not in SLOW_ON_CPU
    ]
    options.parts = options.parts.split(",") if options.parts else usual
    options.models = options.models.split(",")
    wrong = {*options.parts} - {part.name for part in PARTS}
    if wrong:
        parser.error(f"there is no {', '.join(sorted(wrong))}; parts: {[p.name for p in PARTS]}")
    return options


def main() -> None:
    """Does the parts, those of all networks before the next kind."""
    options = parse()
    os.environ.update(ENVIRONMENT)
    on_cpu = options.device == "cpu"
    sizes = Sizes("cpu", FEW_ON_CPU, MANY_ON_CPU, 0.0)
    if not on_cpu:
        sizes = Sizes("cuda", FEW, options.batch, 1.5)
    run = Run(options, describe(options.device))
    try:
        run.write()
    except OutputError as error:
        sys.exit(str(error))
    for part in PARTS:
        for model in options.models[WHICH[part.which]]:
            if part.name in options.parts:
                run.do(part, model, sizes)
    failed = run.count("failed")
    print(f"{options.out}: {run.count('ok')} ok, {failed} failed, {run.count('skipped')} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

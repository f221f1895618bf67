"""A wheel in an empty environment: seconds of CPU and megabytes, on each Python that is named.

Builds the wheel, or takes `--wheel`, and for each Python makes an environment, installs the wheel
and nothing else, and works with it offline in an empty folder with an empty home: the demo's
training by its recipe's name, an evaluation, a prediction with the network that comes along, a
bundle, `--help` of every verb. Any command that fails, or that prints a Python warning, ends it.

Writes `benchmarks/results/DATE-install.json` after each Python, from which the same command goes
on, and `.md`.

Run: .venv/bin/python benchmarks/install_check.py python3.11 python3.12 python3.13
     with PyTorch for CPUs: --pip='--extra-index-url https://download.pytorch.org/whl/cpu
     --constraint constraints-cpu.txt'; an environment is removed before the next is made
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT, Budget, Results, add_options, table

VERSIONS = (
    "import json, platform; from importlib.metadata import version;"
    "print(json.dumps({'python': platform.python_version(),"
    " **{name: version(name) for name in ('torch', 'numpy', 'pillow')}}))"
)
SHIPPED = "cifar10/densenet_bc_22_12"
# Nobody answers there: what would ask the network fails instead of waiting.
OFFLINE = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
MEGABYTE = 1e6


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and an empty folder to work in.

    Attributes:
        bin: where its programs are.
        folder: the folder, which is the home, too.
    """

    bin: Path
    folder: Path

    def run(self, *words: str) -> tuple[float, str]:
        """Seconds of CPU and standard output of one of its programs, offline."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DENSEPATH"))}
        kept |= {"HOME": str(self.folder), **OFFLINE, **{k.lower(): v for k, v in OFFLINE.items()}}
        before = cpu_seconds()
        run = subprocess.run(
            [self.bin / words[0], *words[1:]],
            cwd=self.folder,
            env=kept,
            capture_output=True,
            text=True,
        )
        taken = cpu_seconds() - before
        if run.returncode or "Warning" in run.stderr:
            sys.exit(f"{shlex.join(words)} failed ({run.returncode}):\n{run.stderr[-2000:]}")
        return taken, run.stdout


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, in `folder`."""
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def cpu_seconds() -> float:
    """Of all programs that have ended so far: what else the machine does is not in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def size_mb(folder: Path) -> float:
    """Of all files below `folder`, each once; links are not followed."""
    files = {path.lstat().st_ino: path.lstat().st_size for path in folder.rglob("*")}
    return sum(files.values()) / MEGABYTE


def verbs() -> Iterator[list[str]]:
    """The words of every verb: ["train"], ["npu", "compile"]."""
    from densepath.cli.app import app

    for command in app.registered_commands:
        yield [str(command.name)]
    for group in app.registered_groups:
        for command in group.typer_instance.registered_commands:
            yield [str(group.name), command.name or command.callback.__name__]


def check(python: str, wheel: Path, pip: list[str]) -> dict:
    """What one Python took for each step; ends the program where a step fails."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        subprocess.run([python, "-m", "venv", place / "venv"], check=True)
        venv = Environment(place / "venv" / "bin", place / "work")
        venv.folder.mkdir()
        empty = size_mb(place / "venv")
        start, before = time.perf_counter(), cpu_seconds()
        install = [venv.bin / "python", "-m", "pip", "install", "--quiet", "--no-cache-dir"]
        subprocess.run([*install, *pip, wheel], check=True, cwd=ROOT)
        part = {"minutes": (time.perf_counter() - start) / 60, "install": cpu_seconds() - before}
        part["mb"] = size_mb(place / "venv") - empty
        torch = [path for name in ("torch", "nvidia", "triton") for path in venv.bin.parent.glob(
            f"lib/python3*/site-packages/{name}")]  # fmt: skip
        part["torch_mb"] = sum(size_mb(path) for path in torch)
        part |= work(venv)
        part = {key: round(value, 1) for key, value in part.items()}
        return {**part, "versions": json.loads(venv.run("python", "-c", VERSIONS)[1])}


def work(venv: Environment) -> dict[str, float]:
    """Seconds of CPU of each command; for `--help` of the slowest verb."""
    picture = "from PIL import Image; Image.radial_gradient('L').convert('RGB').save('photo.png')"
    venv.run("python", "-c", picture)
    train = ["train", "recipe:digits", "--epochs", "2", "--output", "run"]
    steps = {
        "train": train,
        "evaluate": ["evaluate", "run", "--data", "digits", "--output", "report"],
        "predict": ["predict", SHIPPED, "photo.png", "--json"],
        "export": ["export", "run", "--to", "torch", "--output", "bundle"],
        "bundle": ["predict", "bundle", "photo.png", "--json"],
    }
    taken = {name: venv.run("densepath", *words)[0] for name, words in steps.items()}
    helps = [venv.run("densepath", *words, "--help")[0] for words in ([], *verbs())]
    return {**taken, "help": max(helps)}


def report(results: Results) -> str:
    """The whole page."""
    heads = {
        "minutes": "install, minutes",
        "install": "install",
        "mb": "MB",
        "torch_mb": "of these PyTorch and CUDA",
        "train": "train",
        "evaluate": "evaluate",
        "predict": "predict",
        "export": "export",
        "bundle": "predict, bundle",
        "help": "slowest --help",
    }
    rows = [
        [part["versions"]["python"], part["versions"]["torch"], *(f"{part[k]:.1f}" for k in heads)]
        for part in results.parts.values()
    ]
    return "\n".join(
        [
            "# A wheel in an empty environment",
            "",
            results.header(),
            "",
            "Seconds of CPU, except where minutes by the clock or MB stand; a new process each,",
            "offline after the installation, in an empty home. `train` is `densepath train",
            "recipe:digits --epochs 2`; `predict` asks the network that comes with the package.",
            "",
            table(["Python", "PyTorch", *heads.values()], rows),
        ]
    )


def main() -> None:
    """Checks each Python that the results do not have yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pythons", nargs="+", help="interpreters, by name or path")
    parser.add_argument("--wheel", type=Path, help="this one, and none is built")
    parser.add_argument("--pip", default="", help="further options of `pip install`")
    add_options(parser, "install")
    options = parser.parse_args()
    results, budget = Results(options.output, options), Budget(options.minutes)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = (options.wheel or build_wheel(Path(scratch))).resolve()
        for python in options.pythons:
            name = subprocess.run([python, "-V"], capture_output=True, text=True).stdout.strip()
            if name not in results.parts and not budget.is_spent():
                results.add(name, check(python, wheel, shlex.split(options.pip)))
                print(name, results.parts[name], flush=True)
    if results.parts:
        results.write_report(report(results))
        print(report(results))


if __name__ == "__main__":
    main()

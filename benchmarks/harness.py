"""What the benchmarks share: photographs, results that outlive a killed run, tables, the machine.

A benchmark writes into `benchmarks/results/` two files named DATE-NAME: `.json`, after every part
that it finishes, and `.md`, made of it. Started again it does what the `.json` lacks, so that a run
may be killed, or be given its minutes in pieces.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from densepath.files import write_json, write_text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = HERE / "peers"
RESULTS = HERE / "results"
MODELS = (
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "densenet264",
    "dpn68",
    "dpn92",
    "dpn98",
    "dpn107",
    "dpn131",
)
PACKAGES = ("densepath", "torch", "openvino", "onnxruntime", "numpy", "pillow")
PHOTOS = (".jpg", ".jpeg", ".png")
# What the command line of densepath sets for itself: waiting OpenMP threads sleep soon.
OUR_ENVIRONMENT = {"GOMP_SPINCOUNT": "1000"}


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """The options that every benchmark has."""
    today = datetime.date.today().isoformat()
    stem = RESULTS / f"{today}-{name}"
    parser.add_argument(
        "--output",
        type=Path,
        default=stem,
        help="where .json and .md are written; by default today's in benchmarks/results",
    )
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="no new part is begun later; run again to go on"
    )
    parser.add_argument(
        "--bundles", type=Path, help="a folder in which exported bundles stay for the next time"
    )
    parser.add_argument("--threads", type=int, default=2, help="of the network, for every system")


def figure_path(output: Path) -> Path:
    """Where the figure of a benchmark belongs: into the pages, or beside results kept elsewhere."""
    if output.parent != RESULTS:
        return output.with_suffix(".png")
    name = output.name.removeprefix(f"{datetime.date.today().isoformat()}-")
    return ROOT / "docs" / "images" / f"{name}.png"


def peer_python(peer: str) -> Path | None:
    """The interpreter of a peer's environment; None where `install.sh` has not made it."""
    python = PEERS / peer / ".venv" / "bin" / "python"
    return python if python.exists() else None


class Budget:
    """The minutes that a run may take."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def is_spent(self) -> bool:
        """Whether nothing new should be begun; says so when it is."""
        spent = time.monotonic() > self._end
        if spent:
            print("the minutes are over; the same command goes on from here", flush=True)
        return spent


class Results:
    """A benchmark's `.json`: where and how it ran, and its finished parts by name."""

    def __init__(self, stem: Path, options: argparse.Namespace) -> None:
        """Opens today's file, if there is one."""
        self._path, self._report = stem.with_suffix(".json"), stem.with_suffix(".md")
        if self._path.exists():
            held = json.loads(self._path.read_text(encoding="utf-8"))
            self.place, self.parts = held["place"], held["parts"]
        else:
            self.place, self.parts = describe_place(options), {}

    def add(self, name: str, part: dict) -> None:
        """The part is in the file, with the load of the machine when it was done."""
        self.parts[name] = {**part, "load": round(os.getloadavg()[0], 2)}
        write_json(self._path, {"place": self.place, "parts": self.parts})

    def write_report(self, text: str) -> None:
        """The report is beside the file."""
        write_text(self._report, text)

    def header(self) -> str:
        """When, where, how: the lines below a report's title."""
        place = self.place
        loads = [part["load"] for part in self.parts.values()]
        spread = f"{min(loads):.1f}–{max(loads):.1f}" if loads else "unknown"
        packages = ", ".join(f"{k} {v}" for k, v in place["versions"].items())
        return (
            f"{place['date']}; {place['processor']}, {place['cores']} cores, {place['system']}; "
            f"load average {place['load']:.1f} at the start, {spread} after the parts.\n"
            f"`{place['command']}`\n"
            f"Commit {place['commit']}; {packages}."
        )


def describe_place(options: argparse.Namespace) -> dict[str, Any]:
    """The machine, the command and the versions of our own environment."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "load": round(os.getloadavg()[0], 2),
        "threads": options.threads,
        "command": command_line(),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def command_line() -> str:
    """The command as others can type it: files by name alone."""
    words = [word if not word.startswith("/") else Path(word).name for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def processor_name() -> str:
    """The processor's own name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    """The short hash of the sources, `changed` where they are not as committed."""
    ours = ["--", "src", "benchmarks"]
    try:
        named = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", *ours)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{named}, changed" if changed else named


def _git(*words: str) -> str:
    """What git answers."""
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing.

    Attributes:
        median: half of them are below.
        low, high: a tenth is below, a tenth above.
        count: how many.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value, to four digits behind the point."""
        tenths = quantiles(values, n=10, method="inclusive") if len(values) > 1 else [values[0]]
        low, high = tenths[0], tenths[-1]
        return cls(round(median(values), 4), round(low, 4), round(high, 4), len(values))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """A Markdown table; the first `names` columns are text, the others numbers."""
    rule = ["---"] * names + ["--:"] * (len(head) - names)
    lines = [head, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


@contextmanager
def photos(given: Path) -> Iterator[Path]:
    """A folder of images, out of a `.zip` where `given` is one."""
    if given.suffix != ".zip":
        yield given.resolve()
        return
    with TemporaryDirectory() as scratch:
        with zipfile.ZipFile(given) as archive:
            archive.extractall(scratch)
        yield Path(scratch)


def list_photos(folder: Path) -> list[str]:
    """The paths of all images below the folder, in order.

    Raises:
        SystemExit: there is none.
    """
    found = sorted(str(p) for p in folder.rglob("*") if p.suffix.lower() in PHOTOS)
    if not found:
        sys.exit(f"{folder}: no images ({', '.join(PHOTOS)}) there.")
    return found

"""Changes the source in one place at a time and looks whether a test notices.

Run: make mutants N=100 SEED=1, or python benchmarks/mutants.py --count 100 --seed 1

The changes are made to a copy of the tree. Each is met by the tests of the fast tier that run its
line (mutant_tests.py), those of its folder first, then the fastest, until one fails that passes
without the change. All are run in forks of one warm process (mutant_warm.py). Results are
kept under --output after each change: a run that was ended goes on; a larger --count adds to the
same ones; a survivor is tried again once the tests that concern it are changed. A survivor wants a
test, or a reason in mutants_equivalent.yaml why no test can notice it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from mutant_changes import Mutant
from mutant_draw import at_places, draw
from mutant_tests import Recording, copy_tree, record
from mutant_warm import WarmTests
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = "training data metrics predict weights quantize serving/core images"
# A test of these would fail for the change of a text, or knows the package by its files alone.
NOT_TESTS = ("tests/contract/", "tests/parity/")
EQUIVALENT = "benchmarks/mutants_equivalent.yaml"
NOTICED = ("failed", "timeout", "crashed")
UNMET = {"outcome": "none", "by": "none passes without the change, in a fork"}


@dataclass
class Result:
    """What became of a mutant.

    Attributes:
        name: the mutant's.
        where: its file and line.
        change: what sort of change, before → after.
        outcome: "failed", "timeout", "crashed": noticed; "survived"; "equivalent"; "no test".
        by: the test that failed, why it is equivalent, or that no recorded test runs its lines.
        tests: how many tests concern it.
        key: of the file and the tests as they were.
    """

    name: str
    where: str
    change: str
    outcome: str
    by: str
    tests: int
    key: str


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="how many changes")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--folders", nargs="+", default=FOLDERS.split(), help="of the package")
    parser.add_argument("--at", nargs="+", help="instead all changes to FILE, or to FILE:LINE")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="folders or files of tests")
    parser.add_argument("--only", nargs="+", help="mutants by name, among those of the count")
    parser.add_argument(
        "--seconds", type=float, default=120, help="of tests a change at most, as recorded"
    )
    parser.add_argument("--output", type=Path, default=Path("build/mutants"))
    parser.add_argument("--package", default="densepath")
    parser.add_argument("--root", type=Path, default=ROOT, help="a checkout")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    if importlib.util.find_spec("coverage") is None:
        raise SystemExit("coverage is missing: make install, or pip install coverage.")
    root, console = asked.root.resolve(), Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy is cleared away
    output = root / asked.output
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="mutants-") as folder, bar(console) as progress:
        copy = Path(folder).resolve() / "tree"
        copy_tree(root, copy)
        (output / "cache").mkdir(exist_ok=True)
        (copy.parent / "cache").symlink_to(output / "cache")  # the compiled kernels
        drawn = asked_for(copy, asked)
        recording = Recording()
        files = test_files(copy, asked.tests)
        task = progress.add_task("tests recorded", total=len(files), said="")
        for found in record(copy, output / "recordings", files, asked.package):
            recording.add(found)
            progress.advance(task)
        name = "at" if asked.at else f"seed-{asked.seed}"
        with WarmTests(copy, asked.package) as warm:
            run = Run(copy, asked, recording, warm, output / f"{name}.json")
            task = progress.add_task("changes made", total=len(drawn), said="")
            for mutant in drawn:
                run.meet(mutant)
                counted = Counter(one.outcome in NOTICED for one in run.results.values())
                progress.update(task, advance=1, said=f"{counted[True]} noticed")
    page = output / f"{name}.md"
    chosen = [run.results[one.name] for one in drawn if one.name in run.results]
    page.write_text(written(chosen, recording, asked), "utf-8")
    console.print(f"{len(chosen)} changes, {shares(chosen)}: {page}", soft_wrap=True)


def asked_for(copy: Path, asked: argparse.Namespace) -> list[Mutant]:
    """The mutants that are drawn, or those of the places that are named."""
    if asked.at:
        return at_places(copy, [f"src/{asked.package}/{place}" for place in asked.at])
    folders = [f"src/{asked.package}/{one}" for one in asked.folders]
    return draw(copy, folders, asked.count, asked.seed)


def test_files(copy: Path, asked: list[str]) -> list[str]:
    """The files of tests, relative to the copy.

    Raises:
        SystemExit: there are none.
    """
    found = {
        path.relative_to(copy).as_posix()
        for one in asked
        for path in ([copy / one] if one.endswith(".py") else (copy / one).rglob("test_*.py"))
    }
    chosen = sorted(one for one in found if not one.startswith(NOT_TESTS))
    if not chosen:
        raise SystemExit(f"no tests in {' '.join(asked)}.")
    return chosen


class Run:
    """The mutants met so far, on disk after each."""

    def __init__(
        self,
        copy: Path,
        asked: argparse.Namespace,
        recording: Recording,
        warm: WarmTests,
        path: Path,
    ) -> None:
        self.copy, self.asked, self.recording, self.path = copy, asked, recording, path
        self.warm, self.sound = warm, dict[str, bool]()
        self.results: dict[str, Result] = {}
        if path.is_file():
            for one in json.loads(path.read_text("utf-8")):
                self.results[one["name"]] = Result(**one)
        known = copy / EQUIVALENT
        listed = yaml.safe_load(known.read_text("utf-8")) if known.is_file() else None
        self.equivalent = {one["name"]: one["why"] for one in listed or []}

    def meet(self, mutant: Mutant) -> None:
        """The mutant is tried, unless its result still holds or it is not asked for."""
        if self.asked.only and mutant.name not in self.asked.only:
            return
        tests = self.recording.concern(mutant.path, mutant.lines, self.asked.seconds)
        key = self._key(mutant, tests)
        known = self.results.get(mutant.name)
        if mutant.name in self.equivalent:
            outcome = {"outcome": "equivalent", "by": self.equivalent[mutant.name]}
        elif known and (known.key == key or self._still_noticed(known, mutant)):
            return
        else:
            outcome = self._try(mutant, tests)
        change = f"{mutant.kind}: `{short(mutant.before)}` → `{short(mutant.after)}`"
        where = f"{mutant.path}:{mutant.line}"
        self.results[mutant.name] = Result(
            mutant.name, where, change, **outcome, tests=len(tests), key=key
        )
        rows = [asdict(one) for one in self.results.values()]
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(rows, indent=1, ensure_ascii=False), "utf-8")
        temporary.replace(self.path)

    def _try(self, mutant: Mutant, tests: list[str]) -> dict[str, str]:
        if not tests:
            return {"outcome": "no test", "by": ""}
        if not self.sound:
            self.sound[""] = True
            self.warm.prepare(sorted({one.split("::")[0] for one in self.recording.seconds}))
        path = self.copy / mutant.path
        source, was = path.read_bytes(), path.stat()
        tests = [one for one in tests if self.sound.get(one, True)]
        answer = dict(UNMET)
        while tests:
            path.write_bytes(mutant.applied(source))
            try:
                answer = self.warm.run(tests, self.recording.seconds)
            finally:
                path.write_bytes(source)
                os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
            if answer["outcome"] not in NOTICED or self._is_sound(answer["by"]):
                break
            tests = [one for one in tests if one != answer["by"]]
            answer = dict(UNMET)
        outcome = {"passed": "survived", "none": "no test"}.get(answer["outcome"])
        if outcome == "survived" and not self.recording.run_by(mutant.path, mutant.lines):
            answer["by"] = "no test is seen to run it"
        return {"outcome": outcome or answer["outcome"], "by": answer["by"]}

    def _is_sound(self, test: str) -> bool:
        """Whether a test that failed passes where nothing is changed."""
        if test not in self.recording.seconds:  # where tests are collected; prepare has done so
            return True
        if test not in self.sound:
            answer = self.warm.run([test], self.recording.seconds)
            self.sound[test] = answer["outcome"] == "passed"
        return self.sound[test]

    def _key(self, mutant: Mutant, tests: list[str]) -> str:
        files = sorted({one.split("::")[0] for one in tests})
        parts = [mutant.path, *files]
        texts = [(self.copy / one).read_bytes() for one in parts]
        return hashlib.sha256(b"\0".join([*texts, *map(str.encode, sorted(tests))])).hexdigest()

    def _still_noticed(self, known: Result, mutant: Mutant) -> bool:
        """A test that failed is still there, and the line: its name says so."""
        test = known.by.split("::")
        path = self.copy / test[0]
        if known.outcome != "failed" or not path.is_file() or len(test) < 2:
            return False
        return f"def {test[-1].split('[')[0]}(" in path.read_text("utf-8")


def shares(results: list[Result]) -> str:
    """In words: how many were noticed, of those that could be."""
    counted = Counter(one.outcome for one in results)
    noticed = sum(counted[name] for name in NOTICED)
    could = len(results) - counted["equivalent"]
    late = f" ({counted['timeout']} by the time they took)" if counted["timeout"] else ""
    left = [f"{counted[name]} {name}" for name in ("survived", "no test", "equivalent")]
    return f"{noticed} of {could} noticed{late}, {', '.join(left)}"


def written(results: list[Result], recording: Recording, asked: argparse.Namespace) -> str:
    """The page: by folder, the survivors, all."""
    passing, left_out = len(recording.seconds), len(recording.left_out)
    how = f"AT='{' '.join(asked.at)}'" if asked.at else f"N={asked.count} SEED={asked.seed}"
    lines = [
        "# Mutants",
        "",
        f"`make mutants {how}`: {shares(results)}.",
        f"Tests that pass without a change: {passing}; that fail or are skipped: {left_out}.",
        "",
        "| folder | changes | noticed | survived | equivalent |",
        "|---|---|---|---|---|",
    ]
    start = f"src/{asked.package}/"
    for folder in asked.folders:
        here = [one for one in results if one.where.startswith(f"{start}{folder}/")]
        counted = Counter(one.outcome for one in here)
        noticed = sum(counted[name] for name in NOTICED)
        left = counted["survived"] + counted["no test"]
        lines.append(f"| {folder} | {len(here)} | {noticed} | {left} | {counted['equivalent']} |")
    for title, outcomes in (
        ("Survivors", ("survived", "no test")),
        ("Equivalent", ("equivalent",)),
        ("Noticed", NOTICED),
    ):
        rows = [one for one in results if one.outcome in outcomes]
        rows.sort(key=lambda one: one.where)
        lines += ["", f"## {title}", ""]
        if not rows:
            lines.append("None.")
            continue
        lines += ["| mutant | where | change | tests | outcome |", "|---|---|---|---|---|"]
        lines += [in_row(one, start) for one in rows]
    return "\n".join(lines) + "\n"


def in_row(one: Result, start: str) -> str:
    by = f": {one.by.removeprefix('tests/')}" if one.by else ""
    cells = (one.name, one.where.removeprefix(start), one.change, one.tests, f"{one.outcome}{by}")
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def short(code: str) -> str:
    """A line that fits in a table."""
    flat = " ".join(code.replace("`", "'").split())
    return flat if len(flat) <= 80 else f"{flat[:50]} … {flat[-27:]}"


def bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeElapsedColumn(), TextColumn("{task.fields[said]}"), console=console
    )


if __name__ == "__main__":
    main()

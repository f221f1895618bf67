"""Which tests run a line: a recording of each file of tests, made in the copy of `mutants.py`.

Each file of tests is run once under coverage. Its recording says for every test how long it took
and which lines it ran, and holds until that file, or a source that it ran, is changed. What a test
runs in another process is not seen. This is also the program that runs in the copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TIER = "not slow"
SECONDS_TO_RECORD = 1800
FIXTURE = "fixture "


@dataclass
class Recording:
    """What is known of the tests, those that pass.

    Attributes:
        seconds: by test, how long it took, set-up included.
        tests: by source file and line, the tests that run it.
        left_out: the tests that fail by themselves, and files of tests that could not be run.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, found: dict[str, Any]) -> None:
        """What the recording of one file of tests has found."""
        self.seconds |= found["seconds"]
        self.left_out += found["left_out"]
        for path, lines in found["lines"].items():
            for line, tests in lines.items():
                passing = {one for one in tests if one in found["seconds"]}
                self.tests.setdefault(path, {}).setdefault(int(line), set()).update(passing)

    def run_by(self, path: str, lines: tuple[int, ...]) -> set[str]:
        """The tests that run one of the lines; none: those that run the file."""
        known = self.tests.get(path, {})
        chosen = known.values() if not lines else (known.get(line, set()) for line in lines)
        return set[str]().union(*chosen)

    def concern(self, path: str, lines: tuple[int, ...], most_seconds: float) -> list[str]:
        """The tests that run one of the lines, or else the file, or else stand in its folder; those
        of its folder first, then the fastest, as many as take `most_seconds`.
        """
        tests = self.run_by(path, lines) or self.run_by(path, ())
        folder = f"tests/{Path(path).relative_to('src').parts[1]}/"
        tests = tests or {test for test in self.seconds if test.startswith(folder)}
        order = sorted(tests, key=lambda one: (not one.startswith(folder), self.seconds[one], one))
        chosen, total = [], 0.0
        for test in order:
            total += self.seconds[test]
            if chosen and total > most_seconds:
                break
            chosen.append(test)
        return chosen


def copy_tree(root: Path, copy: Path) -> None:
    """What git has of the tree and what it does not ignore, as it is on disk now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (root / name).is_symlink() or (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name, follow_symlinks=False)


def record(copy: Path, kept: Path, test_files: list[str], package: str) -> Iterator[dict[str, Any]]:
    """The recordings of files of tests: those in `kept` that still hold, the others made now."""
    kept.mkdir(parents=True, exist_ok=True)
    for test_file in test_files:
        path = kept / f"{test_file.replace('/', '.')}.json"
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_text("utf-8"))
            if all(_hash(copy / name) == known for name, known in found["hashes"].items()):
                yield found
                continue
        made = copy.parent / "recording.json"
        made.unlink(missing_ok=True)
        order = {"file": test_file, "package": package, "output": str(made)}
        _record_in(copy, order)
        try:
            found = json.loads(made.read_text("utf-8"))
        except (OSError, ValueError):
            yield {"seconds": {}, "lines": {}, "left_out": [test_file]}
            continue
        found["hashes"] = {name: _hash(copy / name) for name in (test_file, *found["lines"])}
        path.write_text(json.dumps(found), "utf-8")
        yield found


def _record_in(copy: Path, order: dict[str, Any]) -> None:
    """Run this program in the copy, with a home and a temporary folder of its own."""
    scratch = copy.parent / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    for name in ("home", "tmp"):
        (scratch / name).mkdir(parents=True)
    environment = os.environ | {
        "PYTHONPATH": str(copy / "src"),
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        f"{order['package'].upper()}_CACHE": str(copy.parent / "cache"),
    }
    asked = copy.parent / "order.json"
    asked.write_text(json.dumps(order), "utf-8")
    with (copy.parent / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(asked)],
            cwd=copy,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_RECORD)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Lines:
    """A plugin of pytest: which test runs which lines, and how long each takes."""

    def __init__(self, cover: Any) -> None:
        self.cover = cover
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self.users: dict[str, set[str]] = {}
        self.now = ""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for name in getattr(item, "fixturenames", ()):
                self.users.setdefault(f"{FIXTURE}{name}", set()).add(item.nodeid)

    @contextlib.contextmanager
    def runs_for(self, name: str) -> Iterator[None]:
        """What is run meanwhile is run by `name`."""
        before, self.now = self.now, name
        self.cover.switch_context(name)
        try:
            yield
        finally:
            self.now = before
            self.cover.switch_context(before)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        with self.runs_for(item.nodeid):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """What a shared fixture runs, it runs for all the tests that it is shared by."""
        shared = fixturedef.scope != "function"
        with self.runs_for(f"{FIXTURE}{fixturedef.argname}" if shared else self.now):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid
        self.seconds[name] = self.seconds.get(name, 0) + report.duration
        if report.outcome != "passed":
            self.failed.add(name)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    def found(self) -> dict[str, Any]:
        """The recording, without the hashes."""
        data, lines = self.cover.get_data(), {}
        for file in data.measured_files():
            by_line = {
                line: sorted(set[str]().union(*(self.users.get(one, {one}) for one in tests)))
                for line, tests in data.contexts_by_lineno(file).items()
                if any(tests)
            }
            if by_line:
                lines[Path(file).relative_to(Path.cwd()).as_posix()] = by_line
        passed = {name: took for name, took in self.seconds.items() if name not in self.failed}
        return {"seconds": passed, "lines": lines, "left_out": sorted(self.failed)}


def _record_here(order: dict[str, Any]) -> dict[str, Any]:
    import coverage

    here = Path.cwd()
    cover = coverage.Coverage(
        data_file=None, config_file=False, source=[str(here / "src" / order["package"])]
    )
    cover.set_option("run:core", "ctrace")  # the one that knows tests apart on every Python
    plugin = Lines(cover)
    cover.start()
    try:
        quiet = ["-q", "--rootdir", str(here), "-p", "no:cacheprovider", "--tb=line"]
        pytest.main([*quiet, "-m", TIER, order["file"]], plugins=[plugin])
    finally:
        cover.stop()
    return plugin.found()


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def main() -> None:
    """Obey the order in the file that the argument names."""
    order = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    sys.path.remove(str(Path(__file__).resolve().parent))
    found = importlib.util.find_spec(order["package"])
    if found is None or not Path(str(found.origin)).is_relative_to(Path.cwd()):
        raise SystemExit(f"{order['package']} is not taken from the copy: {found}.")
    Path(order["output"]).write_text(json.dumps(_record_here(order)), "utf-8")
    os._exit(0)  # threads that a test has left behind do not hold up the next file


if __name__ == "__main__":
    main()

"""Runs chosen tests in forks of one warm process, which has imported what every test would import.

Starting Python and PyTorch anew takes longer than most tests do. The warm process imports other
people's packages only: the package itself is read anew for each run, with the change that was made
to it. This is also the program of the warm process; it works in the copy of the tree.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

# Of these and of Python itself, what the tests import. None starts threads or sends anything.
WARM = {"torch", "torchmetrics", "safetensors", "numpy", "scipy", "sklearn", "PIL", "pydantic"}
WARM |= {"yaml", "rich", "typer", "fastapi", "starlette", "httpx2"}
WARM |= {"hypothesis", "_hypothesis_pytestplugin", "schemathesis", "pytest_timeout", "xdist"}
# Without a test that ends for so long, and three times as long as the slowest takes: it hangs.
QUIET_SECONDS = 40
# The first files of tests stand alone: most changes are noticed there, and to collect takes time.
FIRST_FILES = 3


class WarmTests:
    """Runs of tests in the copy, each in a fork with a home, a cache and a temporary folder of its
    own, so that a change cannot harm yours.
    """

    def __init__(self, copy: Path, package: str) -> None:
        self.copy, self.package = copy, package
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> WarmTests:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def prepare(self, test_files: list[str]) -> None:
        """Compile the sources and tests once, so that a run compiles what was changed alone."""
        self._ask({"tests": [], "files": test_files, "quiet": 600.0, "compiles": True})

    def run(self, tests: list[str], seconds: dict[str, float]) -> dict[str, str]:
        """What became of the tests, until the first that fails.

        Returns:
            `outcome`: "passed", "failed", "timeout", "crashed" or "none"; `by`: the test that
            failed, or in which the process hung or ended; empty: before any.
        """
        files = list(dict.fromkeys(name.split("::")[0] for name in tests))
        near = set(files[:FIRST_FILES])
        parts = [
            [one for one in tests if (one.split("::")[0] in near) == first] for first in (1, 0)
        ]
        outcomes = []
        for part in filter(None, parts):
            quiet = QUIET_SECONDS + 3 * max(seconds[one] for one in part)
            named = list(dict.fromkeys(name.split("::")[0] for name in part))
            answer = self._ask({"tests": part, "files": named, "quiet": quiet, "compiles": False})
            if answer["outcome"] not in ("passed", "none"):
                return answer
            outcomes.append(answer["outcome"])
        return {"outcome": "passed" if "passed" in outcomes else "none", "by": ""}

    def _ask(self, order: dict[str, Any]) -> dict[str, str]:
        if self.process is None or self.process.poll() is not None:
            self.process = self._start()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the warm process ended; see {self.copy.parent / 'log.txt'}.")
        return json.loads(line)

    def _start(self) -> subprocess.Popen[str]:
        scratch = self.copy.parent / "warm"
        scratch.mkdir(exist_ok=True)
        environment = os.environ | {
            "PYTHONPATH": str(self.copy / "src"),
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
        }
        with (self.copy.parent / "log.txt").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, __file__, str(self.copy.parent), self.package],
                cwd=self.copy,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )


class Chosen:
    """A plugin of pytest: only the chosen tests, in their order, and the first that fails; the file
    `progress` names the one that runs.
    """

    def __init__(self, tests: list[str], progress: Path) -> None:
        self.order = {name: at for at, name in enumerate(tests)}
        self.progress, self.failed = progress, ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept = [item for item in items if item.nodeid in self.order]
        items[:] = sorted(kept, key=lambda item: self.order[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    pytest_collectreport = pytest_runtest_logreport

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.progress.write_text(nodeid, "utf-8")


def _run(order: dict[str, Any], here: Path, package: str) -> dict[str, str]:
    """The same as `WarmTests.run`, in a fork that is ended when it hangs."""
    scratch, answer, progress = here / "scratch", here / "answer.json", here / "progress"
    shutil.rmtree(scratch, ignore_errors=True)
    answer.unlink(missing_ok=True)
    progress.write_text("", "utf-8")
    child = os.fork()
    if child == 0:
        try:
            _run_here(order, scratch, answer, progress, package)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    outcome = {"outcome": "crashed"}
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        quiet = time.time() - progress.stat().st_mtime
        if quiet > order["quiet"]:
            outcome = {"outcome": "timeout"}
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it has left behind
    with contextlib.suppress(OSError, ValueError):
        return json.loads(answer.read_text("utf-8"))
    return outcome | {"by": progress.read_text("utf-8")}


def _run_here(
    order: dict[str, Any], scratch: Path, answer: Path, progress: Path, package: str
) -> None:
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for name in ("home", "tmp"):
        (scratch / name).mkdir(parents=True)
    kept = scratch.parent / "cache"
    cache = kept if order["compiles"] else scratch / "cache"
    if kept.is_dir() and not order["compiles"]:
        shutil.copytree(kept, cache, symlinks=True)
    os.environ |= {
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        f"{package.upper()}_CACHE": str(cache),
    }
    tempfile.tempdir = None
    sys.dont_write_bytecode = not order["compiles"]
    if not order["compiles"]:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    found = importlib.util.find_spec(package)
    if found is None or not Path(str(found.origin)).is_relative_to(Path.cwd()):
        raise SystemExit(f"{package} is not taken from the copy: {found}.")
    plugin = Chosen(order["tests"], progress)
    quiet = ["-q", "--rootdir", str(Path.cwd()), "-p", "no:cacheprovider", "--tb=line", "-x"]
    quiet += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that are warm
    if order["compiles"]:  # and is the first of all
        quiet += ["--collect-only", "--continue-on-collection-errors"]
    status = pytest.main([*quiet, *order["files"]], plugins=[plugin])
    done = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    made = {"outcome": "failed", "by": plugin.failed or "tests/conftest.py"}
    if order["compiles"]:
        made["warm"] = " ".join(
            one for one in sys.modules if one.split(".")[0] in WARM | sys.stdlib_module_names
        )
    if status in done and not plugin.failed:
        made |= {"outcome": "passed" if status == pytest.ExitCode.OK else "none", "by": ""}
    temporary = answer.with_suffix(".part")
    temporary.write_text(json.dumps(made), "utf-8")
    temporary.replace(answer)
    os._exit(0)  # threads that a change has left behind do not hold up the next one


def main() -> None:
    """Obey the orders on standard input, one a line, with an answer a line."""
    here, package = Path(sys.argv[1]), sys.argv[2]
    sys.path.remove(str(Path(__file__).resolve().parent))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answer = _run(json.loads(line), here, package)
        for name in answer.pop("warm", "").split():
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        gc.collect()
        gc.freeze()  # nor does a run look through what is warm
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

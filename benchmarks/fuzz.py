"""Damages thousands of files of every kind that people bring, and reads them.

Run: python benchmarks/fuzz.py --count 20000 --seed 1

Every case ends in a value or in a DensepathError: no other exception, no code that a file asks for,
no process, no connection, no more memory than is set, no more time than is set. What breaks a rule
is kept under --keep and shown; `--kind K --only N` runs that case again.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from fuzz_seeds import Kind, kinds

from densepath.errors import DensepathError

SECONDS_A_CASE = 20
HARD_SECONDS = 60
MEMORY_BYTES = 1 << 30
MOST_SAID = 300
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.")
# How the 20,000 are shared out.
SHARES = {
    "images": 8, "pth": 2, "modules": 2, "programs": 2, "pdparams": 2, "ckpt": 1, "pdmodel": 1,
    "pir": 1, "pdiparams": 1, "inference.yml": 1, "safetensors": 2, "description": 2,
    "labels": 1, "list": 1, "table": 2, "recipe": 2, "manifest": 2, "program": 1,
    "mxnet": 1, "symbol": 1, "hdf5": 1, "keras": 1, "keras_config": 1,
}  # fmt: skip
ODD_NUMBERS = [0, 1, 2, 127, 128, 254, 255]
ODD_TEXTS = [
    "\0", "\n", "\r\n", "\t", " ", '"', "'", ",", ";", "|", "\\", "{", "}", "[", "]", ":", "#",
    "- ", "&a ", "*a", "!!python/object/apply:os.system [true]", "<<: ", "~", "null", "true", "NaN",
    "-1", "Infinity", "1e999", "99999999999999999999", "0x10", "../", "/", "/dev/zero", "%s",
    "$HOME", "=1+1", "\ufeff", "\u2028", "é", "日本", "\U0001f600", "a" * 5000, "[" * 2000,
    "{a: " * 500,
]  # fmt: skip


@dataclass
class Tally:
    """What became of the cases of one kind."""

    read: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def mutate(data: bytes, rng: np.random.Generator, text: bool) -> bytes:
    """A few bytes or words changed, removed, repeated, moved, cut off."""
    changed = bytearray(data)
    for _ in range(int(rng.geometric(0.5))):
        # Damage near the start meets the headers, elsewhere the contents.
        reach = len(changed) if rng.random() < 0.6 else min(len(changed), 200)
        place = int(rng.integers(max(reach, 1)))
        length = int(rng.integers(1, 1 + 2 ** int(rng.integers(1, 8))))
        match int(rng.integers(9 if text else 7)):
            case 0:
                changed[place : place + 1] = rng.bytes(1)
            case 1:
                changed[place : place + 1] = bytes([int(rng.choice(ODD_NUMBERS))])
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = changed[place : place + length]
            case 4:
                other = int(rng.integers(len(changed) + 1))
                changed[other : other + length] = changed[place : place + length]
            case 5:
                number = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 1 << 20]))
                order = "little" if rng.random() < 0.5 else "big"
                changed[place : place + 4] = number.to_bytes(4, order)
            case 6:
                if rng.random() < 0.3:
                    del changed[place:]
            case _:
                changed[place : place + length * int(rng.integers(2))] = str(
                    rng.choice(ODD_TEXTS)
                ).encode("utf-8", "surrogatepass")
    return bytes(changed)


def make_case(kind: Kind, name: str, index: int, seed: int) -> bytes:
    """Case `index` of a kind: the same bytes for the same seed."""
    rng = np.random.default_rng([seed, index, *name.encode()])
    whole = kind.seeds[int(rng.integers(len(kind.seeds)))]
    damaged = mutate(whole, rng, kind.text)
    return kind.repair(damaged) if rng.random() < 0.5 else damaged


class OverTimeError(BaseException):
    """A case that took too long; no `except Exception` stops it."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """An alarm for what is slow, and an end with all stacks for what hears no alarm."""

    def ring(*_: object) -> None:
        raise OverTimeError(f"more than {SECONDS_A_CASE} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_A_CASE)
    faulthandler.dump_traceback_later(HARD_SECONDS, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


_events: list[str] = []
_watching = False
_allowed: tuple[str, ...] = ()


def _watch(event: str, _: object) -> None:
    """Python's audit hook: what no reading of a file may do."""
    if _watching and event.startswith(FORBIDDEN) and event not in _allowed:
        _events.append(event)


def run_case(kind: Kind, data: bytes, folder: Path, tally: Tally) -> str | None:
    """Read one file; what is wrong with how that ended, or None."""
    global _watching, _allowed
    path = folder / "case"
    path.write_bytes(data)
    start = time.monotonic()
    problem = None
    _events.clear()
    try:
        with guarded(), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            _watching, _allowed = True, kind.allowed
            kind.read(path)
        tally.read += 1
    except DensepathError as error:
        tally.refused += 1
        tally.reasons[type(error).__name__] += 1
    except (Exception, OverTimeError, RecursionError) as error:
        said = f"{type(error).__name__}: {error}"[:MOST_SAID]
        problem = f"{said}\n{''.join(traceback.format_tb(error.__traceback__)[-6:])}"
    finally:
        _watching = False
    if _events:
        problem = f"reading a file caused {', '.join(_events)}"
    tally.slowest_s = max(tally.slowest_s, time.monotonic() - start)
    return problem


def limit_memory(extra: int = MEMORY_BYTES) -> None:
    """This process can take `extra` bytes more than it has; beyond them is a MemoryError."""
    with Path("/proc/self/statm").open() as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, resource.RLIM_INFINITY))


def fuzz(name: str, kind: Kind, indices: range, seed: int, keep: Path | None, mark: Path) -> Tally:
    """Run these cases of a kind."""
    tally = Tally()
    for index in indices:
        data = make_case(kind, name, index, seed)
        with TemporaryDirectory() as folder:
            problem = run_case(kind, data, Path(folder), tally)
        if mark.exists():
            problem = "code from the file was executed"
            mark.unlink()
        if problem is not None:
            tally.broken.append(f"--kind {name} --only {index} --seed {seed}: {problem}")
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{name}-{seed}-{index}").write_bytes(data)
    return tally


def main(words: list[str] | None = None) -> int:
    """Run what the options ask for; 1 where a case broke a rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="Files in all (2000).")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=SHARES, action="append", help="All by default.")
    parser.add_argument("--only", type=int, help="The number of one case.")
    parser.add_argument("--keep", type=Path, help="A folder for the files that break a rule.")
    options = parser.parse_args(words)
    chosen = options.kind or list(SHARES)
    total = sum(SHARES[name] for name in chosen)
    sys.addaudithook(_watch)
    started, failed = time.monotonic(), 0
    with TemporaryDirectory() as scratch:
        mark = Path(scratch) / "executed"
        table = kinds(mark)
        limit_memory()
        for name in chosen:
            count = -(-options.count * SHARES[name] // total)
            indices = (
                range(count) if options.only is None else range(options.only, options.only + 1)
            )
            tally = fuzz(name, table[name], indices, options.seed, options.keep, mark)
            failed += len(tally.broken)
            said = ", ".join(f"{number} {reason}" for reason, number in tally.reasons.most_common())
            print(
                f"{name}: {len(indices)} files, {tally.read} read, {tally.refused} refused "
                f"({said or 'none'}), {len(tally.broken)} broke a rule; slowest "
                f"{tally.slowest_s:.2f} s",
                flush=True,
            )
            for line in tally.broken[:5]:
                print(line, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.monotonic() - started:.0f} s, peak memory {peak:.0f} MiB, seed {options.seed}")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

"""Which of all changes `mutants.py` makes: those that a seed draws, or all of a place."""

from __future__ import annotations

import ast
import hashlib
from itertools import islice
from pathlib import Path

from mutant_changes import Mutant, changes_the_program, is_text, lines_of, mutants_of


def code_lines(source: bytes) -> int:
    """The lines that hold code: no comments, no blank lines, no docstrings."""
    tree = ast.parse(source)
    texts = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and is_text(node.value)
        for line in lines_of(node)
    }
    rows = enumerate(source.decode().splitlines(), 1)
    return sum(
        bool(row.strip()) and not row.strip().startswith("#") and number not in texts
        for number, row in rows
    )


def draw(root: Path, folders: list[str], count: int, seed: int) -> list[Mutant]:
    """`count` mutants of the folders, in proportion to their lines of code.

    In a folder each line that can be changed is as likely as any other, then each change to it.
    The first ten of a hundred are the ten that a count of ten draws, but for rounding.

    Raises:
        SystemExit: a folder has no Python files.
    """
    pools: dict[str, list[Mutant]] = {}
    sizes: dict[str, int] = {}
    sources: dict[str, bytes] = {}
    for folder in folders:
        files = sorted((root / folder).rglob("*.py"))
        if not files:
            raise SystemExit(f"no Python files in {folder}.")
        here = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
        pools[folder] = [one for name, text in here.items() for one in mutants_of(name, text)]
        sizes[folder] = sum(code_lines(text) for text in here.values())
        sources |= here
    drawn: list[tuple[float, Mutant]] = []
    for folder, number in _shares(sizes, count).items():
        shuffled = _shuffled(pools[folder], seed)
        real = (one for one in shuffled if changes_the_program(one, sources[one.path]))
        chosen = list(islice(real, number))
        drawn += [((at + 0.5) / number, one) for at, one in enumerate(chosen)]
    return [one for _, one in sorted(drawn, key=lambda pair: pair[0])]


def _shuffled(pool: list[Mutant], seed: int) -> list[Mutant]:
    """All of a folder: lines in a drawn order, of each one change, then of each a second, ...

    A line keeps its place among the others when the folder changes elsewhere.
    """

    def drawn(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).digest()

    by_line: dict[tuple[str, int], list[Mutant]] = {}
    for mutant in pool:
        by_line.setdefault((mutant.path, mutant.line), []).append(mutant)
    lines = sorted(by_line.values(), key=lambda line: drawn(line[0]))
    # Drawn anew: the first of a line is where the line stands, not the first to be taken.
    lines = [sorted(line, key=lambda one: drawn(one)[::-1]) for line in lines]
    deepest = max(map(len, lines), default=0)
    return [line[turn] for turn in range(deepest) for line in lines if turn < len(line)]


def _shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    """`count` shared out in proportion, by largest remainders."""
    exact = {name: count * size / max(sum(sizes.values()), 1) for name, size in sizes.items()}
    whole = {name: int(value) for name, value in exact.items()}
    by_rest = sorted(exact, key=lambda name: whole[name] - exact[name])
    for name in by_rest[: count - sum(whole.values())]:
        whole[name] += 1
    return whole


def at_places(root: Path, places: list[str]) -> list[Mutant]:
    """All mutants of files, FILE, or lines, FILE:LINE.

    Raises:
        SystemExit: nothing can be changed there.
    """
    found = []
    for place in places:
        name, _, line = place.partition(":")
        source = (root / name).read_bytes()
        here = [one for one in mutants_of(name, source) if line in ("", str(one.line))]
        here = [one for one in here if changes_the_program(one, source)]
        if not here:
            raise SystemExit(f"nothing is changed at {place}.")
        found += here
    return found

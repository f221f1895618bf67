"""The result file of `gpu_check.py`: what failed, the tables, and all values as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness import table

from densepath.files import write_text

Parts = Mapping[str, Mapping[str, dict]]


def write_result(path: Path, place: dict, parts: Parts, seconds: float) -> None:
    """Write the page; JSON without NaN or infinity, which it does not know."""
    values = json.dumps({"place": place, "parts": parts, "seconds": seconds}, indent=1)
    write_text(path, f"{summary(place, parts, seconds)}\n## All values\n\n```json\n{values}\n```\n")


def summary(place: dict, parts: Parts, seconds: float) -> str:
    """The page without the values."""
    device = ", ".join(f"{key} {value}" for key, value in place["device"].items())
    packages = "; ".join(
        f"{said}: {', '.join(names) or 'nothing'}"
        for said, there in (("installed", True), ("not installed", False))
        if (names := [name for name, found in place["packages"].items() if found is there]) or there
    )
    counts = dict.fromkeys(("ok", "failed", "skipped"), 0)
    for _, one in results(parts):
        counts[one["state"]] += 1
    lines = [
        f"# densepath on {place['device']['name']}",
        "",
        f"{place['date']}; {place['kind']}: {device}; {place['processor']}, {place['cores']} "
        f"cores; Python {place['python']}, PyTorch {place['torch']}; {packages}; commit "
        f"{place['commit']}.",
        f"`{place['command']}`, {seconds:.0f} s.",
        "",
        f"**{counts['ok']} ok, {counts['failed']} failed, {counts['skipped']} skipped.**",
        "",
    ]
    for state in ("failed", "skipped"):
        found = [(name, one) for name, one in results(parts) if one["state"] == state]
        lines += [f"- {state}: {name}: {one.get('why', '')}" for name, one in found]
    return "\n".join([*lines, "", *_compared(parts), *_timed(parts)])


def results(parts: Parts) -> Iterator[tuple[str, dict]]:
    """Every result with its name."""
    for part, found in parts.items():
        for name, one in found.items():
            yield f"{part}, {name}", one


def _compared(parts: Parts) -> list[str]:
    """What was held against the CPU, or another run."""
    rows = [
        [name, one["state"], *_pair(one), _also(one)]
        for name, one in results(parts)
        if "differences" in one
    ]
    if not rows:
        return []
    head = ["what", "state", "differences", "bounds", "also"]
    return ["## Against what is expected", "", table(head, rows, names=5)]


def _pair(one: dict) -> list[str]:
    """The differences and their bounds."""
    return [", ".join(f"{d:.1e}" for d in one[key]) for key in ("differences", "bounds")]


def _also(one: dict) -> str:
    """What else was seen."""
    if "same_bits" in one:
        return "the same bits" if one["same_bits"] else "other bits"
    if "same_best_class" in one:
        return f"same best class {one['same_best_class']:.0%}"
    return ""


def _timed(parts: Parts) -> list[str]:
    """What was timed, a row each; the ratio is to timm's plain form of the same part."""
    rows = []
    for part, found in parts.items():
        base = next((found[name] for name in ("timm", "timm, float32") if name in found), {})
        rows += [
            [
                f"{part}, {name}",
                str(one["batch"]),
                f"{one['images_per_second']:,.1f}",
                _over(one, base, "images_per_second"),
                "" if one["memory_mb"] is None else f"{one['memory_mb']:,.0f}",
                _over(one, base, "memory_mb"),
                f"{one['first_s']:.1f}" if "first_s" in one else "",
            ]
            for name, one in found.items()
            if "images_per_second" in one
        ]
    if not rows:
        return []
    head = ["what", "batch", "images/s", "÷ timm", "memory, MB", "÷ timm", "first step, s"]
    return ["## Speed and memory", "", table(head, rows)]


def _over(one: dict, base: dict, key: str) -> str:
    """A cell: empty where there is nothing to compare with."""
    if not base.get(key) or one.get(key) is None:
        return ""
    return f"{one[key] / base[key]:.2f}"

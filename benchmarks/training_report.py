"""The tables of `training.py`, made of its finished parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness import Results, Spread, table
from training_systems import DEFAULT, OURS

TIMM = f"{DEFAULT}, float32"
FUSED = "densepath fused, {}"
# What we want of our step: its time over timm's default in float32, over the best peer's in
# bfloat16; and the growth of its memory over that of timm's default.
GOALS = {"float32": (0.5, 0.25), "bfloat16": (0.5, 1 / 7)}


def report(results: Results, order: Sequence[str]) -> str:
    """The whole page; `order` is that of the systems in its tables."""
    parts = results.parts.values()
    lines = ["# Training steps on a CPU", "", results.header(), ""]
    lines += [_intro(results.place["threads"]), ""]
    for part in (part for part in parts if part["kind"] == "steps"):
        lines += _network(part, order)
    largest = [part for part in parts if part["kind"] == "largest"]
    if largest:
        lines += ["## The largest batch", "", *_largest(largest)]
    for part in (part for part in parts if part["kind"] == "layers"):
        lines += _layers(part)
    lines += ["## How", "", *_how([part for part in parts if part["kind"] == "steps"])]
    return "\n".join(lines) + "\n"


def _intro(threads: int) -> str:
    """What the tables show."""
    return (
        f"Forward, cross-entropy, backward and SGD with momentum on one batch, {threads} threads "
        "for every system. Memory is the growth of the resident set: its peak over what it was "
        "when network and optimiser were made. Best peer: the quickest that is not ours, at any "
        "setting and precision."
    )


def _network(part: dict, order: Sequence[str]) -> list[str]:
    """The section of a network."""
    systems = {label: part["systems"][label] for label in order if label in part["systems"]}
    best = best_peer(systems)
    title = f"## {part['model']}, {part['batch']} images of {part['side']} × {part['side']}"
    lines = [title, "", _steps(systems, best, part["batch"]), *goals(systems, best)]
    lines += [
        f"- {label}: its first step took {one['first_s']:.0f} s, compilation included."
        for label, one in systems.items()
        if one["first_s"] > 10 + 3 * one["ms"]["median"] / 1e3
    ]
    reasons: dict[str, list[str]] = {}
    for label, why in {**part["missing"], **part["failed"]}.items():
        reasons.setdefault(why, []).append(label)
    lines += [f"- Not measured: {'; '.join(names)}: {why}." for why, names in reasons.items()]
    return [*lines, ""]


def _steps(systems: Mapping[str, dict], best: str | None, batch: int) -> str:
    """The table of a network; in bold what others are compared with."""
    head = ["system", "precision", "images/s", "ms a step", "80 % of the steps", "time ÷ timm"]
    head += ["÷ best peer", "memory, MB", "÷ timm"]
    timm, rows = systems.get(TIMM), []
    for label, one in systems.items():
        name, _, precision = label.rpartition(", ")
        ms, growth = one["ms"], one["growth_mb"]
        rows.append(
            [
                f"**{name}**" if label in (TIMM, best) else name,
                precision,
                f"{batch / ms['median'] * 1e3:.2f}",
                f"{ms['median']:.0f}",
                f"{ms['low']:.0f}–{ms['high']:.0f}",
                _ratio(ms["median"], timm and timm["ms"]["median"]),
                _ratio(ms["median"], best and systems[best]["ms"]["median"]),
                f"{growth:.0f}",
                _ratio(growth, timm and timm["growth_mb"], digits=3),
            ]
        )
    return table(head, rows, names=2)


def best_peer(systems: Mapping[str, dict]) -> str | None:
    """The label of the quickest system that is not ours."""
    peers = {
        label: one["ms"]["median"] for label, one in systems.items() if not label.startswith(OURS)
    }
    return min(peers, key=peers.__getitem__) if peers else None


def goals(systems: Mapping[str, dict], best: str | None) -> list[str]:
    """A line for each precision of our step with fused blocks: what is reached of `GOALS`."""
    lines = []
    for precision, (time, memory) in GOALS.items():
        one = systems.get(FUSED.format(precision))
        against = TIMM if precision == "float32" else best
        if one is None or against not in systems or TIMM not in systems:
            continue
        ratio = one["ms"]["median"] / systems[against]["ms"]["median"]
        growth = one["growth_mb"] / systems[TIMM]["growth_mb"]
        lines.append(
            f"- Fused, {precision}: {ratio:.2f} of the time of {against} "
            f"(goal {time:.2f}: {_said(ratio <= time)}), {growth:.3f} of the memory of {TIMM} "
            f"(goal {memory:.3f}: {_said(growth <= memory)})."
        )
    return lines


def _said(reached: bool) -> str:
    return "reached" if reached else "not reached"


def _ratio(value: float, over: float | None, digits: int = 2) -> str:
    """A cell: empty where there is nothing to compare with."""
    return f"{value / over:.{digits}f}" if over else ""


def _largest(parts: Sequence[dict]) -> list[str]:
    """The table of `training_largest.py`."""
    head = ["network", "system", "limit, GB", "two sizes: GB", "largest batch by the line"]
    rows = []
    for part in parts:
        points = ", ".join(f"{n}: {gb:.2f}" for n, gb in part["points_gb"].items())
        largest = "" if part["largest"] is None else f"{part['largest']:,}"
        checked = f"{part['checked_gb']:.2f} GB" if "checked_gb" in part else part["unchecked"]
        cells = [part["model"], part["system"], f"{part['limit_gb']:g}", points, largest, checked]
        rows.append(cells)
    said = "A straight line through the growth at two sizes; the last column is a step at its end."
    return [said, "", table([*head, "a step with it"], rows, names=2)]


def _layers(part: dict) -> list[str]:
    """The table of `training_layers.py`."""
    head = ["operation", "map", "calls", "ms", "share of the step", "GFLOP/s", "÷ matrix rate"]
    rows = []
    for row in part["rows"]:
        rate = row["gflop"] / row["ms"] * 1e3 if row["gflop"] else 0
        rows.append(
            [
                row["operation"],
                f"{row['side']} × {row['side']}" if row["side"] else "",
                str(row["calls"]) if row["calls"] else "",
                f"{row['ms']:.1f}",
                f"{row['ms'] / part['step_ms']:.1%}",
                f"{rate:.0f}" if rate else "",
                f"{rate / part['matrix_gflops']:.2f}" if rate else "",
            ]
        )
    title = f"## Where the time goes: {part['model']}, {part['precision']}"
    least = sum(row["gflop"] for row in part["rows"]) / part["matrix_gflops"] * 1e3
    said = (
        f"{part['batch']} images of {part['side']} × {part['side']}; a step takes "
        f"{part['step_ms']:.0f} ms, of which the products alone would take {least:.0f} ms at the "
        f"{part['matrix_gflops']:.0f} GFLOP/s of `torch.mm` ({part['matrix_shape']}, "
        f"{part['matrix_precision']}) in the same process. What is timed is each call of the "
        "block's operations; all else (layers outside of blocks, optimiser, Python) is "
        "`the rest`."
    )
    return [title, "", said, "", table(head, rows, names=2)]


def _how(parts: Sequence[dict]) -> list[str]:
    """What a reader needs to trust the tables."""
    found = [one for part in parts for one in part["systems"].values()]
    if not found:
        return []
    lines = []
    for precision in ("float32", "bfloat16"):
        pairs = [one["loss_difference"] for one in found if one["precision"] == precision]
        if pairs:
            first, second = (max(pair[i] for pair in pairs) for i in (0, 1))
            lines.append(
                f"- {precision}: the first loss of every system is that of our plain network in "
                f"float32 to {first:.1e}, the second, after one step, to {second:.1e}."
            )
    shares = [share for one in found for share in one["others"]]
    spread = Spread.of(shares)
    counts = [one["ms"]["count"] for one in found]
    versions = {k: v for one in found for k, v in one["versions"].items()}
    return [
        *lines,
        f"- {min(counts)} to {max(counts)} counted steps of each system.",
        f"- Other programs used {spread.median:.0%} of the cores while a system ran (median; in "
        f"the busiest tenth of the turns {spread.high:.0%}).",
        "- DenseNet-BC (L = 100, k = 12): timm's and torchvision's own DenseNet of that size with "
        "one 3 × 3 convolution for a stem, which neither has; PaddleClas and MindCV cannot build "
        "it.",
        "- " + ", ".join(f"{k} {v}" for k, v in sorted(versions.items())) + ".",
    ]

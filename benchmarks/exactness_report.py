"""The page of exactness.py: tables of distances, and which goals were reached."""

from __future__ import annotations

from typing import Any

from harness import MODELS, Results, table

GOAL, GOAL_DOUBLE = 1e-4, 1e-9
KINDS = ("loss", "gradient", "statistic")
SMALL_SCALES = (
    "Scales are drawn through zero, and of a BatchNorm with one near zero the BatchNorms behind it "
    "magnify the channel, and the rounding of its gradient with it, in any float32."
)
KEPT, RAW = "away from kinks", "as they are"


def write_report(results: Results) -> None:
    """Write the page beside the results."""
    results.write_report(page(results))


def page(results: Results) -> str:
    """The whole page."""
    place = results.place
    parts = {model: results.parts[model] for model in MODELS if model in results.parts}
    fused = fused_ways(parts)
    nearest = min(part[KEPT]["nearest"] for part in parts.values())
    sections = [
        "# A training step of fused blocks against the modules",
        results.header(),
        f"One step of {place['batch']} images of {place['side']} × {place['side']}. A number is "
        "‖a − b‖ ÷ ‖b‖: of the loss, or the largest of all parameters' gradients, or of all "
        "running statistics. Columns: our kernels on one thread and on several, and PyTorch's "
        "operations (portable).",
        "## Float32, against the modules in float32",
        "At weights where no value is near a ReLU's kink: the nearest of all models is "
        f"{nearest:.0e} standard deviations of its channel from one.",
        _distances(parts, KEPT, "modules", fused, KINDS),
        verdict(parts, fused, "modules", GOAL, "in float32"),
        "## Float32, against the modules in double",
        "The same steps; beside them what the modules in float32 are off themselves.",
        _distances(parts, KEPT, "double", ["modules", *fused], KINDS[1:]),
        "## Double, against the modules in double",
        _distances(parts, KEPT, "double", ["portable, double"], KINDS),
        verdict(parts, ["portable, double"], "double", GOAL_DOUBLE, "in double"),
        "## Where values are near a kink",
        "The same weights before their shifts were moved, against the modules in double. A value "
        "that float32 rounds to the other side of zero has another gradient, and of few images a "
        "single one is seen; which values these are is chance, so each way of computing has its "
        "own, the modules included.",
        _gradients(parts, ["modules", "1 thread"]),
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def fused_ways(parts: dict[str, Any]) -> list[str]:
    """The ways of computing in float32 but for the modules."""
    first = next(iter(parts.values()))[KEPT]["ways"]
    return [name for name in first if name not in ("double", "modules", "portable, double")]


def _distances(
    parts: dict[str, Any], weights: str, other: str, names: list[str], kinds: tuple[str, ...]
) -> str:
    """A row a model: the largest distances of each kind and way."""
    head = ["model", *(f"{kind}: {name}" for kind in kinds for name in names)]
    rows = []
    for model, part in parts.items():
        found = part[weights]["ways"]
        cells = [found[name][other][kind]["largest"] for kind in kinds for name in names]
        rows.append([model, *(f"{cell:.1e}" for cell in cells)])
    return table(head, rows)


def _gradients(parts: dict[str, Any], names: list[str]) -> str:
    """A row a model: the largest and the median distance of the gradients, at the raw weights."""
    head = ["model", *(f"{name}: {what}" for name in names for what in ("largest", "median"))]
    rows = []
    for model, part in parts.items():
        found = [part[RAW]["ways"][name]["double"]["gradient"] for name in names]
        rows.append(
            [model, *(f"{one[what]:.1e}" for one in found for what in ("largest", "median"))]
        )
    return table(head, rows)


def verdict(parts: dict[str, Any], names: list[str], other: str, goal: float, where: str) -> str:
    """Whether every model reaches a goal in every way, and what does not."""
    missed = []
    largest = 0.0
    for model, part in parts.items():
        ways = part[KEPT]["ways"]
        for name in names:
            for kind, found in ways[name][other].items():
                largest = max(largest, found["largest"])
                if found["largest"] > goal:
                    missed.append(f"- {model}, {name}: {_miss(kind, found, ways, name)}")
    said = f"Goal {where}: at most {goal:.0e} everywhere. The largest is {largest:.1e}"
    if not missed:
        return f"{said}: reached by all {len(parts)} models."
    return "\n".join([f"{said}: not reached by:", "", *missed, "", SMALL_SCALES])


def _miss(kind: str, found: dict[str, Any], ways: dict[str, Any], name: str) -> str:
    """One distance beyond the goal, and who is how far from double."""
    place = f" of `{found['where']}`" if found["where"] else ""
    own, modules = (ways[one]["double"][kind]["largest"] for one in (name, "modules"))
    return (
        f"{kind}{place} {found['largest']:.1e}; of all, this way is {own:.1e} from double, the "
        f"modules are {modules:.1e}"
    )

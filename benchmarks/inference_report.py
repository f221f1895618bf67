"""The tables and the figure of `inference.py`, made of its finished pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import geometric_mean

from harness import MODELS, Results, table

OURS = "densepath"
# What the figure shows beside our default, if it was measured.
SHOWN = (
    "plain OpenVINO",
    "plain ONNX Runtime",
    "timm eager (channels last)",
    "timm eager",
    "Paddle Inference (oneDNN)",
    "MindSpore Graph",
)
# What takes bfloat16 unasked on a processor that multiplies so, besides ours, which does where the
# bundle's report on real images allows it.
LOWER_BY_DEFAULT = ("plain OpenVINO",)
TWICE = ("timm eager", "timm eager (channels last)", "Paddle Inference (oneDNN)")


def report(results: Results, order: Sequence[str]) -> str:
    """The whole page; `order` is that of the systems in its tables."""
    lines = ["# Latency on a CPU", "", results.header(), ""]
    lines += [
        f"Median milliseconds of a batch of 224 × 224 images, from array to array, "
        f"{results.place['threads']} threads for every system. Bold: what `densepath.load` takes "
        "by itself.",
        "",
    ]
    parts = sorted(results.parts.values(), key=_place)
    for precision in dict.fromkeys(part["precision"] for part in parts):
        same = [part for part in parts if part["precision"] == precision]
        lines += [f"## {precision}", "", latencies(same, order), _times_ours(same, order)]
        lines += [_goals(same), ""]
    lines += _defaults(parts)
    lines += ["## How", "", *_how(parts)]
    return "\n".join(lines) + "\n"


def _place(part: dict) -> tuple[bool, int, int]:
    """float32 first, the models in the order of the catalogue, then by batch size."""
    return part["precision"] != "float32", MODELS.index(part["model"]), part["batch"]


def by_default(parts: Sequence[dict]) -> list[dict]:
    """The pairs that were measured in both precisions, each system in the one that it takes
    unasked.
    """
    pairs: dict[tuple[str, int], dict[str, dict]] = {}
    for part in parts:
        pairs.setdefault((part["model"], part["batch"]), {})[part["precision"]] = part
    made = []
    for both in pairs.values():
        if len(both) < 2:
            continue
        plain, lower = both["float32"], both["bfloat16"]
        taken = {name: ms for name, ms in plain["ms"].items() if not name.startswith(OURS)}
        taken |= {name: ms for name, ms in lower["ms"].items() if name in LOWER_BY_DEFAULT}
        ours = lower["default"]
        made.append({**lower, "ms": taken | {ours: lower["ms"][ours]}})
    return made


def _defaults(parts: Sequence[dict]) -> list[str]:
    """Everybody's default against ours; nothing unless both precisions were measured."""
    pairs = by_default(parts)
    if not pairs:
        return []
    ratios = [over_best(pair) for pair in pairs]
    rows = []
    for pair, (ratio, best) in zip(pairs, ratios, strict=True):
        ms = pair["ms"][pair["default"]]["median"]
        rows.append([pair["model"], str(pair["batch"]), f"{ms:.1f}", f"{ratio:.2f} ({best})"])
    mean = geometric_mean([ratio for ratio, _ in ratios])
    return [
        "## Default against default",
        "",
        "Ours and plain OpenVINO in bfloat16, taken unasked on this processor (by ours where "
        "the bundle's report on real images allows it); the others in float32, as they do.",
        "",
        table(["model", "batch", "ours", "ours ÷ best other"], rows),
        f"Geometric mean: {mean:.2f}.",
        "",
    ]


def latencies(parts: Sequence[dict], order: Sequence[str]) -> str:
    """A row for each model and batch size."""
    names = _measured(parts, order)
    head = ["model", "batch", *names, "ours ÷ best other"]
    rows = []
    for part in parts:
        cells = [_milliseconds(part, name) for name in names]
        ratio, best = over_best(part)
        rows.append([part["model"], str(part["batch"]), *cells, f"{ratio:.2f} ({best})"])
    return table(head, rows)


def _measured(parts: Sequence[dict], order: Sequence[str]) -> list[str]:
    """The systems that any of the pairs has."""
    return [name for name in order if any(name in part["ms"] for part in parts)]


def _milliseconds(part: dict, name: str) -> str:
    """A cell: nothing where the system was not measured."""
    if name not in part["ms"]:
        return ""
    text = f"{part['ms'][name]['median']:.1f}"
    return f"**{text}**" if name == part["default"] else text


def over_best(part: dict) -> tuple[float, str]:
    """Our default's median over that of the quickest system that is not ours, and its name."""
    others = {name: ms["median"] for name, ms in part["ms"].items() if not name.startswith(OURS)}
    if part["default"] not in part["ms"] or not others:
        return float("nan"), "nothing to compare"
    best = min(others, key=others.__getitem__)
    return part["ms"][part["default"]]["median"] / others[best], best


def times_ours(parts: Iterable[dict], name: str) -> list[float]:
    """A system's median over our default's, in all pairs that have both."""
    return [
        part["ms"][name]["median"] / part["ms"][part["default"]]["median"]
        for part in parts
        if name in part["ms"] and part["default"] in part["ms"]
    ]


def _times_ours(parts: Sequence[dict], order: Sequence[str]) -> str:
    """Each system's time as a multiple of ours, by batch size."""
    batches = sorted({part["batch"] for part in parts})
    rows = []
    for name in _measured(parts, order):
        cells = []
        for batch in batches:
            ratios = times_ours([part for part in parts if part["batch"] == batch], name)
            mean = geometric_mean(ratios) if ratios else 0
            least, most = min(ratios, default=0), max(ratios, default=0)
            cells.append(f"{mean:.2f} ({least:.2f}–{most:.2f})" if ratios else "")
        rows.append([name, *cells])
    head = ["time ÷ that of ours", *(f"batch {batch}" for batch in batches)]
    return "Geometric mean over the models, least and most:\n\n" + table(head, rows)


def _goals(parts: Sequence[dict]) -> str:
    """How many pairs reach what we want of our default."""
    found = [ratio for ratio, _ in map(over_best, parts) if ratio == ratio]
    said = [
        f"Ours ÷ best other: {geometric_mean(found):.2f} in the geometric mean, at most "
        f"{max(found):.2f}; 1 or less in {_count(found, lambda r: r <= 1)}"
    ]
    for name in TWICE:
        ratios = times_ours(parts, name)
        if ratios:
            said.append(f"{name} takes at least twice ours in {_count(ratios, lambda r: r >= 2)}")
    return "; ".join(said) + "."


def _count(values: Sequence[float], holds: Callable[[float], bool]) -> str:
    return f"{sum(map(holds, values))} of {len(values)}"


def _how(parts: Sequence[dict]) -> list[str]:
    """What a reader needs to trust the tables."""
    lines = []
    for precision in dict.fromkeys(part["precision"] for part in parts):
        same = [part for part in parts if part["precision"] == precision]
        worst = max(d for part in same for d in part["difference"].values())
        batch = max(d for part in same for d in part["difference_from_alone"].values())
        lines.append(
            f"- {precision}: before timing, the logits of every system were compared with those of "
            f"our network in float32, not rewritten: at most {worst:.1e} of the largest. The first "
            f"and the last image of a batch have the logits that they have alone, to {batch:.1e}."
        )
    shares = [part["others"] for part in parts if part["others"]]
    if shares:
        usual = sorted(share["median"] for share in shares)[len(shares) // 2]
        most = max(share["high"] for share in shares)
        lines.append(
            f"- Other programs used {usual:.0%} of the cores while a system ran (median; in the "
            f"busiest tenth of the turns of a pair {most:.0%})."
        )
    counts = [ms["count"] for part in parts for ms in part["ms"].values()]
    lines.append(f"- {min(counts)} to {max(counts)} runs of each system and pair.")
    failures = {(part["model"], *pair) for part in parts for pair in part["failed"].items()}
    lines += [f"- {model}: {name} failed: {why}" for model, name, why in sorted(failures)]
    versions = {k: v for part in parts for of in part["versions"].values() for k, v in of.items()}
    lines.append("- " + ", ".join(f"{k} {v}" for k, v in sorted(versions.items())) + ".")
    return lines


def draw(parts: Sequence[dict], order: Sequence[str], path: Path) -> None:
    """Latency of one image against the accuracy that the model is published with."""
    import matplotlib.pyplot as plt

    from densepath.models.catalogue import CATALOGUE

    single = [part for part in parts if part["batch"] == 1 and part["precision"] == "float32"]
    if not single:
        return
    figure, axes = plt.subplots(figsize=(8.5, 5), layout="constrained")
    names = ["", *(name for name in _measured(single, order) if name in SHOWN)]
    for i, name in enumerate(names):
        for family, marker in (("densenet", "o"), ("dpn", "s")):
            points = sorted(
                (CATALOGUE[part["model"]].seed.top1 * 100, part["ms"][shown]["median"])
                for part in single
                if (shown := name or part["default"]) in part["ms"]
                and part["model"].startswith(family)
            )
            axes.plot(
                [ms for _, ms in points],
                [accuracy for accuracy, _ in points],
                color=f"C{i - 1}" if name else "black",
                marker=marker,
                markersize=4 if name else 7,
                linewidth=1 if name else 2,
                zorder=2 if name else 3,
                label=(name or "densepath, its default") if family == "densenet" else None,
            )
    for part in single:
        dense = part["model"].startswith("densenet")
        axes.annotate(
            part["model"].replace("densenet", "DenseNet-").replace("dpn", "DPN-"),
            (part["ms"][part["default"]]["median"], CATALOGUE[part["model"]].seed.top1 * 100),
            textcoords="offset points",
            xytext=(7, -11) if dense else (-6, 6),
            ha="left" if dense else "right",
            fontsize=8,
        )
    axes.set_xscale("log")
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks("{x:.0f}")
    axes.set_xlabel("median milliseconds of one image, float32, 2 threads (log scale)")
    axes.set_ylabel("published top-1 accuracy on ImageNet, %")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)

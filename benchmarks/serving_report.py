"""The page of `serving.py`: a table for each number of clients, the goals, and the overload."""

from __future__ import annotations

from typing import Any

from harness import Results, Spread, table
from serving_overload import AS_BEFORE, TIMES
from serving_systems import ALONE, FLOAT_PEERS, INT8, OURS, PEER_OPTIONS

GOAL_RATIO = 1.5
GOAL_CLIENTS = 32


def rounds_of(results: Results, clients: int) -> list[dict[str, Any]]:
    """The systems' rows of every round with so many clients."""
    return [
        part["systems"]
        for name, part in results.parts.items()
        if name.startswith("round") and part["clients"] == clients
    ]


def spread_of(rounds: list[dict[str, Any]], name: str, key: str) -> Spread:
    """A system's figure over the rounds."""
    return Spread.of([rows[name][key] for rows in rounds if name in rows])


def capacity_of(results: Results, name: str, clients: int) -> float | None:
    """Answers a second of a system; None where it has not been measured."""
    rounds = [rows for rows in rounds_of(results, clients) if name in rows]
    return spread_of(rounds, name, "requests_per_second").median if rounds else None


def report(results: Results) -> str:
    """The whole page."""
    counts = sorted(
        {
            part["clients"]
            for part in results.parts.values()
            if "systems" in part and "clients" in part
        }
    )
    lines = ["# Serving, from an uploaded photo to five classes", "", results.header(), ""]
    for clients in counts:
        lines += [f"## {clients} client{'s' if clients > 1 else ''}", ""]
        lines += [_clients_table(rounds_of(results, clients))]
        lines += _goal(rounds_of(results, clients)) if clients == GOAL_CLIENTS else []
    lines += _how(results)
    if "answers" in results.parts:
        lines += ["## Answers", "", _answers_table(results.parts["answers"]["systems"])]
    if "overload" in results.parts:
        lines += _overload(results.parts["overload"])
    lines += _settings(results)
    return "\n".join(lines).rstrip() + "\n"


def _clients_table(rounds: list[dict[str, Any]]) -> str:
    """A row a system."""
    rows = []
    ours = _median(rounds, OURS, "requests_per_second")
    for name in rounds[0]:
        rate = spread_of(rounds, name, "requests_per_second")
        failed = sum(sum(row[name]["errors"].values()) for row in rounds)
        rows.append(
            [
                name,
                f"{rate.median:.1f}",
                f"{rate.low:.1f}–{rate.high:.1f}",
                f"{ours / rate.median:.2f}" if ours else "–",
                f"{_median(rounds, name, 'p50_ms'):.0f}",
                f"{_median(rounds, name, 'p99_ms'):.0f}",
                f"{_median(rounds, name, 'cpu_ms'):.1f}",
                f"{_median(rounds, name, 'others'):.0%}",
                str(failed),
                f"{max(row[name]['peak_mb'] for row in rounds):.0f}",
            ]
        )
    head = ["server", "answers/s", "tenths", "ours ÷ this", "p50 ms", "p99 ms"]
    return table([*head, "processor ms", "others", "failed", "MB"], rows)


def _median(rounds: list[dict[str, Any]], name: str, key: str) -> float:
    """Of a system's figure; 0 where it has none."""
    return spread_of(rounds, name, key).median if name in rounds[0] else 0.0


def _goal(rounds: list[dict[str, Any]]) -> list[str]:
    """Ours against the better peer."""
    peers = [name for name in FLOAT_PEERS if name in rounds[0]]
    if not peers or OURS not in rounds[0]:
        return []
    best = max(peers, key=lambda name: _median(rounds, name, "requests_per_second"))
    ratio = _median(rounds, OURS, "requests_per_second") / _median(
        rounds, best, "requests_per_second"
    )
    ours, theirs = (_median(rounds, name, "p99_ms") for name in (OURS, best))
    return [
        f"The best of the peers is {best}: ours answers {ratio:.2f} times as many (goal "
        f"{GOAL_RATIO}), with a p99 of {ours:.0f} ms against {theirs:.0f} ms (goal: no worse).",
        "",
    ]


def _how(results: Results) -> list[str]:
    """What the columns are, and how the servers were started."""
    options = [f"- {name}: `{words}`" for name, words in PEER_OPTIONS.items()]
    return [
        "Medians over the rounds, a tenth below and above. Processor ms: what the server used of "
        "the cores for an answer. Others: the share of all cores that neither it nor wrk used, but "
        "another program, or the hypervisor for another machine. Failed: answers other than 2xx, "
        "and connections that broke. MB: the most resident memory, of all processes, what they "
        "share counted once. wrk's latencies are corrected for the requests that a slow answer "
        "kept its client from sending.",
        "",
        f"- {OURS}: its defaults, `--threads {results.place['threads']}`; the peers' arithmetic is "
        "float32",
        f"- {ALONE}: `--max-batch 1`",
        f"- {INT8}: the network quantised, which the peers have none of",
        *options,
        "",
    ]


def _answers_table(rows: dict[str, dict[str, int]]) -> str:
    """How many were compared, and how many were right."""
    head = ["server", "alone", "right", "under load", "right"]
    keys = ("alone", "right_alone", "under_load", "right_under_load")
    return table(head, [[name, *(str(row[key]) for key in keys)] for name, row in rows.items()])


def _overload(part: dict[str, Any]) -> list[str]:
    """What came of five times too many requests."""
    right, refused = part["right_ms"], part["refused_ms"]
    others = [f"- {count} × {what}" for what, count in part["others"].items()]
    recovered = "never" if part["recovered"] is None else f"{part['recovered']:.2f} s"
    return [
        f"## {TIMES} times too many",
        "",
        f"{part['rate']:.0f} requests a second for {part['seconds']:.0f} s, whatever became of "
        f"them, to {OURS}, which answers {part['capacity']:.0f} where nothing is too many, and "
        f"{part['answered_per_second']:.0f} here:",
        "",
        table(
            ["sent", "right", "wrong", "refused with 429", "anything else", "not sent"],
            [[str(part[k]) for k in ("sent", "right", "wrong", "refused", "other", "unsent")]],
            names=0,
        ),
        *others,
        f"Answers took {right['p50']:.0f} ms (p99 {right['p99']:.0f}), refusals "
        f"{refused['p50']:.0f} ms (p99 {refused['p99']:.0f})."
        if right and refused
        else "",
        "",
        "Resident memory before, and the most in each quarter of the load:",
        "",
        _memory_table(part),
        f"One request alone took {part['single_before_ms']:.0f} ms before; {recovered} after the "
        f"last request of the load it took no more than {AS_BEFORE:.0f} times that again, and from "
        f"the first second on {part['single_behind_ms'] or 0:.0f} ms.",
        "",
    ]


def _memory_table(part: dict[str, Any]) -> str:
    """Megabytes before and during the load."""
    samples, quarter = part["memory"], part["seconds"] / 4
    most = [
        max(
            (size for seconds, size in samples if i * quarter <= seconds <= (i + 1) * quarter),
            default=0,
        )
        for i in range(4)
    ]
    head = ["before MB", *(f"{number}. quarter" for number in range(1, 5))]
    return table(head, [[f"{size / 1e6:.0f}" for size in (samples[0][1], *most)]], names=0)


def _settings(results: Results) -> list[str]:
    """What else the peers were tried with."""
    tried = [part for part in results.parts.values() if "setting" in part]
    rows = [
        [
            part["of"],
            f"`{part['setting']}`",
            f"{part['requests_per_second']:.1f}",
            f"{part['p99_ms']:.0f}",
        ]
        for part in tried
    ]
    if not rows:
        return []
    head = ["peer", "settings", "answers/s", "p99 ms"]
    words = f"One turn of each with {tried[0]['clients']} clients; the best are those above."
    return ["## The peers' settings", "", words, "", table(head, rows, names=2)]

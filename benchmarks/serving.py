"""Answers a second over HTTP: `densepath serve`, LitServe, and FastAPI with ONNX Runtime.

The same Bundle in all, its report of these photographs; ours by its defaults, in float32, in
bfloat16 and in INT8; photographs as uploaded files over loopback from wrk, whose clients ask again
when they have been answered. The servers take turns, every second round backwards; all but the one
whose turn it is are stopped (SIGSTOP). First, and once more under load, their answers are compared
with those that the Bundle gives without a server. wrk shares the cores.

With --overload our server is sent five times as many requests as it can answer. With --settings the
peers are measured with several settings each, of which serving_systems.py then names the best.

Writes `benchmarks/results/DATE-serving.json` after each part, from which the same command goes on,
and `.md`.

Run: .venv/bin/python benchmarks/serving.py PHOTOS.zip|FOLDER [--clients 1,8,32] [--seconds 10]
     [--rounds 3] [--overload] [--settings]; the peers' environments first:
     benchmarks/peers/install.sh litserve; benchmarks/peers/install.sh fastapi; wrk is Debian's
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from formula_bundle import formula_bundle, int8_bundle
from harness import MODELS, Budget, Results, add_options, photos
from serving_answers import Known, read_photos
from serving_overload import overload
from serving_report import capacity_of, report
from serving_systems import (
    OURS,
    SETTINGS,
    Server,
    ServerError,
    System,
    find_peer,
    find_systems,
)
from serving_turns import Bench
from serving_wrk import wrk_script


def main() -> None:
    """Measures what the results lack, and writes the report."""
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that the servers end, too
    results, budget = Results(options.output, options), Budget(options.minutes)
    with (
        photos(options.photos) as folder,
        formula_bundle(options.model, options.bundles, photos=options.photos) as bundle,
        int8_bundle(options.model, options.bundles, options.photos, 16, "native") as int8,
    ):
        sent = read_photos(folder)
        systems = find_systems(bundle, int8, options.threads)
        # ONNX Runtime's answers in float32: our servers use our own kernels.
        known = {
            "float32": Known(bundle, folder, "onnxruntime", "float32"),
            "int8": Known(int8, folder, "auto", "auto"),
        }
        if any(system.arithmetic == "bfloat16" for system in systems.values()):
            known["bfloat16"] = Known(bundle, folder, "auto", "bfloat16")
        with wrk_script(sent) as script:
            bench = Bench(sent, known, script, options.seconds)
            if options.settings:
                compare_settings(bench, bundle, options, results, budget)
            with started([systems[n] for n in choose(systems, options)]) as servers:
                measure(bench, servers, options, results, budget)
    results.write_report(report(results))
    print(report(results))


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="a folder, or a .zip of one")
    parser.add_argument("--model", default="densenet121", choices=MODELS, metavar="MODEL")
    parser.add_argument("--clients", default="1,8,32", help="commas between")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", help="only these, commas between")
    parser.add_argument(
        "--overload", action="store_true", help="our server at 5 times its capacity"
    )
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    parser.add_argument("--settings", action="store_true", help="of the peers, several each")
    add_options(parser, "serving")
    options = parser.parse_args()
    options.clients = [int(number) for number in options.clients.split(",")]
    return options


def choose(systems: dict[str, System], options: argparse.Namespace) -> list[str]:
    """The names of those that are measured.

    Raises:
        SystemExit: one that is wanted is not there.
    """
    wanted = options.systems.split(",") if options.systems else list(systems)
    if missing := [name for name in wanted if name not in systems]:
        sys.exit(f"no system {', '.join(missing)}; there are: {', '.join(systems)}.")
    return wanted


@contextmanager
def started(systems: list[System]) -> Iterator[list[Server]]:
    """Their servers, stopped; one that does not start is left out and said."""
    with ExitStack() as stack:
        servers = []
        for system in systems:
            try:
                server = Server(system)
            except ServerError as error:
                print(error, file=sys.stderr)
                continue
            stack.callback(server.close)
            servers.append(server)
        yield servers


def measure(
    bench: Bench,
    servers: list[Server],
    options: argparse.Namespace,
    results: Results,
    budget: Budget,
) -> None:
    """The parts that are missing: the answers, every round, and the overload."""
    most = max(options.clients)
    if "answers" not in results.parts and not budget.is_spent():
        rows = {server.system.name: bench.check(server, most) for server in servers}
        results.add("answers", {"systems": rows})
    for number in range(1, options.rounds + 1):
        for clients in options.clients:
            part = f"round {number}, {clients} clients"
            if part in results.parts or budget.is_spent():
                continue
            turns = servers[:: 1 if number % 2 else -1]
            rows = {server.system.name: bench.measure(server, clients) for server in turns}
            ordered = {server.system.name: rows[server.system.name] for server in servers}
            results.add(part, {"clients": clients, "systems": ordered})
    ours = next((server for server in servers if server.system.name == OURS), None)
    if options.overload and ours and "overload" not in results.parts and not budget.is_spent():
        results.add("overload", measure_overload(bench, ours, options, results))


def measure_overload(
    bench: Bench, server: Server, options: argparse.Namespace, results: Results
) -> dict[str, Any]:
    """At 5 times what the rounds found, or what is found now."""
    most = max(options.clients)
    capacity = capacity_of(results, OURS, most)
    if capacity is None:
        capacity = bench.measure(server, most)["requests_per_second"]
    with server.turn():
        return overload(
            server,
            bench.photos,
            bench.known[server.system.arithmetic],
            capacity=capacity,
            seconds=options.overload_seconds,
        )


def compare_settings(
    bench: Bench, bundle: Path, options: argparse.Namespace, results: Results, budget: Budget
) -> None:
    """Each of the peers' settings under the most clients, one turn."""
    most = max(options.clients)
    for name, several in SETTINGS.items():
        for words in several:
            part = f"{name} {words}"
            if part in results.parts or budget.is_spent():
                continue
            system = find_peer(name, bundle, words)
            with started([system] if system else []) as servers:
                for server in servers:
                    row = bench.measure(server, most)
                    print(f"    with {words}", flush=True)
                    results.add(part, {"setting": words, "of": name, "clients": most, **row})


if __name__ == "__main__":
    main()

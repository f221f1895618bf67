"""Kills workers of a loaded server while its bundles are damaged, replaced, unloaded and loaded.

Run: python benchmarks/serving_chaos.py BUNDLE --kills 20 --seed 1

Two workers serve three models: a folder, a link (`current -> v1`) and one that is only unloaded and
loaded. Clients ask without end. In every round a bundle is damaged, replaced or unloaded, each as
often, and one worker is killed at a random moment. The rules: an answer's logits are those of a
bundle that the model could have had while it was asked; whatever is not answered is refused (404,
429, 503), or was with the worker that was killed; after every round both workers say the same of
all models, that is what the orders made of them, and the gauges are those of two workers; in the
end as many images are counted as clients saw answered, or at most as many more as were lost on the
way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2 as httpx
import numpy as np
from numpy.typing import NDArray

ANNOUNCED = re.compile(r"REST (http://[0-9.]+:\d+)")
START_S, SETTLE_S, ROUND_S = 300, 300, 1.5
REFUSALS = {404, 429, 503}
CLOSE = 1e-3  # of logits, relative to the largest: batches of other sizes add up otherwise
ABSENT, DAMAGED = "absent", "damaged"
REPLACED, UNLOADED = "replaced", "unloaded"
HAPPENINGS = (DAMAGED, REPLACED, UNLOADED)  # each once before any comes again
ORDERED = 2 / 3  # of the damaged and replaced ones, to be loaded
FIRST, SECOND = "v1", "v2"
ASKED_TWICE = 24  # connections of their own reach both workers


@dataclass
class Served:
    """A model: what the disk has of it, and every bundle that it may have had, with the time.

    Attributes:
        path: as the server was told.
        is_link: the path is a link.
        disk: `v1`, `v2` or `damaged`.
        state: `v1`, `v2` or `absent`, as the orders made it.
        spans: the states with the times from which and until which each could be met.
    """

    name: str
    path: Path
    is_link: bool = False
    disk: str = FIRST
    state: str = FIRST
    spans: list[list[Any]] = field(default_factory=lambda: [[FIRST, 0.0, float("inf")]])

    def may_become(self, state: str, begun: float) -> None:
        """From now on this one can be met beside the old one."""
        self.spans.append([state, begun, float("inf")])

    def is_now(self, state: str, moment: float) -> None:
        """The others can be met no more."""
        for span in self.spans:
            if span[2] == float("inf") and span[0] != state:
                span[2] = moment
        self.state = state

    def could_be(self, begun: float, ended: float) -> set[str]:
        """The states that a request between these times could meet."""
        return {state for state, since, until in self.spans if since <= ended and until >= begun}


@dataclass
class Asked:
    """A request: its model and times, and the logits' bundle, a status, or 0 for a lost one."""

    model: str
    begun: float
    ended: float
    outcome: str | int


class Disk:
    """The folder with the bundles, and what is done to it."""

    def __init__(self, folder: Path, first: Path, second: Path) -> None:
        self._folder = folder
        for version, bundle in ((FIRST, first), (SECOND, second)):
            shutil.copytree(bundle, folder / version)
        shutil.copytree(first, folder / "copy")
        (folder / "current").symlink_to(FIRST)
        self.models = [
            Served("folder", folder / "copy"),
            Served("link", folder / "current", is_link=True),
            Served("other", folder / FIRST),
        ]

    def put(self, model: Served, what: str, rng: random.Random) -> None:
        """The model's path has `v1` or `v2`, or is damaged in one of several ways."""
        if model.is_link:
            made = self._folder / "made"
            made.symlink_to({DAMAGED: rng.choice(("nowhere", "made"))}.get(what, what))
            made.replace(model.path)
        elif what == DAMAGED:
            self._damage(model.path, rng)
        else:
            shutil.copytree(self._folder / what, self._folder / "made")
            shutil.rmtree(model.path, ignore_errors=True)
            (self._folder / "made").rename(model.path)
        model.disk = what

    def _damage(self, path: Path, rng: random.Random) -> None:
        """In place, as a copy that is cut off does it, or as a whole."""
        weights = path / "model.safetensors"
        match rng.randrange(4):
            case 0:
                os.truncate(weights, weights.stat().st_size // 2)
            case 1:
                with weights.open("r+b") as file:
                    file.write(bytes(64))
            case 2:
                (path / "manifest.json").unlink()
            case _:
                shutil.rmtree(path)


class Server:
    """Two workers, and what the log says of them."""

    def __init__(self, models: list[Served]) -> None:
        program = Path(sys.executable).with_name("densepath")
        named = [f"{model.name}={model.path}" for model in models]
        options = ["--workers", "2", "--threads", "1", "--engine", "native", "--port", "0"]
        command = [program, "serve", *named, *options, "--grpc-port", "0", "--log-level", "warning"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.lines: list[str] = []
        for line in self.process.stderr:
            self.lines.append(line)
            if found := ANNOUNCED.search(line):
                self.url = found[1]
                break
        else:
            raise SystemExit(f"the server did not start: {''.join(self.lines)}")
        stream = self.process.stderr
        self._reader = threading.Thread(target=lambda: self.lines.extend(stream), daemon=True)
        self._reader.start()

    def close(self) -> int:
        """Its exit code, once it has answered all."""
        self.process.terminate()
        code = self.process.wait(START_S)
        self._reader.join(START_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def ask(self, verb: str, path: str, **options: Any) -> httpx.Response | None:
        """An answer on a connection of its own; None where it was lost."""
        try:
            return httpx.request(verb, self.url + path, timeout=START_S, **options)
        except httpx.TransportError:
            return None

    def gauges(self) -> dict[str, float]:
        """The numbers of `/metrics`, by name and labels."""
        reply = self.ask("GET", "/metrics")
        lines = reply.text.splitlines() if reply is not None else []
        found = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in found}

    def kill_one(self, rng: random.Random) -> float:
        """When one of the workers was killed."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = [int(pid) for pid in task.read_text().split() if _is_worker(pid)]
        os.kill(rng.choice(sorted(pids)), signal.SIGKILL)
        return time.monotonic()


def _is_worker(pid: str) -> bool:
    """Not the process that tracks what multiprocessing shares."""
    try:
        return b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class Chaos:
    """The rounds, the clients, and the rules that were broken."""

    def __init__(self, server: Server, disk: Disk, logits: dict[str, NDArray[Any]], body: bytes,
                 header: dict[str, str], rng: random.Random) -> None:  # fmt: skip
        self._server, self._disk, self._rng = server, disk, rng
        self._logits, self._body, self._header = logits, body, header
        self.asked: list[Asked] = []
        self.kills: list[float] = []
        self.done: Counter[str] = Counter()
        self.broken: list[str] = []
        self._ended = threading.Event()
        self._deck: list[str] = []

    def run(self, kills: int, clients: int) -> None:
        """So many rounds, each with a kill, under the load of the clients."""
        threads = [threading.Thread(target=self._load, args=(i,)) for i in range(clients)]
        for thread in threads:
            thread.start()
        try:
            for number in range(kills):
                self._round()
                self._check(f"after kill {number + 1}")
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _load(self, number: int) -> None:
        """A client."""
        rng = random.Random(f"client {number}")
        while not self._ended.is_set():
            model, begun = rng.choice(self._disk.models), time.monotonic()
            path = f"/v2/models/{model.name}/infer"
            reply = self._server.ask("POST", path, content=self._body, headers=self._header)
            outcome: str | int = 0
            if reply is not None:
                outcome = reply.status_code if reply.status_code != 200 else self._match(reply)
            self.asked.append(Asked(model.name, begun, time.monotonic(), outcome))

    def _match(self, reply: httpx.Response) -> str:
        """Whose logits these are."""
        found = np.array(reply.json()["outputs"][0]["data"], np.float32)
        for version, logits in self._logits.items():
            if np.abs(found - logits).max() <= CLOSE * np.abs(logits).max():
                return version
        return "nobody's"

    def _round(self) -> None:
        """Something happens to a model, and at some moment a worker is killed."""
        rng = self._rng
        for model in self._disk.models:
            if model.state == ABSENT:  # since the last round
                self._order(model, "load")
        wait_s, killer = rng.uniform(0, ROUND_S), random.Random(rng.random())
        alarm = threading.Timer(wait_s, lambda: self.kills.append(self._server.kill_one(killer)))
        alarm.start()
        if not self._deck:
            self._deck = rng.sample(HAPPENINGS, len(HAPPENINGS))
        happening = self._deck.pop()
        self.done[f"round: {happening}"] += 1
        if happening == UNLOADED:
            model = rng.choice(self._disk.models)
            time.sleep(rng.uniform(0, ROUND_S))
            self._order(model, "unload")
            alarm.join()
            return
        model = rng.choice([model for model in self._disk.models if model.name != "other"])
        fresh = SECOND if model.state == FIRST else FIRST
        self._disk.put(model, DAMAGED if happening == DAMAGED else fresh, rng)
        time.sleep(rng.uniform(0, ROUND_S))
        if rng.random() < ORDERED:
            self._order(model, "load")
        alarm.join()
        self._make_whole(model)

    def _make_whole(self, model: Served) -> None:
        """The disk has what the workers hold, or they load what it has: a dead one is replaced."""
        if model.disk == DAMAGED or (model.disk != model.state and self._rng.random() < 0.5):
            self._disk.put(model, model.state, self._rng)
        if model.disk != model.state:
            self._order(model, "load")

    def _order(self, model: Served, verb: str) -> None:
        """An order, again until one answer is not lost with a worker."""
        begun, fails = time.monotonic(), verb == "load" and model.disk == DAMAGED
        after = ABSENT if verb == "unload" else model.disk
        if not fails:
            model.may_become(after, begun)
        while True:
            reply = self._server.ask("POST", f"/v2/repository/models/{model.name}/{verb}")
            if reply is not None:
                break
        self.done[f"{verb}: {reply.status_code}"] += 1
        if reply.status_code != (409 if fails else 200):
            self.broken.append(f"{verb} of {model.name}: {reply.status_code} {reply.text}")
        elif not fails:
            model.is_now(after, time.monotonic())

    def _check(self, when: str) -> None:
        """Two workers of one mind, and gauges that are theirs."""
        end = time.monotonic() + SETTLE_S
        while (gauges := self._server.gauges()).get("densepath_workers") != 2:
            if time.monotonic() > end or self._server.process.poll() is not None:
                log = "".join(self._server.lines[-3:])
                raise SystemExit(f"{when}: no two workers any more; {log}")
            time.sleep(0.1)
        ready = {
            model.name: gauges.get(f'densepath_model_ready{{model="{model.name}",version="1"}}')
            for model in self._disk.models
        }
        wanted = {model.name: float(model.state != ABSENT) for model in self._disk.models}
        if ready != wanted:
            self.broken.append(f"{when}: model_ready is {ready}, not {wanted}")
        said = {self._mind() for _ in range(ASKED_TWICE)}
        right = {tuple((model.name, model.state) for model in self._disk.models)}
        if said != right:
            self.broken.append(f"{when}: the workers say {said}, not {right}")

    def _mind(self) -> tuple[tuple[str, str], ...]:
        """What a worker says of every model."""
        reply = self._server.ask("GET", "/models")
        index = self._server.ask("POST", "/v2/repository/index")
        if reply is None or index is None:
            return (("lost", "without a kill"),)
        hashes = {row["name"]: self._named(row["sha256"]) for row in reply.json()["models"]}
        return tuple((row["name"], hashes.get(row["name"], ABSENT)) for row in index.json())

    def _named(self, digest: str) -> str:
        """The bundle with this manifest."""
        for version in (FIRST, SECOND):
            beside = self._disk.models[2].path.with_name(version) / "manifest.json.sha256"
            if beside.read_text().split()[0] == digest:
                return version
        return digest

    def judge(self) -> None:
        """Every answer, and the counters."""
        models = {model.name: model for model in self._disk.models}
        for each in self.asked:
            could = models[each.model].could_be(each.begun, each.ended)
            if each.outcome == 0:
                is_right = any(each.begun <= kill <= each.ended + 0.5 for kill in self.kills)
            elif each.outcome == 404:
                is_right = ABSENT in could
            else:
                is_right = each.outcome in could or each.outcome in REFUSALS
            if not is_right:
                span = f"{each.begun:.3f} to {each.ended:.3f}"
                self.broken.append(f"{each.model}, {span}: {each.outcome}; could be {could}")
        answered = sum(isinstance(each.outcome, str) for each in self.asked)
        lost = sum(each.outcome == 0 for each in self.asked)
        gauges = self._server.gauges()
        counted = sum(
            value
            for name, value in gauges.items()
            if name.startswith("densepath_images_total") and 'outcome="answered"' in name
        )
        self.done["counted"] = int(counted)
        if not answered <= counted <= answered + lost:
            self.broken.append(f"{counted:.0f} counted; {answered} answered and {lost} lost")
        for name, value in gauges.items():
            if name.startswith("densepath_pending_images") and value:
                self.broken.append(f"{name} is {value} with nobody there")


def other_bundle(bundle: Path, folder: Path) -> Path:
    """A bundle of the same network with its classifier turned around."""
    from densepath.exporting.export import export
    from densepath.weights.checkpoint import Checkpoint

    found = Checkpoint.load(bundle / "model.safetensors")
    tensors = {
        name: -tensor if name.startswith("classifier") else tensor
        for name, tensor in found.tensors.items()
    }
    export(replace(found, tensors=tensors), folder, to=["torch"], num_images=2, batch_sizes=[1])
    return folder


def expected(bundles: dict[str, Path]) -> tuple[dict[str, Any], bytes, dict[str, str]]:
    """The logits of a tensor by bundle, and the request that asks for them."""
    import densepath

    logits, tensor = {}, None
    for version, bundle in bundles.items():
        with densepath.load(bundle, engine="native", threads=1) as predictor:
            if tensor is None:
                shape = (1, predictor.preprocess.channels, *predictor.preprocess.size)
                tensor = np.random.default_rng(0).standard_normal(shape).astype("<f4")
            logits[version] = predictor.engine.run_tensor(tensor)[0]
    assert tensor is not None
    given = {
        "name": "images",
        "datatype": "FP32",
        "shape": list(tensor.shape),
        "parameters": {"binary_data_size": tensor.nbytes},
    }
    head = json.dumps({"inputs": [given], "outputs": [{"name": "logits"}]}).encode()
    header = {"Inference-Header-Content-Length": str(len(head))}
    return logits, head + tensor.tobytes(), header


def main(words: list[str] | None = None) -> int:
    """Serve, disturb and judge; 1 where a rule was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="With the format torch, in float32.")
    parser.add_argument("--other", type=Path, help="Another of the same input; made by default.")
    parser.add_argument("--kills", type=int, default=20, help="Rounds, one kill each (20).")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    started = time.monotonic()
    with TemporaryDirectory() as name:
        folder = Path(name)
        second = options.other or other_bundle(options.bundle, folder / "second")
        disk = Disk(folder, options.bundle, second)
        logits, body, header = expected({version: folder / version for version in (FIRST, SECOND)})
        server = Server(disk.models)
        try:
            chaos = Chaos(server, disk, logits, body, header, random.Random(options.seed))
            chaos.run(options.kills, options.clients)
            chaos.judge()
        finally:
            code = server.close()
    _report(chaos, time.monotonic() - started, options.seed, code)
    return 1 if chaos.broken or code else 0


def _report(chaos: Chaos, seconds: float, seed: int, code: int) -> None:
    """What happened, in a few lines."""
    outcomes = Counter(str(each.outcome) for each in chaos.asked)
    said = ", ".join(f"{number} × {what}" for what, number in sorted(outcomes.items()))
    done = ", ".join(f"{number} × {what}" for what, number in sorted(chaos.done.items()))
    print(f"{len(chaos.kills)} kills in {seconds:.0f} s, seed {seed}; the server ended with {code}")
    print(f"requests: {said}")
    print(f"done: {done}")
    print(f"{len(chaos.broken)} broke a rule")
    for line in chaos.broken[:10]:
        print(line)


if __name__ == "__main__":
    sys.exit(main())

"""`benchmarks/training.py` compares the same work, and says what it measured."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS, TIMM, BEST = "densepath fused, float32", "timm, float32", "timm (channels last), bfloat16"
LOWER = "densepath fused, bfloat16"


@pytest.fixture
def benchmark_module(monkeypatch):
    """Modules of the folder by their names, or a script by its path."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), str(BENCHMARKS / "peers"), *sys.path])

    def get(name):
        if name != "training":  # also a folder of tests
            return import_module(name)
        spec = importlib.util.spec_from_file_location("training_script", BENCHMARKS / "training.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return get


@pytest.fixture
def turns(benchmark_module):
    return benchmark_module("training_turns")


def options_of(**changes):
    usual = {"rounds": 2, "steps": 1, "seconds": 9, "threads": 1, "batch": 2, "size": 32}
    return argparse.Namespace(**usual, **changes)


class Waiting:
    """A worker that answers with made-up figures."""

    ready = {"start_bytes": 100_000_000, "versions": {"x": "1"}}  # noqa: RUF012  never changed

    def __init__(self, asked, label, ms, losses):
        self.asked, self.label, self.ms, self.losses = asked, label, ms, losses

    def ask(self, line):
        self.asked.append(self.label)
        said = {"warm_up_ms": [2 * self.ms], "ms": [self.ms], "losses": self.losses}
        return {**said, "growth_bytes": 5_000_000}, 0.25

    def close(self):
        self.asked.append(f"{self.label} closed")


def field_of(turns, monkeypatch, speeds, losses=None):
    """A field whose systems take so many milliseconds, and the order in which they were asked."""
    asked, losses = [], losses or {}
    systems = turns.SYSTEMS[: len(speeds)]

    def open_worker(system, model, options, **words):
        label = "reference" if "switches" in words else system.label
        ms = speeds[systems.index(system)] if system in systems else 1
        return Waiting(asked, label, ms, losses.get(label, [2.0, 1.0]))

    monkeypatch.setattr(turns, "open_worker", open_worker)
    with turns.Field(systems, "densenet_bc_100_12", options_of()) as field:
        field.take_turns()
    return field, [label for label in asked if "closed" not in label and label != "reference"]


def test_every_second_round_goes_backwards(turns, monkeypatch):
    field, asked = field_of(turns, monkeypatch, [10, 20, 30])
    first, second, third = (system.label for system in turns.SYSTEMS[:3])
    assert asked == [first, second, third, third, second, first]
    assert field.found[third]["rounds"] == [[30], [30]]
    assert field.found[third]["first_s"] == 0.06
    assert field.found[third]["growth_mb"] == [5.0, 5.0]


def test_a_system_that_is_far_behind_has_one_round(turns, monkeypatch):
    _, asked = field_of(turns, monkeypatch, [10, 10 * turns.FAR_BEHIND + 1])
    assert asked.count(turns.SYSTEMS[1].label) == 1


def test_a_system_whose_losses_are_not_ours_is_left_out(turns, monkeypatch):
    label = turns.SYSTEMS[1].label
    bound = turns.BOUNDS[turns.SYSTEMS[1].precision][0]
    field, _ = field_of(turns, monkeypatch, [10, 10], {label: [2 * (1 + 2 * bound), 1.0]})
    assert label not in field.found
    assert field.failed[label].startswith("its first losses are [2.")
    assert list(field.found) == [turns.SYSTEMS[0].label]


def test_the_largest_batch_lies_on_the_line_through_two_sizes(benchmark_module):
    largest_batch = benchmark_module("training_largest").largest_batch
    assert largest_batch({16: 2.0, 32: 3.6}, 16.0) == 156  # 0.4 GB, and 0.1 an image
    assert largest_batch({16: 2.0, 32: 3.6}, 0.1) == 1
    assert largest_batch({16: 2.0, 32: 2.0}, 16.0) is None


def test_a_larger_batch_is_tried_only_where_there_is_memory_for_it(benchmark_module, monkeypatch):
    largest = benchmark_module("training_largest")
    monkeypatch.setattr(largest, "growth_gb", lambda system, model, options, n: 0.1 * n + 0.4)
    system, options = SimpleNamespace(label="x"), options_of(largest_batch=16.0)
    monkeypatch.setattr(largest, "available_bytes", lambda: 17_000_000_000)
    part = largest.find_largest(system, "densenet121", options)
    assert part["unchecked"] == "17.0 GB were free, 18.0 needed"
    monkeypatch.setattr(largest, "available_bytes", lambda: 19_000_000_000)
    part = largest.find_largest(system, "densenet121", options)
    assert part["checked_gb"] == pytest.approx(16.0)


def system_of(ms, mb, precision="float32"):
    spread = {"median": ms, "low": ms - 1, "high": ms + 1, "count": 9}
    return {
        "precision": precision,
        "ms": spread,
        "growth_mb": mb,
        "first_s": 2 * ms / 1e3,
        "loss_difference": [1e-6, 1e-4],
        "others": [0.01],
        "versions": {"timm": "1"},
    }


@pytest.fixture
def page(benchmark_module):
    """The report of one network."""
    part = {
        "kind": "steps",
        "model": "densenet121",
        "batch": 16,
        "side": 224,
        "systems": {
            OURS: system_of(1200, 600),
            LOWER: system_of(900, 300, "bfloat16"),
            TIMM: system_of(2800, 2800),
            BEST: system_of(1400, 1600, "bfloat16"),
        },
        "failed": {"MindCV Graph, float32": "exit code 1: no"},
        "missing": {"PaddleClas, float32": "its environment is not there"},
    }
    results = SimpleNamespace(parts={"a": part}, place={"threads": 2}, header=lambda: "here")
    return benchmark_module("training_report").report(results, list(part["systems"]))


def test_a_table_has_every_system_over_timm_and_over_the_best_peer(page):
    assert (
        "| densepath fused | float32 | 13.33 | 1200 | 1199–1201 | 0.43 | 0.86 | 600 | 0.214 |"
        in page
    )
    assert "| **timm (channels last)** | bfloat16 | 11.43 | 1400 |" in page
    assert "MindCV Graph, float32: exit code 1: no." in page
    assert "PaddleClas, float32: its environment is not there." in page


def test_the_goals_are_said_to_be_reached_or_not(page):
    assert "0.43 of the time of timm, float32 (goal 0.50: reached), 0.214 of the memory" in page
    assert f"0.64 of the time of {BEST} (goal 0.50: not reached), 0.107 of the memory" in page


def test_a_step_is_gradient_descent_with_momentum(benchmark_module):
    """Against the update written out: v ← 0.9 v + g, p ← p − 0.01 v."""
    step_of = benchmark_module("training_torch")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    images, labels = np.random.RandomState(1).rand(4, 3, 2, 2), np.array([0, 1, 2, 0])
    weights = [p.detach().clone().requires_grad_() for p in network.parameters()]
    speeds = [torch.zeros_like(p) for p in weights]
    expected = []
    for _ in range(3):
        logits = torch.from_numpy(images).flatten(1) @ weights[0].T + weights[1]
        loss = F.cross_entropy(logits, torch.from_numpy(labels))
        expected.append(loss.item())
        gradients = torch.autograd.grad(loss, weights)
        speeds = [0.9 * v + g for v, g in zip(speeds, gradients, strict=True)]
        weights = [
            (p - 0.01 * v).detach().requires_grad_() for p, v in zip(weights, speeds, strict=True)
        ]
    optimizer = step_of.prepare(network, channels_last=False)
    step = step_of.make_step(
        network, optimizer, images, labels, precision="float32", channels_last=False
    )
    # The loss itself is taken in float32.
    assert [step() for _ in range(3)] == pytest.approx(expected, rel=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is Linux's")
def test_the_growth_of_memory_is_that_of_what_lived_at_once():
    """In a process of its own: another test may have left memory that is used again."""
    code = """
        import numpy as np
        import training_worker as worker

        start = worker.resident_bytes()
        worker.restart_peak()
        for _ in range(3):
            np.ones(8_000_000)
        print(worker.peak_bytes() - start)
        worker.give_back()
        worker.restart_peak()
        print(worker.peak_bytes() - start)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=BENCHMARKS / "peers",
        capture_output=True,
        text=True,
        check=True,
    )
    grown, left = map(int, done.stdout.split())
    assert 60e6 < grown < 100e6
    assert left < 40e6


def test_a_worker_takes_the_steps_that_it_is_asked_for(benchmark_module):
    job = benchmark_module("training_worker").Job(
        "densenet_bc_22_12", "plain", "float32", 1, 2, 16, 10
    )
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "training_ours.py", *job.to_words()],
        input="0 1 9\n1 2 9\n1 5 0\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    said = [json.loads(line[1:]) for line in run.stdout.splitlines() if line.startswith("@")]
    ready, first, second, third = said
    assert ready["start_bytes"] > 50e6
    assert (len(first["warm_up_ms"]), len(first["ms"])) == (0, 1)
    assert (len(second["warm_up_ms"]), len(second["ms"])) == (1, 2)
    assert (len(third["warm_up_ms"]), len(third["ms"])) == (1, 1)  # no second one after 0 seconds
    losses = [*first["losses"], *second["losses"]]
    assert losses == sorted(losses, reverse=True)


def test_each_system_has_a_script_and_a_name_of_its_own(benchmark_module):
    systems = benchmark_module("training_systems").SYSTEMS
    assert len({system.label for system in systems}) == len(systems)
    for system in systems:
        folder = BENCHMARKS / "peers" / system.peer if system.peer else BENCHMARKS
        assert (folder / ("training.py" if system.peer else "training_ours.py")).is_file()


def test_what_is_compiled_is_measured_only_when_asked_for(benchmark_module):
    find = benchmark_module("training_systems").find_systems
    assert not any(system.compiled for system in find([], compiled=False))
    assert any(system.compiled for system in find([], compiled=True))
    assert {system.name for system in find(["timm"], compiled=False)} == {"timm"}


def test_an_unknown_system_is_refused_and_a_name_of_results_is_taken(benchmark_module, capsys):
    training = benchmark_module("training")
    assert training.parse(["--results-name", "night"]).output.name.endswith("-night")
    with pytest.raises(SystemExit):
        training.parse(["--systems", "tim"])
    assert "there is no tim" in capsys.readouterr().err


@pytest.mark.parametrize(("stride", "groups", "kernel"), [(1, 1, 1), (1, 1, 3), (2, 4, 3)])
def test_multiplications_are_those_that_pytorch_counts(benchmark_module, stride, groups, kernel):
    layers = benchmark_module("training_layers")
    x, weight = torch.zeros(2, 8, 6, 6), torch.zeros(12, 8 // groups, kernel, kernel)
    with FlopCounterMode(display=False) as counter:
        out = F.conv2d(x, weight, stride=stride, padding=kernel // 2, groups=groups)
    name = "pointwise" if kernel == 1 else "convolve"
    words = (x.permute(0, 2, 3, 1), None, weight, out.permute(0, 2, 3, 1))
    found = layers.multiplications(name, words, {})
    assert 2 * found == counter.get_total_flops()
    gradient = SimpleNamespace(data=words[3])
    assert layers.multiplications(f"{name}_backward", (*words[:3], gradient), {}) == 2 * found
    assert layers.multiplications("moments", words, {}) == 0


def test_calls_are_timed_by_their_name_and_the_map_they_read(benchmark_module):
    layers = benchmark_module("training_layers")
    ticks = iter(range(100))
    inner = SimpleNamespace(moments=lambda x: "found", new_map=lambda *size: "made", threads=2)
    timed = layers.TimedOperations(inner, clock=lambda: next(ticks))
    assert timed.moments(torch.zeros(1, 5, 4, 2)) == "found"
    assert timed.new_map(1, 2, 3, 4) == "made"
    assert timed.threads == 2
    assert dict(timed.seconds) == {("moments", 5): 1, ("new_map", 0): 1}
    rows = layers.rows_of(timed, 1, 5000.0)
    assert rows[-1] == {"operation": "the rest", "side": 0, "calls": 0, "ms": 3000.0, "gflop": 0.0}

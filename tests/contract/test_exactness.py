"""`benchmarks/exactness.py`: the weights that it measures at, and what it says of a goal."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fixtures.blocks import images, used
from fixtures.networks import TINY, new_network

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_no_value_is_near_a_kink_and_nothing_else_has_changed(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from exactness import keep_from_kinks

    network, x = used(new_network(TINY)), images(4, 3, 12, 12)
    before = {name: part.clone() for name, part in network.state_dict().items()}
    nearest = keep_from_kinks(network, x)
    changed = {k for k, part in network.state_dict().items() if not torch.equal(part, before[k])}
    norms = {k: part for k, part in network.named_modules() if isinstance(part, nn.BatchNorm2d)}
    assert changed == {f"{name}.bias" for name in norms}
    found = []
    for norm in norms.values():
        assert torch.equal(norm.bias, norm.bias.float().double())
        norm.register_forward_hook(
            lambda norm, _, out: found.append(
                (out.abs().amin((0, 2, 3)) / out.transpose(0, 1).flatten(1).std(1)).min()
            )
        )
    with torch.no_grad():
        network(x)
    assert float(min(found)) > 0.9 * nearest > 1e-4


def test_a_goal_that_is_missed_is_said_with_who_is_how_far_from_double(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from exactness_report import KEPT, verdict

    def far(error):
        return {"gradient": {"largest": error, "where": "norm0.weight", "median": 0.0}}

    ways = {"modules": {"double": far(3e-4)}, "1 thread": {"double": far(1e-5), "modules": far(0)}}
    parts = {"tiny": {KEPT: {"ways": ways}}}
    said = verdict(parts, ["1 thread"], "modules", 1e-4, "in float32")
    assert "reached by all 1 models" in said
    ways["1 thread"]["modules"] = far(2e-4)
    said = verdict(parts, ["1 thread"], "modules", 1e-4, "in float32")
    assert "- tiny, 1 thread: gradient of `norm0.weight` 2.0e-04" in said
    assert "1.0e-05 from double, the modules are 3.0e-04" in said

"""How near a training step of fused blocks is to that of the modules, of all ten models.

One step (cross-entropy, forward and backward) of each network: by its modules, by our kernels on
one thread and on several, and by PyTorch's operations (`portable`), in float32; by the modules and
by PyTorch's operations in double. Compared are the loss, the gradient of each parameter and each
running statistic: ‖a − b‖ ÷ ‖b‖, of which the largest over all parameters, or statistics, counts.

The weights are the formula's with scales as in trained networks, drawn between −0.5 and 1.5. A
value that is within rounding of a ReLU's kink has one gradient or another, in any arithmetic; so
the shifts of BatchNorms are moved until no value is near one (`keep_from_kinks`). The same weights
without that are measured, too: there the modules' own distance from double is what to compare with.

Writes `benchmarks/results/DATE-exactness.json` after each model, from which the same command goes
on, and `.md`.

Run: .venv/bin/python benchmarks/exactness.py [--models densenet121,dpn92] [--side 64] [--batch 4]
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
from typing import Any, NamedTuple

from exactness_report import KEPT, RAW, write_report
from harness import MODELS, Budget, Results, add_options

CLASSES = 1000
# About how far a shift may be moved, in standard deviations of its channel.
NEAR = 0.3


class Way(NamedTuple):
    """How a step is computed: by which blocks, in which type, on how many threads."""

    blocks: str
    dtype: str = "float32"
    threads: int = 1


def ways(threads: int) -> dict[str, Way]:
    """All that are measured; the first two are what others are held to.

    Near kinks it is chance who is how far off: there the first three are enough.
    """
    return {
        "double": Way("modules", "float64"),
        "modules": Way("modules"),
        "1 thread": Way("fused"),
        f"{threads} threads": Way("fused", threads=threads),
        "portable": Way("portable"),
        "portable, double": Way("portable", "float64"),
    }


def keep_from_kinks(network: Any, images: Any) -> float:
    """Move the shift of each BatchNorm so that zero is in a wide gap between a channel's values.

    What is given is the least distance of a value from a kink, in standard deviations of its
    channel. The network is one of float64, and its shifts stay numbers of float32.
    """
    import torch
    from torch import nn

    least = [torch.inf]

    def move(norm: nn.BatchNorm2d, _: Any, out: torch.Tensor) -> torch.Tensor:
        """What the norm gives with its new shift."""
        values = out.transpose(0, 1).flatten(1).sort(1).values
        size = values.std(1, keepdim=True)
        middles = (values[:, 1:] + values[:, :-1]) / 2
        worth = values.diff(dim=1) / (1 + (middles / (NEAR * size)) ** 4)
        chosen = middles.gather(1, worth.argmax(1, keepdim=True))[:, 0]
        before = norm.bias.clone()
        norm.bias.sub_(chosen).copy_(norm.bias.float())
        moved = out + (norm.bias - before)[:, None, None]
        least[0] = min(least[0], float((moved.abs().amin((0, 2, 3)) / size[:, 0]).min()))
        return moved

    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    handles = [norm.register_forward_hook(move) for norm in norms]
    held = copy.deepcopy(dict(network.named_buffers()))
    with torch.no_grad():
        network.train()(images)
        for name, buffer in network.named_buffers():
            buffer.copy_(held[name])
    for handle in handles:
        handle.remove()
    return least[0]


def new_network(model: str) -> Any:
    """The network in double, with the formula's parameters and scales of both signs."""
    import torch
    from torch import nn
    from training_ours import build

    network = build(model, CLASSES).double()
    generator = torch.Generator().manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            drawn = torch.rand(part.weight.shape, generator=generator) * 2 - 0.5
            part.weight.data.copy_(drawn)
    return network


def step(network: Any, images: Any, way: Way) -> dict[str, Any]:
    """Loss, gradients and running statistics of one step of a copy of the network, in double."""
    import torch
    import torch.nn.functional as F
    from training_blocks import fuse_network

    from densepath.training.blocks.native import NativeOperations

    torch.set_num_threads(way.threads)
    dtype = getattr(torch, way.dtype)
    own = copy.deepcopy(network).train().to(dtype, memory_format=torch.channels_last)
    used: list[Any] = []
    if way.blocks != "modules":
        check = fuse_network(own, way.blocks, way.dtype, lambda found: used.append(found) or found)
        assert (type(used[0]) is NativeOperations) == (way.blocks == "fused")
    x = images.to(dtype, memory_format=torch.channels_last)
    loss = F.cross_entropy(own(x), torch.arange(len(x)) * 7 % CLASSES)
    loss.backward()
    if used:
        check()
    found = {"loss": loss.detach().double()}
    found |= {f"gradient {name}": part.grad.double() for name, part in own.named_parameters()}
    floats = {name: part for name, part in own.named_buffers() if part.is_floating_point()}
    return found | {f"statistic {name}": part.double() for name, part in floats.items()}


def distances(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The largest relative difference of each kind, where that is, and the median."""
    kinds: dict[str, list[tuple[float, str]]] = {}
    for key, tensor in wanted.items():
        kind, _, name = key.partition(" ")
        error = float((found[key] - tensor).norm() / tensor.norm())
        kinds.setdefault(kind, []).append((error, name))
    return {
        kind: {
            "largest": max(errors)[0],
            "where": max(errors)[1],
            "median": sorted(errors)[len(errors) // 2][0],
        }
        for kind, errors in kinds.items()
    }


def measure(model: str, side: int, batch: int, threads: int) -> dict[str, Any]:
    """One model: for each kind of weights the distances from double and from float32's modules."""
    import torch

    from densepath.weights.formula import formula_images

    images = torch.from_numpy(formula_images(batch, side, side)).double()
    network, found = new_network(model), {}
    for weights, number in ((RAW, 3), (KEPT, None)):
        part: dict[str, Any] = {"ways": {}}
        if weights == KEPT:
            part["nearest"] = keep_from_kinks(network, images)
        held: dict[str, Any] = {}
        for name, way in list(ways(threads).items())[:number]:
            done = step(network, images, way)
            if name in ("double", "modules"):
                held[name] = done
            part["ways"][name] = {
                other: distances(done, result) for other, result in held.items() if other != name
            }
        found[weights] = part
    return found


def measure_apart(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """The same in a process of its own, whose memory ends with it."""
    command = [sys.executable, __file__, "--one", model, "--side", str(options.side)]
    command += ["--batch", str(options.batch), "--threads", str(options.threads)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f"{model} failed")
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    """Measure the models that the results lack."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, "exactness")
    parser.add_argument("--models", default=",".join(MODELS), help="names, with commas")
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=4, help="images of the step")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        found = measure(options.one, options.side, options.batch, options.threads)
        print(json.dumps(found))
        return
    results, budget = Results(options.output, options), Budget(options.minutes)
    results.place |= {"side": options.side, "batch": options.batch}
    for model in options.models.split(","):
        if model in results.parts:
            continue
        if budget.is_spent():
            break
        results.add(model, measure_apart(model, options))
        print(f"{model}: done", file=sys.stderr, flush=True)
    write_report(results)


if __name__ == "__main__":
    main()

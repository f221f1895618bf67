"""The parts of `gpu_check.py` that answer: logits against the CPU's, images a second."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gpu_check_parts import (
    Memory,
    MissingError,
    Say,
    Sizes,
    guarded,
    halving,
    judge,
    num_classes,
    synchronize,
    timm_network,
)
from torch import nn
from training_ours import build

from densepath.engines.compiled import CompiledEngine
from densepath.engines.eager import EagerEngine
from densepath.engines.fused import fuse
from densepath.errors import EngineError, MissingPackageError
from densepath.images.preprocess import Preprocess
from densepath.metrics.accuracy import Summary, count_batches, summarise
from densepath.weights.formula import formula_images

# Of the largest logit; PyTorch lets cuDNN round the operands of float32 convolutions to TF32.
BOUNDS = {"float32": 5e-3, "bfloat16": 0.1}
# Of shares and losses, and of heat maps between 0 and 1.
CLOSE, MAPS_CLOSE = 0.01, 0.05
ANSWERED, EVALUATED = 16, 64
# What runs a bundle's ONNX graph, by device; what they need besides PyTorch.
GRAPH_ENGINES = {"cuda": ("cuda", "tensorrt"), "cpu": ("onnxruntime",)}
WARM_UP = 3


def check_engines(model: str, sizes: Sizes, say: Say) -> None:
    """What PyTorch's engine answers, explains and evaluates on the device, against the CPU."""
    side = sizes.side(model)
    images, preprocess = pictures(ANSWERED, side), Preprocess((side, side))
    reference = EagerEngine(trained(model), preprocess, device="cpu")
    expected = reference.run(images)
    for precision in ("float32", "bfloat16"):

        def answer(precision: Any = precision) -> dict:
            engine = EagerEngine(
                trained(model), preprocess, device=sizes.device, precision=precision
            )
            found = compare_logits(engine.run(images), expected, precision)
            engine.close()
            return found

        guarded(say, f"eager, {precision}", answer)
    guarded(say, "explain and embed", lambda: explain(model, sizes, reference, images))
    guarded(say, "evaluate", lambda: evaluate(model, sizes, expected.shape[1]))


def pictures(count: int, side: int) -> np.ndarray:
    """Images uint8 [N, side, side, 3]."""
    images = formula_images(count, side, side).astype(np.float64)
    return np.floor((images + 2) * 64).astype(np.uint8).transpose(0, 2, 3, 1)


def trained(model: str) -> Any:
    """Our network with the formula's parameters and statistics."""
    return build(model, num_classes(model)).eval()


def compare_logits(found: np.ndarray, expected: np.ndarray, precision: str) -> dict:
    """How far logits are from the CPU's, over the largest; the share of the same best class."""
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    same = float((found.argmax(1) == expected.argmax(1)).mean())
    return {**judge([difference], [BOUNDS[precision]]), "same_best_class": same}


def explain(model: str, sizes: Sizes, reference: EagerEngine, images: np.ndarray) -> dict:
    """Grad-CAM maps and features on the device, against the CPU's."""
    engine = EagerEngine(trained(model), reference.preprocess, device=sizes.device)
    few = images[:4]
    _, maps = engine.explain(few, 0)
    _, features = engine.embed(few)
    expected_maps, expected_features = reference.explain(few, 0)[1], reference.embed(few)[1]
    engine.close()
    largest = np.abs(expected_features).max()
    return judge(
        [
            float(np.abs(maps - expected_maps).max()),
            float(np.abs(features - expected_features).max() / largest),
        ],
        [MAPS_CLOSE, CLOSE],
    )


def evaluate(model: str, sizes: Sizes, classes: int) -> dict:
    """Top-1, top-5 and loss of the network on the device, against the CPU's."""
    batches = list(labelled(model, sizes, classes))
    ours = summary(trained(model).to(sizes.device), batches, sizes.device)
    theirs = summary(trained(model), batches, "cpu")
    names = ("top1", "top5", "loss")
    pairs = [(getattr(ours, name), getattr(theirs, name)) for name in names]
    judged = judge([abs(a - b) / max(abs(b), 1.0) for a, b in pairs], [CLOSE] * len(names))
    return {**judged, "figures": dict(zip(names, pairs, strict=True)), "images": ours.count}


def labelled(model: str, sizes: Sizes, classes: int) -> Iterator[SimpleNamespace]:
    """Batches of images; the label of every second one is what the network says of it."""
    side, network = sizes.side(model), trained(model)
    many = EVALUATED if sizes.device == "cuda" else ANSWERED
    images = torch.from_numpy(formula_images(many, side, side))
    for part in images.split(ANSWERED):
        with torch.no_grad():
            targets = network(part).argmax(1)
        targets[::2] = (targets[::2] + 1) % classes
        yield SimpleNamespace(images=part, targets=targets, errors=[])


def summary(network: nn.Module, batches: list[Any], device: str) -> Summary:
    """What training and `evaluate` make of a network's answers."""
    return summarise(count_batches(network, batches, device).cpu())


def check_compiled(model: str, sizes: Sizes, say: Say) -> None:
    """What the compiled engine answers on the device."""
    side = sizes.side(model)
    images, preprocess = pictures(8, side), Preprocess((side, side))
    expected = EagerEngine(trained(model), preprocess, device="cpu").run(images)

    def answer() -> dict:
        start = time.perf_counter()
        engine = CompiledEngine(trained(model), preprocess, device=sizes.device)
        found = engine.run(images)
        seconds = round(time.perf_counter() - start, 1)
        return {**compare_logits(found, expected, "float32"), "first_s": seconds}

    guarded(say, "compiled, float32", answer)


def check_bundle(model: str, sizes: Sizes, say: Say) -> None:
    """What ONNX Runtime answers on the device from an exported bundle, where all is installed."""
    side = sizes.side(model)
    tensor = formula_images(8, side, side)
    with torch.inference_mode():
        expected = trained(model)(torch.from_numpy(tensor)).numpy()

    def answer(place: Path, name: str) -> dict:
        from densepath import load

        try:
            predictor = load(place, engine=name)
        except EngineError as error:  # its build of ONNX Runtime lacks the provider
            raise MissingError(str(error)) from error
        with predictor:
            return compare_logits(predictor.engine.run_tensor(tensor), expected, "float32")

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "bundle"
        write_bundle(model, place, side)
        for name in GRAPH_ENGINES[sizes.device]:
            guarded(say, name, lambda name=name: answer(place, name))


def write_bundle(model: str, place: Path, side: int) -> None:
    """Export the network.

    Raises:
        MissingError: a package that this takes is not installed.
    """
    try:
        from densepath import Checkpoint, export

        checkpoint = Checkpoint.of(trained(model), preprocess=Preprocess((side, side)))
        export(checkpoint, place, to=["onnx", "torch"], num_images=2, batch_sizes=(1,))
    except (ModuleNotFoundError, MissingPackageError) as error:
        raise MissingError(str(error)) from error


def time_inference(model: str, sizes: Sizes, say: Say) -> None:
    """Images a second of networks, on images that lie on the device, and of engines, from bytes."""
    torch.backends.cudnn.benchmark = True
    side, device = sizes.side(model), sizes.device

    def on_device(make: Callable[[], nn.Module], dtype: torch.dtype, last: bool) -> dict:
        layout = torch.channels_last if last else torch.contiguous_format
        network = make().eval().to(device, dtype).to(memory_format=layout)
        images = torch.randn(sizes.many, 3, side, side, device=device, dtype=dtype)
        images = images.to(memory_format=layout)
        return rate(lambda part: network(images[:part]), sizes)

    def engine(precision: Any) -> dict:
        found = EagerEngine(
            trained(model), Preprocess((side, side)), device=device, precision=precision
        )
        images = pictures(sizes.many, side)
        return rate(lambda part: found.run(images[:part]), sizes)

    for name, make in (
        ("plain", lambda: trained(model)),
        ("rewritten", lambda: fuse(trained(model))),
        ("timm", lambda: timm_network(model)),
    ):
        for dtype, last in ((torch.float32, False), (torch.float32, True), (torch.bfloat16, True)):
            said = f"{name}, {str(dtype)[6:]}{', channels last' if last else ''}"
            guarded(say, said, lambda a=make, b=dtype, c=last: on_device(a, b, c))
    for precision in ("float32", "bfloat16"):
        guarded(say, f"eager engine, {precision}", lambda p=precision: engine(p))


def rate(run: Callable[[int], Any], sizes: Sizes) -> dict:
    """Images a second and memory of `run`, which takes so many images."""
    return halving(lambda batch: _rate_at(run, batch, sizes), sizes.many)


def _rate_at(run: Callable[[int], Any], batch: int, sizes: Sizes) -> dict:
    """The same for this many images."""
    memory, times = Memory(sizes.device), []
    with torch.inference_mode():
        for _ in range(WARM_UP):
            run(batch)
        synchronize(sizes.device)
        while sum(times) < sizes.seconds or len(times) < WARM_UP:
            start = time.perf_counter()
            run(batch)
            synchronize(sizes.device)
            times.append(time.perf_counter() - start)
    return {
        "batch": batch,
        "images_per_second": round(batch / median(times), 1),
        "memory_mb": memory.growth_mb(),
    }

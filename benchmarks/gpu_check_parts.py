"""What the parts of `gpu_check.py` share: networks, comparisons, memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from training_blocks import MODULE, fuse_network
from training_ours import build
from training_torch import give_small_stem, make_step, prepare
from training_worker import LEARNING_RATE, Job, Step, peak_bytes, resident_bytes, restart_peak

SMALL = "densenet_bc_100_12"
SMALL_NUMBERS = {"growth_rate": 12, "block_config": (16, 16, 16)}
# Told by a part of what it has found: a name in the part, and its values.
Say = Callable[[str, dict], None]


class MissingError(Exception):
    """What a part needs is not installed here: it is skipped."""


@dataclass(frozen=True)
class Sizes:
    """How much a check does: as asked for on a GPU, little on a CPU.

    Attributes:
        device: `cuda` or `cpu`.
        few: images of a step that is compared with the CPU's.
        many: images of a step that is timed.
        seconds: of each timing.
    """

    device: str
    few: int
    many: int
    seconds: float

    def side(self, model: str) -> int:
        """The side in pixels of the network's images."""
        if self.device == "cpu":
            return 16 if is_small(model) else 64
        return 32 if is_small(model) else 224


@dataclass(frozen=True)
class Form:
    """A way to take a step: whose network, in which memory layout, precision and arithmetic."""

    name: str
    precision: str = "float32"
    channels_last: bool = False
    portable: bool = False
    compiled: bool = False
    timm: str = ""

    def network(self, model: str, device: str) -> nn.Module:
        """Ours with the formula's parameters, or timm's with its own first ones.

        Raises:
            MissingError: timm has no such network, or is not there.
        """
        if self.timm:
            return timm_network(model, efficient=self.timm == "efficient").to(device)
        return build(model, num_classes(model)).to(device)

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        model: str,
        batch: int,
        side: int,
    ) -> Step:
        """A step of the network on a random batch.

        Raises:
            MissingError: the package has no fused blocks.
        """
        job = Job(model, self.name, self.precision, 0, batch, side, num_classes(model))
        options: dict[str, Any] = {}
        if self.portable:
            try:
                options["check"] = fuse_network(network, "portable", self.precision)
            except ModuleNotFoundError as error:
                raise MissingError(f"{error.name or MODULE} is not there") from error
        return make_step(
            torch.compile(network, dynamic=False) if self.compiled else network,
            optimizer,
            *job.random_batch(),
            precision=self.precision,
            channels_last=self.channels_last,
            **options,
        )

    def begin(
        self, model: str, batch: int, side: int, device: str, *, lr: float = LEARNING_RATE
    ) -> Step:
        """A step of a new network with a new optimiser.

        Raises:
            MissingError: as `network`.
        """
        network = self.network(model, device)
        optimizer = prepare(network, channels_last=self.channels_last, lr=lr)
        return self.step(network, optimizer, model, batch, side)


def is_small(model: str) -> bool:
    """Whether it is a network for images of 32 pixels."""
    return model.startswith("densenet_bc")


def num_classes(model: str) -> int:
    """The logits of the model."""
    return 10 if is_small(model) else 1000


def timm_network(model: str, *, efficient: bool = False) -> nn.Module:
    """timm's network, with a small stem where ours has one.

    Raises:
        MissingError: timm is not installed, or has no such network.
    """
    if not is_installed("timm"):
        raise MissingError("timm is not installed")
    import timm
    from timm.models.densenet import DenseNet

    options: dict[str, Any] = {"num_classes": num_classes(model)}
    if efficient:
        options["memory_efficient"] = True
    if model == SMALL:
        network: nn.Module = DenseNet(**SMALL_NUMBERS, **options)
        give_small_stem(network)
        return network
    if model not in timm.list_models() or (efficient and not model.startswith("densenet")):
        raise MissingError(f"timm has no such {model}")
    return timm.create_model(model, **options)


def is_installed(name: str) -> bool:
    """Whether the package is; a folder of that name, such as `peers/timm`, is none."""
    found = find_spec(name)
    return found is not None and found.origin is not None


def relative(found: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """How far each number is from the one that is wanted, over it."""
    return [abs(a - b) / max(abs(b), 1e-12) for a, b in zip(found, wanted, strict=True)]


def judge(differences: Sequence[float], bounds: Sequence[float]) -> dict:
    """Whether all differences keep their bounds, with both."""
    kept = all(d <= bound for d, bound in zip(differences, bounds, strict=True))
    return {
        "state": "ok" if kept else "failed",
        "differences": [float(f"{d:.2e}") for d in differences],
        "bounds": list(bounds),
        **({} if kept else {"why": "further from what is expected than the bound"}),
    }


def guarded(say: Say, name: str, work: Callable[[], dict]) -> None:
    """Say what `work` found under `name`; or why it found nothing."""
    try:
        found = {"state": "ok", **work()}
    except MissingError as error:
        found = {"state": "skipped", "why": str(error)}
    except Exception as error:  # whatever a new machine has in store
        found = {"state": "failed", "why": f"{type(error).__name__}: {str(error)[:400]}"}
    say(name, found)
    release()


def halving(measure: Callable[[int], dict], batch: int) -> dict:
    """What `measure` finds of so many images; where memory is short of half as many, and so on."""
    while True:
        try:
            return measure(batch)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        release()  # what the error held is free only here
        batch //= 2


def release() -> None:
    """Free what the last network held."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def synchronize(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


class Memory:
    """The growth of a device's memory since this was made: the GPU's, or the process's."""

    def __init__(self, device: str) -> None:
        self._cuda, self._start = device == "cuda", 0
        if self._cuda:
            torch.cuda.synchronize()
            self._start = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        elif sys.platform == "linux":
            self._start = resident_bytes()
            restart_peak()

    def growth_mb(self) -> float | None:
        """From then to the peak; None where it cannot be told."""
        if self._cuda:
            return round((torch.cuda.max_memory_allocated() - self._start) / 1e6, 1)
        if sys.platform == "linux":
            return round((peak_bytes() - self._start) / 1e6, 1)
        return None

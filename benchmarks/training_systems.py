"""What trains these networks on a CPU: ours, plain and with a block as one operation, and peers."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.util import find_spec

from harness import HERE, OUR_ENVIRONMENT, PEERS, peer_python

sys.path.insert(0, str(PEERS))

from training_worker import Job

SMALL = "densenet_bc_100_12"
NETWORKS = ("densenet121", "densenet201", "dpn68", "dpn92", SMALL)
OURS = "densepath"
DEFAULT = "timm"


@dataclass(frozen=True)
class TrainingSystem:
    """One way to take a training step.

    Attributes:
        name: as the tables say it, without the precision.
        precision: `float32`, or `bfloat16` for autocast.
        peer: the folder of its environment; None for ours.
        mode: as its script calls it.
        models: our names of those that it has, and its own.
        switches: how its DPNs differ from ours, as `training_ours.py` calls it.
        compiled: measured only with --compile: it takes minutes.
        module: of ours, what has to be there.
    """

    name: str
    precision: str
    peer: str | None
    mode: str
    models: dict[str, str] = field(default_factory=lambda: {name: name for name in NETWORKS})
    switches: str = "catalogue"
    compiled: bool = False
    module: str = ""

    @property
    def label(self) -> str:
        """The name that tells it from all others."""
        return f"{self.name}, {self.precision}"

    def job(self, model: str, threads: int, batch: int, side: int) -> Job:
        """What its worker is to do."""
        name = self.models[model]
        return Job(name, self.mode, self.precision, threads, batch, side, num_classes(model))

    def command(self, job: Job) -> list[str]:
        """What starts its worker."""
        if self.peer is None:
            return [sys.executable, str(HERE / "training_ours.py"), *job.to_words()]
        script = PEERS / self.peer / "training.py"
        return [str(peer_python(self.peer)), str(script), *job.to_words()]

    def environment(self, threads: int) -> dict[str, str]:
        """What its shell sets, and for ours what the command line of densepath sets for itself."""
        return {"OMP_NUM_THREADS": str(threads)} | (OUR_ENVIRONMENT if self.peer is None else {})

    def why_not(self, model: str) -> str | None:
        """Why it cannot take a step of the model here; None where it can."""
        if self.peer is not None and peer_python(self.peer) is None:
            return f"its environment is not there: benchmarks/peers/install.sh {self.peer}"
        if model not in self.models:
            return "it has no such network"
        if self.module and not _has(self.module):
            return f"{self.module} is not there"
        return None


def num_classes(model: str) -> int:
    """The logits of the model, as it was published."""
    return 10 if model == SMALL else 1000


def default_size(model: str) -> tuple[int, int]:
    """The images of a step, and their side in pixels."""
    return (64, 32) if model == SMALL else (16, 224)


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


def _named(*models: str) -> dict[str, str]:
    return {name: name for name in models}


F32, BF16 = "float32", "bfloat16"
LAST = " (channels last)"
_BLOCKS = "densepath.training.blocks.choose"
_DENSENETS = _named("densenet121", "densenet201", SMALL)
_PADDLE = {
    name: name.replace("densenet", "DenseNet").replace("dpn", "DPN")
    for name in NETWORKS
    if name != SMALL
}
_MINDCV = _named("densenet121", "densenet201", "dpn92")
SYSTEMS = (
    TrainingSystem("densepath fused", F32, None, "fused", module=_BLOCKS),
    TrainingSystem("densepath fused", BF16, None, "fused", module=_BLOCKS),
    TrainingSystem("densepath fused (recompute)", F32, None, "recompute", module=_BLOCKS),
    TrainingSystem("densepath fused (recompute)", BF16, None, "recompute", module=_BLOCKS),
    TrainingSystem("densepath portable", F32, None, "portable", module=_BLOCKS),
    TrainingSystem("densepath portable", BF16, None, "portable", module=_BLOCKS),
    TrainingSystem("densepath plain", F32, None, "plain"),
    TrainingSystem(f"densepath plain{LAST}", F32, None, "channels_last"),
    TrainingSystem(f"densepath plain{LAST}", BF16, None, "channels_last"),
    TrainingSystem(DEFAULT, F32, "timm", "default"),
    TrainingSystem("timm memory-efficient", F32, "timm", "efficient", _DENSENETS),
    TrainingSystem(f"timm{LAST}", F32, "timm", "channels_last"),
    TrainingSystem(f"timm{LAST}", BF16, "timm", "channels_last"),
    TrainingSystem(
        f"timm memory-efficient{LAST}", BF16, "timm", "efficient_channels_last", _DENSENETS
    ),
    TrainingSystem("timm compiled", F32, "timm", "compiled", compiled=True),
    TrainingSystem("timm compiled", BF16, "timm", "compiled", compiled=True),
    TrainingSystem("torchvision", F32, "timm", "torchvision-default", _DENSENETS),
    TrainingSystem(
        "torchvision memory-efficient", F32, "timm", "torchvision-efficient", _DENSENETS
    ),
    TrainingSystem("PaddleClas", F32, "paddleclas", "eager", _PADDLE, "paddle"),
    TrainingSystem("PaddleClas (oneDNN)", F32, "paddleclas", "onednn", _PADDLE, "paddle"),
    TrainingSystem("PaddleClas (oneDNN)", BF16, "paddleclas", "onednn", _PADDLE, "paddle"),
    TrainingSystem("MindCV PyNative", F32, "mindcv", "pynative", _MINDCV, "mindcv"),
    TrainingSystem("MindCV Graph", F32, "mindcv", "graph", _MINDCV, "mindcv"),
)


def find_systems(named: Collection[str], *, compiled: bool) -> list[TrainingSystem]:
    """The systems to measure.

    Args:
        named: only these, if any is named.
        compiled: with those that compile first.
    """
    return [
        system
        for system in SYSTEMS
        if (system.name in named if named else compiled or not system.compiled)
    ]

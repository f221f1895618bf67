"""What runs these networks on a CPU: our engines, peers, and plain exports on their runtimes."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from harness import HERE, MODELS, OUR_ENVIRONMENT, PEERS, peer_python

from densepath.weights.published import AS_CATALOGUE, MINDCV_DPN, PADDLE_DPN, Switches

BOTH = ("float32", "bfloat16")
FLOAT32 = ("float32",)


@dataclass(frozen=True)
class System:
    """One way to run a network.

    Attributes:
        name: as the tables say it.
        peer: the folder of its environment; None for ours.
        mode: as its script calls it.
        models: our names of those that it has, and its own.
        precisions: that it can compute in.
        dpn: how its DPNs differ from ours.
        slow: measured only for the models of --slow: it takes minutes.
    """

    name: str
    peer: str | None
    mode: str
    models: dict[str, str]
    precisions: tuple[str, ...] = BOTH
    dpn: Switches = AS_CATALOGUE
    slow: bool = False

    def command(self, model: str, bundle: Path, precision: str, threads: int) -> list[str]:
        """What starts its worker."""
        last = [self.mode, precision, str(threads)]
        if self.peer is None:
            return [sys.executable, str(HERE / "latency_ours.py"), str(bundle), *last]
        script = PEERS / self.peer / "latency.py"
        return [str(peer_python(self.peer)), str(script), self.models[model], *last]

    def environment(self, threads: int) -> dict[str, str]:
        """What its shell sets, and for ours what the command line of densepath sets for itself."""
        return {"OMP_NUM_THREADS": str(threads)} | (OUR_ENVIRONMENT if self.peer is None else {})


def _all_but(*missing: str) -> dict[str, str]:
    return {name: name for name in MODELS if name not in missing}


PADDLE = {name: name.replace("densenet", "DenseNet").replace("dpn", "DPN") for name in MODELS}
TIMM, MINDCV = _all_but("densenet264"), _all_but("densenet264", "dpn68")
SYSTEMS = (
    System("densepath native", None, "native", _all_but()),
    System("densepath openvino", None, "openvino", _all_but()),
    System("densepath onnxruntime", None, "onnxruntime", _all_but(), FLOAT32),
    System("densepath eager", None, "eager", _all_but()),
    System("densepath compiled", None, "compiled", _all_but(), slow=True),
    System("plain OpenVINO", None, "plain-openvino", _all_but()),
    System("plain ONNX Runtime", None, "plain-onnxruntime", _all_but(), FLOAT32),
    System("timm eager", "timm", "eager", TIMM),
    System("timm eager (channels last)", "timm", "channels_last", TIMM),
    System("timm compiled", "timm", "compiled", TIMM, slow=True),
    System("Paddle Inference (oneDNN)", "paddleclas", "inference", PADDLE, dpn=PADDLE_DPN),
    System("MindSpore PyNative", "mindcv", "pynative", MINDCV, FLOAT32, MINDCV_DPN, slow=True),
    System("MindSpore Graph", "mindcv", "graph", MINDCV, FLOAT32, MINDCV_DPN, slow=True),
)


def find_systems(
    model: str, precision: str, *, slow: bool, named: Collection[str] = ()
) -> list[System]:
    """The systems that have the model in that precision and are installed.

    Args:
        model: our name of it.
        precision: `float32` or `bfloat16`.
        slow: with those that are.
        named: only these, if any is named.
    """
    return [
        system
        for system in SYSTEMS
        if model in system.models
        and precision in system.precisions
        and (slow or not system.slow)
        and (not named or system.name in named)
        and (system.peer is None or peer_python(system.peer) is not None)
    ]

"""`torch.compile` as an engine: a network compiled to C++ (or Triton, on a GPU) when it first runs.

The first image and the first batch take a minute each for a DenseNet-121 on two cores; PyTorch
keeps what it compiled for the next process. Needs a C++ compiler.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densepath.bundle.formats import Precision, Runtime
from densepath.caches import share_cache
from densepath.engines.eager import to_network
from densepath.engines.engine import EngineInfo, Incoming, Logits
from densepath.engines.modes import Mode, Spread, SpreadEngine, check_one_stream
from densepath.engines.opening import Opening
from densepath.engines.pixels import as_tensor
from densepath.errors import EngineError, UnknownNameError
from densepath.images.preprocess import Preprocess
from densepath.models.build import Model
from densepath.models.device import find_device

TYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Batches of this many images are compiled for, and of one; others are filled up to the larger.
PART = 8
# Freezing folds BatchNorm and lays out the weights for the kernels. Precompiled headers would stay
# in a folder below /tmp that nothing moves.
CONFIG: dict[str, Any] = {"freezing": True, "cpp_cache_precompile_headers": False}


class CompiledEngine(SpreadEngine):
    """A network compiled by `torch.compile`; all threads share each of its layers."""

    def __init__(
        self,
        model: Model,
        preprocess: Preprocess,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        mode: Mode = "auto",
    ) -> None:
        """
        Args:
            model: the network.
            preprocess: what normalises.
            device: `cpu`, `cuda:0`, or `auto` for a GPU when there is one.
            precision: the type of the arithmetic.
            mode: `auto` or `latency`.

        Raises:
            UnknownNameError: no such precision or mode.
            UsageError: no such device on this machine, or the mode `throughput`.
            EngineError: no C++ compiler.
        """
        if precision not in TYPES:
            raise UnknownNameError("precision", precision, TYPES)
        check_one_stream("compiled", mode)
        self._place, self._type = find_device(device), TYPES[precision]
        self.preprocess = preprocess
        share_cache()
        with _quiet():
            _check_compiler()
        network: Any = model.eval().to(self._place, self._type)
        network = network.to(memory_format=torch.channels_last)
        self._network: Any = torch.compile(network, fullgraph=True, dynamic=False, options=CONFIG)
        self.info = EngineInfo(
            "compiled", str(self._place), precision, model.in_channels, model.num_classes, PART
        )
        self._one_at_a_time = threading.Lock()
        self._spread = Spread(self._run_part, self.info)

    def close(self) -> None:
        """The network is free."""
        super().close()
        self._network = None

    def _run_part(self, batch: Incoming) -> Logits:
        """The logits of at most `PART` images."""
        found, count = as_tensor(batch, self.preprocess), len(batch)
        filled = np.zeros((1 if count == 1 else PART, *found.shape[1:]), np.float32)
        filled[:count] = found
        tensor = torch.from_numpy(filled).to(
            self._place, self._type, memory_format=torch.channels_last
        )
        with self._one_at_a_time, _quiet(), torch.no_grad():
            logits: Tensor = self._network(tensor)
        return logits[:count].float().cpu().numpy()


def open_engine(row: Runtime, opening: Opening) -> CompiledEngine:
    """The engine of a bundle's row, or of a checkpoint."""
    return CompiledEngine(
        to_network(opening),
        opening.preprocess,
        device=opening.device,
        precision=opening.precision,
        mode=opening.mode,
    )


def _check_compiler() -> None:
    """Returns when PyTorch finds a C++ compiler.

    Raises:
        EngineError: it does not.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise EngineError(
            "the engine 'compiled' needs a C++ compiler, and PyTorch finds none. Install g++ "
            "(Debian: apt-get install g++), name one in $CXX, or choose another engine."
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's warnings of its own old code stay unsaid."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.")
        yield

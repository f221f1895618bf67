"""AOTInductor as an engine: a bundle's `model.pt2`, machine code for one kind of CPU or GPU.

The package was compiled at export; here it is only loaded, by PyTorch but without its compiler.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from densepath.bundle.formats import Precision, Runtime
from densepath.caches import share_cache
from densepath.engines.engine import EngineInfo, Incoming, Logits
from densepath.engines.modes import Mode, Spread, SpreadEngine, check_one_stream
from densepath.engines.opening import Opening
from densepath.engines.pixels import as_tensor
from densepath.errors import BundleError, UsageError
from densepath.images.preprocess import Preprocess

PART = 8


class AotiEngine(SpreadEngine):
    """An AOTInductor package on the CPU; all threads share each of its layers."""

    def __init__(
        self,
        model: str | Path,
        preprocess: Preprocess,
        *,
        in_channels: int,
        num_classes: int,
        size: tuple[int, int] | None,
        precision: Precision = "float32",
        mode: Mode = "auto",
    ) -> None:
        """
        Args:
            model: the `.pt2` file; it is code that will be run, so open verified bundles only.
            preprocess: what normalises.
            in_channels: the channels of the images.
            num_classes: the logits.
            size: height and width of the images; None if the package takes any. The package
                itself checks nothing.
            precision: the one that the package was compiled in, float32.
            mode: `auto` or `latency`.

        Raises:
            UsageError: another precision, or the mode `throughput`.
            BundleError: the file is no package, or one for another kind of machine.
        """
        if precision != "float32":
            raise UsageError(
                f"the package was compiled in float32, not in {precision}; the engines "
                "'openvino' and 'eager' can compute in it."
            )
        check_one_stream("aoti", mode)
        self._package, self.preprocess = _load(Path(model)), preprocess
        self.info = EngineInfo(
            "aoti", "cpu", precision, in_channels, num_classes, PART, streams=1, size=size
        )
        self._one_at_a_time = threading.Lock()
        self._spread = Spread(self._run_part, self.info)

    def close(self) -> None:
        """The package is free."""
        super().close()
        self._package = None

    def _run_part(self, batch: Incoming) -> Logits:
        """The logits of at most `PART` images."""
        tensor = np.require(as_tensor(batch, self.preprocess), requirements=["C", "W"])
        with self._one_at_a_time, torch.inference_mode():
            logits = self._package(torch.from_numpy(tensor))
        return logits.float().numpy()


def open_engine(row: Runtime, opening: Opening) -> AotiEngine:
    """The engine of a bundle's row."""
    return AotiEngine(
        opening.file,
        opening.preprocess,
        in_channels=opening.in_channels,
        num_classes=opening.num_classes,
        size=opening.size,
        mode=opening.mode,
    )


def _load(model: Path) -> Any:
    """The package as a function.

    Raises:
        BundleError: it cannot be loaded.
    """
    share_cache()
    from torch._inductor import aoti_load_package

    if not model.is_file():
        raise BundleError(f"{model}: no such file.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch\.")
            return aoti_load_package(str(model))
    except Exception as error:  # zip, linker and C++ errors have no common base but this
        raise BundleError(
            f"{model} cannot be loaded as an AOTInductor package: {error}. Packages are machine "
            "code: one made on another kind of machine has to be exported again here."
        ) from error

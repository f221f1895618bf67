"""PyTorch itself as an engine: fused for inference, channels last, float32 or bfloat16.

On a CPU a batch is cut into parts, one a thread, and each thread runs the whole network on its
part alone. Threads that share each convolution instead meet at hundreds of barriers a batch, and
wait there whenever the machine, or the reading of images, keeps one of them from its core.
"""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densepath.bundle.formats import Precision, Runtime
from densepath.engines import forks
from densepath.engines.engine import (
    EngineInfo,
    Images,
    Incoming,
    Logits,
    Normalised,
    check_images,
)
from densepath.engines.fused import FusedNetwork, fuse
from densepath.engines.modes import Mode, Spread, SpreadEngine, count_streams
from densepath.engines.opening import Opening
from densepath.engines.pixels import as_tensor
from densepath.errors import UnknownNameError
from densepath.images.preprocess import Preprocess
from densepath.models.build import Model
from densepath.models.device import find_device
from densepath.notes import say_once

_TYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Pixels of a batch that is quick, on a CPU for each thread: the maps of 8 images of 224 × 224 still
# profit from the caches; a GPU wants more work at once.
_BATCH_PIXELS = {"cpu": 8 * 224 * 224, "cuda": 64 * 224 * 224}
_LARGEST_BATCH = 256
ONE_THREAD = (
    "PyTorch computes with one thread here: this process was forked from one that had imported "
    "it. Processes that multiprocessing.get_context('spawn') starts have all."
)


class EagerEngine(SpreadEngine):
    """A network on PyTorch, on one device.

    A batch that does not fit into the device's memory is halved and tried again.
    """

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
            model: the network, which the engine may change.
            preprocess: what normalises; its size is that of the images to come, which the batch
                size follows.
            device: `cpu`, `cuda:0`, or `auto` for a GPU when there is one.
            precision: the type of the arithmetic.
            mode: how the threads of torch are used, see `modes.py`; a GPU has one stream.

        Raises:
            UnknownNameError: no such precision or mode.
            UsageError: no such device on this machine.
        """
        if precision not in _TYPES:
            raise UnknownNameError("precision", precision, _TYPES)
        self._place, self._type = find_device(device), _TYPES[precision]
        self.preprocess = preprocess
        self._network = fuse(model.eval()).to(self._place, self._type)
        on_cpu = self._place.type == "cpu"
        streams, _ = count_streams(mode if on_cpu else "latency", torch.get_num_threads())
        height, width = preprocess.size
        pixels = _BATCH_PIXELS.get(self._place.type, _BATCH_PIXELS["cpu"])
        self.info = EngineInfo(
            "eager",
            str(self._place),
            precision,
            model.in_channels,
            model.num_classes,
            min(max(pixels // (height * width), 1), _LARGEST_BATCH),
            streams,
        )
        self._spread = Spread(
            self._run_part,
            self.info,
            build_alone=(lambda: self._run_part) if mode == "auto" else None,
            threads=_single_threads(streams) if streams > 1 else None,
        )

    def explain(
        self, images: Images, target: int | None = None
    ) -> tuple[Logits, NDArray[np.float32]]:
        """Logits, and Grad-CAM maps [N, H', W'], 0 to 1, of the class whose logit is at `target`.

        Without `target` they are of each image's likeliest class.

        The gradient is taken from the last features on only, through pooling and classifier:
        no hook sees an activation that an in-place ReLU then overwrites.
        Source: Selvaraju et al., arXiv:1610.02391, equations 1 and 2.

        Raises:
            UsageError: images of another shape or type.
            EngineError: the engine was opened before this process was forked.
        """
        features = self._features(images)
        # A clone made here may enter autograd, which inference tensors may not.
        maps, logits = grad_cam(self._network, features.clone(), target)
        return logits.float().cpu().numpy(), maps.float().cpu().numpy()

    def embed(self, images: Images) -> tuple[Logits, NDArray[np.float32]]:
        """Logits, and the features that the classifier reads: the mean of the last map, [N, C].

        Raises:
            UsageError: images of another shape or type.
            EngineError: the engine was opened before this process was forked.
        """
        features = self._features(images)
        with torch.inference_mode():
            logits, means = self._network.forward_head(features), features.mean((2, 3))
        return logits.float().cpu().numpy(), means.float().cpu().numpy()

    def _features(self, images: Images) -> Tensor:
        """The last map of uint8 images [N, H, W, C], an inference tensor.

        Raises:
            UsageError: images of another shape or type.
            EngineError: the engine was opened before this process was forked.
        """
        check_images(images, self.info)
        if self.lost:
            raise forks.lost_engine(self.info.name)
        with torch.inference_mode():
            tensor = self._to_device(as_tensor(images, self.preprocess))
            return self._network.forward_features(tensor)

    def close(self) -> None:
        """The network's memory is free."""
        super().close()
        self._network.to("meta")

    def _run_part(self, batch: Incoming) -> Logits:
        """The logits, computed in the calling thread."""
        tensor = as_tensor(batch, self.preprocess)
        with torch.inference_mode():
            return self._halving(tensor).float().cpu().numpy()

    def _to_device(self, tensor: Normalised) -> Tensor:
        """The batch on the device, channels last, in the engine's type."""
        # PyTorch warns of arrays that it may not write to, and takes no mirrored ones.
        plain = tensor.flags.writeable and min(tensor.strides) >= 0
        given = torch.from_numpy(tensor if plain else tensor.copy())
        return given.to(self._place, self._type, memory_format=torch.channels_last)

    def _halving(self, tensor: Normalised) -> Tensor:
        """Logits on the device; too large a batch in two halves."""
        try:
            return self._network(self._to_device(tensor))
        except torch.OutOfMemoryError:
            if len(tensor) == 1:
                raise
        middle = len(tensor) // 2
        return torch.cat([self._halving(tensor[:middle]), self._halving(tensor[middle:])])


def open_engine(row: Runtime, opening: Opening) -> EagerEngine:
    """The engine of a bundle's row, or of a checkpoint."""
    return EagerEngine(
        to_network(opening),
        opening.preprocess,
        device=opening.device,
        precision=opening.precision,
        mode=opening.mode,
    )


def to_network(opening: Opening) -> Model:
    """The network of PyTorch's engines; torch's threads are set for the whole process."""
    if forks.is_inherited("torch"):
        settle_in_child()
    elif opening.threads is not None:
        torch.set_num_threads(opening.threads)
    model = opening.read_checkpoint().to_model()
    model.test_pooling = "mean_max" if opening.mean_max else "mean"
    return model


def settle_in_child() -> None:
    """Let PyTorch compute in a forked process whose parent it has computed in.

    OpenMP's threads stayed in the parent, and it would wait for them: one thread has to do. MKL's
    own memory manager keeps a lock for each thread, which may have been held when the process was
    forked; it is switched off.
    """
    torch.set_num_threads(1)
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    if hasattr(library, "mkl_serv_disable_fast_mm"):  # where PyTorch was built with MKL
        library.mkl_serv_disable_fast_mm()
    say_once(ONE_THREAD)


def grad_cam(
    network: FusedNetwork, features: Tensor, target: int | None = None
) -> tuple[Tensor, Tensor]:
    """Maps [N, H, W] from features [N, C, H, W] for one class, or the likeliest, and the logits."""
    features.requires_grad_()
    with torch.enable_grad():
        logits = network.forward_head(features)
        asked = logits.amax(1) if target is None else logits[:, target]
    (gradient,) = torch.autograd.grad(asked.sum(), features)
    weights = gradient.mean((2, 3), keepdim=True)
    maps = F.relu((weights * features.detach()).sum(1))
    largest = maps.amax((1, 2), keepdim=True)
    return maps / largest.clamp_min(torch.finfo(maps.dtype).tiny), logits.detach()


def _single_threads(count: int) -> ThreadPoolExecutor:
    """Threads in each of which PyTorch computes with that thread alone."""
    pool = ThreadPoolExecutor(count, "network", initializer=torch.set_num_threads, initargs=(1,))
    all_started = threading.Barrier(count + 1)
    for _ in range(count):
        pool.submit(all_started.wait)
    all_started.wait()
    # The number is each thread's own, but threads yet to come would start with the last one set.
    torch.set_num_threads(count)
    return pool

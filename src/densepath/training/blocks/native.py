"""The operations on our own C++ kernels: float32, on the CPU.

Maps are handed over where they stand; the library keeps nothing of them. The sums of all pixels are
added in an order that the number of threads alone decides, so that a step gives the same bits
again.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densepath.errors import EngineError
from densepath.kernels.compile import TRAINING
from densepath.kernels.load import open_library
from densepath.training.blocks.maps import new_map
from densepath.training.blocks.operations import (
    Correction,
    Gradient,
    Moments,
    Norm,
    NormSums,
    Reading,
    Sums,
)

READINGS: dict[Reading, int] = {"all": 0, "second": 1, "average": 2}

_P, _I = ctypes.c_void_p, ctypes.c_int
# Of each function of the library; the last one is always the number of threads.
ARGUMENTS = {
    "moments": (_P, _P),
    "correct": (_P, _P, _P, _P),
    "pointwise": (_P, _P, _P, _I, _P, _I, _P),
    "pointwise_backward": (_P, _P, _P, _I, _P, _P, _I, _P, _P),
    "pool": (_P, _P, _I, _I, _P, _P),
    "pool_backward": (_P, _P, _I, _I, _P, _P, _P, _P),
    "convolve": (_P, _P, _P, _I, _I, _P, _P),
    "convolve_backward": (_P, _P, _P, _I, _I, _P, _P, _I, _P, _P),
}


class _Maps(ctypes.Structure):
    """`maps.hpp:Maps`."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("images", "height", "width", "channels")),
        ("ld", ctypes.c_int64),
    )


class _Norms(ctypes.Structure):
    """`maps.hpp:Norms`."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("scale", "shift", "centre"))


class _Gradients(ctypes.Structure):
    """`maps.hpp:Gradients`."""

    _fields_ = (
        ("data", _Maps),
        ("constant", ctypes.c_void_p),
        ("slope", ctypes.c_void_p),
        ("outputs", _Maps),
    )


class _Pair(ctypes.Structure):
    """`maps.hpp:Statistics` and `maps.hpp:Sums`: two vectors of doubles, or none."""

    _fields_ = (("first", ctypes.c_void_p), ("second", ctypes.c_void_p))


class NativeOperations:
    """See `operations.py:Operations`; every tensor is float32 and on the CPU."""

    def __init__(self, threads: int | None = None) -> None:
        """`threads`: as many as torch has at each call, if None.

        Raises:
            EngineError: no C++ compiler, or it makes nothing that this processor can run.
        """
        self._library = load_library()
        self._threads = threads

    def new_map(self, images: int, height: int, width: int, channels: int) -> Tensor:
        """An unwritten map, with room behind it for vectors that reach beyond its last channel."""
        return new_map((images, height, width, channels), torch.float32, torch.device("cpu"))

    def moments(self, x: Tensor) -> Moments:
        """The statistics of a map."""
        found = _new_moments(x.shape[-1])
        self._call("moments", _maps(x), _pair(*found))
        return found

    def pointwise(
        self,
        x: Tensor,
        norm: Norm,
        weight: Tensor,
        out: Tensor,
        *,
        reading: Reading = "all",
        add: bool = False,
        statistics: bool = False,
    ) -> Moments | None:
        """BN-ReLU-1×1 of `x` with `weight` [O, C, 1, 1] into `out`, or added to it."""
        options = (READINGS[reading],)
        return self._forward("pointwise", x, norm, weight, options, out, (add,), statistics)

    def pointwise_backward(
        self,
        x: Tensor,
        norm: Norm,
        weight: Tensor,
        gradient: Gradient,
        into: Tensor,
        *,
        reading: Reading = "all",
        add: bool = False,
    ) -> Sums:
        """Of `pointwise`: scale · g into `into`, of the shape of `x`, or added to it."""
        return self._backward(
            "pointwise_backward", x, norm, weight, (READINGS[reading],), gradient, into, add
        )

    def convolve(
        self,
        x: Tensor,
        norm: Norm,
        weight: Tensor,
        out: Tensor,
        *,
        stride: int = 1,
        groups: int = 1,
        statistics: bool = False,
    ) -> Moments | None:
        """BN-ReLU-3×3 of `x` into `out`; `weight` is [O, C / groups, 3, 3]."""
        options = (stride, groups)
        return self._forward("convolve", x, norm, weight, options, out, (), statistics)

    def convolve_backward(
        self,
        x: Tensor,
        norm: Norm,
        weight: Tensor,
        gradient: Gradient,
        into: Tensor,
        *,
        stride: int = 1,
        groups: int = 1,
        add: bool = False,
    ) -> Sums:
        """Of `convolve`: scale · g into `into`, of the shape of `x`, or added to it."""
        return self._backward(
            "convolve_backward", x, norm, weight, (stride, groups), gradient, into, add
        )

    def pool(self, x: Tensor, norm: Norm, out: Tensor, *, start: tuple[int, int]) -> Tensor:
        """BN-ReLU and the largest of 3×3 pixels at stride 2, into `out`; which each took."""
        taken = torch.empty(out.shape, dtype=torch.uint8)
        self._call("pool", _maps(x), _norms(norm), *start, _maps(out), taken.data_ptr())
        return taken

    def pool_backward(
        self,
        x: Tensor,
        norm: Norm,
        taken: Tensor,
        gradient: Tensor,
        into: Tensor,
        *,
        start: tuple[int, int],
    ) -> NormSums:
        """Of `pool`: scale · g into `into`."""
        sums = NormSums(*_new_moments(x.shape[-1]))
        places = taken.contiguous()
        self._call(
            "pool_backward",
            _maps(x),
            _norms(norm),
            *start,
            places.data_ptr(),
            _maps(gradient),
            _maps(into),
            _pair(*sums),
        )
        return sums

    def correct(self, data: Tensor, correction: Correction, x: Tensor) -> None:
        """Add constant + slope · x to `data`, in place."""
        constant, slope = correction.constant.float(), correction.slope.float()
        self._call("correct", _maps(data), constant.data_ptr(), slope.data_ptr(), _maps(x))

    def _forward(
        self,
        name: str,
        x: Tensor,
        norm: Norm,
        weight: Tensor,
        options: tuple[int, ...],
        out: Tensor,
        ending: tuple[bool, ...],
        statistics: bool,
    ) -> Moments | None:
        """The moments of a forward pass, if asked for; its options are its own."""
        found = _new_moments(out.shape[-1]) if statistics else None
        held = weight.detach().contiguous()
        self._call(
            name,
            _maps(x),
            _norms(norm),
            held.data_ptr(),
            *options,
            _maps(out),
            *ending,
            _pair(*found) if found else _pair(None, None),
        )
        return found

    def _backward(
        self,
        name: str,
        x: Tensor,
        norm: Norm,
        weight: Tensor,
        options: tuple[int, ...],
        gradient: Gradient,
        into: Tensor,
        add: bool,
    ) -> Sums:
        """The sums of a backward pass, whose options are its own."""
        held = weight.detach().contiguous()
        sums = Sums(torch.empty_like(held), *_new_moments(x.shape[-1]))
        given = _Gradients(_maps(gradient.data))
        if gradient.correction is not None:
            assert gradient.outputs is not None
            constant, slope = (part.float() for part in gradient.correction)
            given.constant, given.slope = constant.data_ptr(), slope.data_ptr()
            given.outputs = _maps(gradient.outputs)
        self._call(
            name,
            _maps(x),
            _norms(norm),
            held.data_ptr(),
            *options,
            given,
            _maps(into),
            add,
            sums.weight.data_ptr(),
            _pair(sums.gradient, sums.product),
        )
        return sums

    def _call(self, name: str, *values: Any) -> None:
        """The library's function of this name has run.

        Raises:
            EngineError: it failed.
        """
        given = [ctypes.byref(v) if isinstance(v, ctypes.Structure) else v for v in values]
        threads = self._threads or torch.get_num_threads()
        if getattr(self._library, f"densepath_{name}")(*given, threads):
            said: bytes = self._library.densepath_failure()
            raise EngineError(f"the kernels failed: {said.decode()}.")


def _maps(map_: Tensor) -> _Maps:
    """A map as the library takes it."""
    images, height, width, channels = map_.shape
    assert map_.dtype == torch.float32
    assert map_.device.type == "cpu"
    assert map_.stride(3) == 1 or channels == 1
    ld = map_.stride(2) if width > 1 else map_.stride(1) if height > 1 else map_.stride(0)
    return _Maps(map_.data_ptr(), images, height, width, channels, max(ld, channels))


def _norms(norm: Norm) -> _Norms:
    """A norm as the library takes it."""
    return _Norms(*(part.data_ptr() for part in norm))


def _pair(first: Tensor | None, second: Tensor | None) -> _Pair:
    """Two vectors of doubles, which the library writes."""
    return _Pair(*(None if part is None else part.data_ptr() for part in (first, second)))


def _new_moments(channels: int) -> Moments:
    """Two unwritten vectors of doubles."""
    return Moments(*torch.empty(2, channels, dtype=torch.float64))


def find_parallel(maps: Path = Path("/proc/self/maps")) -> int | None:
    """Where PyTorch's own GNU OpenMP has `GOMP_parallel`; None where it has another OpenMP.

    On its threads ours are never in the way of PyTorch's, which spin for milliseconds after each
    operation: a step of DenseNet-121 on two cores takes 1.6 s rather than 2.3.
    """
    try:
        lines = maps.read_text().splitlines()
    except OSError:
        return None
    folder = str(Path(torch.__file__).parent)
    for path in sorted({line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line}):
        if path.startswith(folder) or ".libs" in path:
            found = getattr(ctypes.CDLL(path), "GOMP_parallel", None)
            return ctypes.cast(found, ctypes.c_void_p).value if found else None
    return None


def load_library() -> ctypes.CDLL:
    """The library, with the types of its functions; it is compiled when the cache has none.

    Raises:
        EngineError: no C++ compiler, or it makes nothing that this processor can run.
        OutputError: the cache cannot be written.
    """
    library = open_library(TRAINING)
    library.densepath_failure.restype = ctypes.c_char_p
    library.densepath_borrow.argtypes = (_P,)
    library.densepath_borrow(find_parallel())
    for name, types in ARGUMENTS.items():
        getattr(library, f"densepath_{name}").argtypes = (*types, ctypes.c_int)
    return library

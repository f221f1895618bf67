"""The library of our own training kernels, as ctypes sees it: its functions, and what they take."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from densepath.kernels.compile import TRAINING
from densepath.kernels.load import open_library
from densepath.training.blocks.operations import Moments, Norm

_P, _I, _D = ctypes.c_void_p, ctypes.c_int, ctypes.c_double
# Of each function of the library; the last one is always the number of threads.
ARGUMENTS = {
    "moments": (_P, _I, _P),
    "correct": (_P, _I, _P, _P, _P, _I),
    "pointwise": (_P, _I, _P, _P, _I, _I, _I, _P, _I, _P),
    "pointwise_backward": (_P, _I, _P, _P, _I, _I, _I, _P, _P, _I, _P, _P),
    "pool": (_P, _I, _P, _I, _I, _P, _P),
    "pool_backward": (_P, _I, _P, _I, _I, _P, _P, _P, _P),
    "convolve": (_P, _I, _P, _P, _I, _I, _I, _P, _P),
    "convolve_backward": (_P, _I, _P, _P, _I, _I, _P, _P, _I, _P, _P),
    "factors": (_P, _I, _P, _P, _D, _P, _P, _P),
    "follow": (_P, _I, _D, _D, _P, _P),
    "norm_gradients": (_P, _I, _P, _P, _P),
    "correction": (_P, _I, _D, _P, _P, _P, _P),
}


class Maps(ctypes.Structure):
    """`maps.hpp:Maps`."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("images", "height", "width", "channels")),
        ("ld", ctypes.c_int64),
    )


class Norms(ctypes.Structure):
    """`maps.hpp:Norms`."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("scale", "shift", "centre"))


class Gradients(ctypes.Structure):
    """`maps.hpp:Gradients`."""

    _fields_ = (
        ("data", Maps),
        ("constant", ctypes.c_void_p),
        ("slope", ctypes.c_void_p),
        ("outputs", Maps),
        ("halved", ctypes.c_int32),
        ("more", Maps),
    )


class Pair(ctypes.Structure):
    """`maps.hpp:Statistics` and `maps.hpp:Sums`: two vectors of doubles, or none."""

    _fields_ = (("first", ctypes.c_void_p), ("second", ctypes.c_void_p))


def to_maps(map_: Tensor) -> Maps:
    """A map as the library takes it."""
    images, height, width, channels = map_.shape
    assert map_.dtype in {torch.float32, torch.bfloat16}
    assert map_.device.type == "cpu"
    assert map_.stride(3) == 1 or channels == 1
    ld = map_.stride(2) if width > 1 else map_.stride(1) if height > 1 else map_.stride(0)
    return Maps(map_.data_ptr(), images, height, width, channels, max(ld, channels))


def is_halved(*maps: Tensor) -> bool:
    """Whether maps, which are all of one type, are of bfloat16."""
    assert len({map_.dtype for map_ in maps}) == 1
    return maps[0].dtype == torch.bfloat16


def to_norms(norm: Norm) -> Norms:
    """A norm as the library takes it."""
    return Norms(*(part.data_ptr() for part in norm))


def to_pair(first: Tensor | None, second: Tensor | None) -> Pair:
    """Two vectors of doubles, which the library writes."""
    return Pair(*(None if part is None else part.data_ptr() for part in (first, second)))


def new_moments(channels: int) -> Moments:
    """Two unwritten vectors of doubles."""
    return Moments(*torch.empty(2, channels, dtype=torch.float64, device="cpu").unbind())


def find_parallel(maps: Path = Path("/proc/self/maps")) -> int | None:
    """Where PyTorch's own GNU OpenMP has `GOMP_parallel`; None where it has another OpenMP.

    On its threads ours are never in the way of PyTorch's, which spin for milliseconds after each
    operation: a step of DenseNet-121 on two cores takes 1.6 s rather than 2.3.
    """
    try:
        lines = maps.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    paths = sorted({line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line})
    package = Path(torch.__file__).resolve().parent  # `maps` has no links
    # Its wheels have it inside the package or in a folder beside it; scikit-learn, too, has one.
    for folder in (package, package.with_name("torch.libs")):
        for path in paths:
            if Path(path).is_relative_to(folder):
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

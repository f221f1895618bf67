"""The operations on our own C++ kernels: on the CPU, for networks of float32.

The 1×1 convolutions, most of a step, can multiply in bfloat16, with sums in float32 (AVX512_BF16;
elsewhere the same is computed in float32, more slowly). The 3×3 convolutions without groups do with
AMX alone: else theirs is a quarter of the multiplications in float32, which rounded operands would
not bear; those of stride 2 never do. Those in groups of an even width do where the processor does,
forward and, of stride 1, for the gradient of what they read; with AMX in all three products, of any
width up to 32.

Maps are of float32, but those of `middle_dtype` of bfloat16 where 1×1 convolutions multiply so.

Maps are handed over where they stand; the library keeps nothing of them. The sums of all pixels are
added in an order that the number of threads alone decides, so that a step gives the same bits
again.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from densepath.errors import EngineError
from densepath.training.blocks.library import (
    Gradients,
    is_halved,
    load_library,
    new_moments,
    to_maps,
    to_norms,
    to_pair,
)
from densepath.training.blocks.maps import SPARE, new_map
from densepath.training.blocks.memory import MapMemory
from densepath.training.blocks.operations import (
    Correction,
    Factors,
    Gradient,
    Moments,
    Norm,
    NormSums,
    Pixels,
    Reading,
    Sums,
)
from densepath.training.distributed import ALONE, Ranks

# Whatever torch's defaults are.
_CPU = torch.device("cpu")
_OF_FLOATS: dict[str, Any] = {"dtype": torch.float32, "device": _CPU}
_OF_DOUBLES: dict[str, Any] = {"dtype": torch.float64, "device": _CPU}

READINGS: dict[Reading, int] = {"all": 0, "second": 1, "average": 2}


class NativeOperations:
    """See `operations.py:Operations`; what is no map is float32, statistics and sums aside."""

    device = _CPU

    def __init__(
        self,
        threads: int | None = None,
        ranks: Ranks = ALONE,
        *,
        bfloat16: bool = False,
        recomputes: bool = False,
        memory: MapMemory | None = None,
    ) -> None:
        """Open the library, which is compiled when the cache has none.

        Args:
            threads: as many as torch has at each call, if None.
            ranks: the processes whose images BatchNorms count together.
            bfloat16: 1×1 convolutions multiply so, and 3×3 ones as far as it says above.
            recomputes: see `Operations`.
            memory: of the maps; of its own, if None.

        Raises:
            EngineError: no C++ compiler, or it makes nothing that this processor can run.
        """
        self._library = load_library()
        self._threads, self.ranks, self._bfloat16 = threads, ranks, bfloat16
        self.recomputes = recomputes
        self.memory = memory or MapMemory()

    @property
    def has_bfloat16(self) -> bool:
        """Whether this processor multiplies in bfloat16."""
        return bool(self._library.densepath_has_bfloat16())

    @property
    def has_amx(self) -> bool:
        """Whether products in bfloat16 go through AMX: 3×3 convolutions multiply so, too."""
        return bool(self._library.densepath_has_amx())

    @property
    def middle_dtype(self) -> torch.dtype:
        """That in which the 1×1 convolutions multiply."""
        return torch.bfloat16 if self._bfloat16 else torch.float32

    def new_map(
        self,
        images: int,
        height: int,
        width: int,
        channels: int,
        *,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """An unwritten map, with room behind it for vectors that reach beyond its last channel."""
        kind = dtype or torch.float32
        return new_map((images, height, width, channels), kind, self.memory.empty)

    def moments(self, x: Tensor) -> Moments:
        """The statistics of a map."""
        found = new_moments(x.shape[-1])
        self._call("moments", to_maps(x), is_halved(x), to_pair(*found))
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
        assert self._bfloat16 or not is_halved(x)
        options = (READINGS[reading], self._bfloat16, is_halved(out))
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
        assert self._bfloat16 or not is_halved(x)
        assert not is_halved(into)
        assert gradient.outputs is None or gradient.outputs.dtype == gradient.data.dtype
        if gradient.more is not None and gradient.data.shape[3] % SPARE:
            gradient = Gradient(self._joined(gradient.data, gradient.more))
        options = (READINGS[reading], self._bfloat16, is_halved(gradient.data))
        return self._backward("pointwise_backward", x, norm, weight, options, gradient, into, add)

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
        options = (stride, groups, is_halved(out))
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
        assert not is_halved(gradient.data)
        assert is_halved(x) == is_halved(into)
        options = (stride, groups)
        return self._backward("convolve_backward", x, norm, weight, options, gradient, into, add)

    def pool(self, x: Tensor, norm: Norm, out: Tensor, *, start: tuple[int, int]) -> Tensor:
        """BN-ReLU and the largest of 3×3 pixels at stride 2, into `out`; which each took."""
        taken = torch.empty(out.shape, dtype=torch.uint8, device="cpu")
        assert not is_halved(out)
        options = (is_halved(x), to_norms(norm), *start)
        self._call("pool", to_maps(x), *options, to_maps(out), taken.data_ptr())
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
        assert not is_halved(gradient)
        sums = NormSums(*new_moments(x.shape[-1]))
        places = taken.contiguous()
        self._call(
            "pool_backward",
            to_maps(x),
            is_halved(x, into),
            to_norms(norm),
            *start,
            places.data_ptr(),
            to_maps(gradient),
            to_maps(into),
            to_pair(*sums),
        )
        return sums

    def correct(self, data: Tensor, correction: Correction, x: Tensor) -> None:
        """Add constant + slope · x to `data`, in place."""
        constant, slope = correction.constant.float(), correction.slope.float()
        factors = (constant.data_ptr(), slope.data_ptr())
        self._call("correct", to_maps(data), is_halved(data), *factors, to_maps(x), is_halved(x))

    def factors(self, moments: Moments, weight: Tensor, bias: Tensor, eps: float) -> Factors:
        """Those of a BatchNorm with these statistics."""
        channels = len(weight)
        scale, shift, centre = torch.empty((3, channels), **_OF_FLOATS).unbind()
        inverse, whole = torch.empty((2, channels), **_OF_DOUBLES).unbind()
        found = Factors(Norm(scale, shift, centre), moments.mean, inverse, whole)
        held = weight.contiguous(), bias.contiguous()
        self._call(
            "factors",
            to_pair(*moments),
            channels,
            *(part.data_ptr() for part in held),
            eps,
            to_norms(found.norm),
            inverse.data_ptr(),
            whole.data_ptr(),
        )
        return found

    def follow(self, running: Moments, found: Moments, share: float, pixels: Pixels) -> None:
        """Move running statistics, in place, by a share towards what was found."""
        held = [part.float().contiguous() for part in running]
        moved = (part.data_ptr() for part in held)
        number = float(pixels)
        self._call("follow", to_pair(*found), len(held[0]), number, share, *moved)
        for part, own in zip(running, held, strict=True):
            if own is not part:
                part.copy_(own)

    def norm_gradients(self, factors: Factors, sums: Sums | NormSums) -> tuple[Tensor, Tensor]:
        """The gradients of a BatchNorm's weight and bias."""
        weight, bias = torch.empty_like(factors.norm.scale), torch.empty_like(factors.norm.scale)
        inverse, into = factors.inverse.data_ptr(), (weight.data_ptr(), bias.data_ptr())
        given = to_pair(sums.gradient, sums.product)
        self._call("norm_gradients", given, len(weight), inverse, *into)
        return weight, bias

    def correction(
        self,
        factors: Factors,
        sums: Sums | NormSums,
        pixels: Pixels,
        into: Correction | None = None,
    ) -> Correction:
        """What one reader's BatchNorm adds to the correction of what it has read."""
        channels = len(factors.mean)
        found = into or Correction(*torch.zeros((2, channels), **_OF_DOUBLES).unbind())
        held = (factors.mean, factors.inverse, factors.scale)
        self._call(
            "correction",
            to_pair(sums.gradient, sums.product),
            channels,
            float(pixels),
            *(part.data_ptr() for part in held),
            to_pair(*found),
        )
        return found

    def _joined(self, one: Tensor, other: Tensor) -> Tensor:
        """A map of the channels of both."""
        images, height, width, channels = one.shape
        whole = channels + other.shape[3]
        both = self.new_map(images, height, width, whole, dtype=one.dtype)
        return torch.cat([one, other], 3, out=both)

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
        found = new_moments(out.shape[-1]) if statistics else None
        held = weight.detach().contiguous()
        self._call(
            name,
            to_maps(x),
            is_halved(x),
            to_norms(norm),
            held.data_ptr(),
            *options,
            to_maps(out),
            *ending,
            to_pair(*found) if found else to_pair(None, None),
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
        sums = Sums(torch.empty_like(held), *new_moments(x.shape[-1]))
        given = Gradients(to_maps(gradient.data))
        if gradient.more is not None:
            assert gradient.correction is None
            given.more = to_maps(gradient.more)
        if gradient.correction is not None:
            assert gradient.outputs is not None
            given.halved = is_halved(gradient.outputs)
            constant, slope = (part.float() for part in gradient.correction)
            given.constant, given.slope = constant.data_ptr(), slope.data_ptr()
            given.outputs = to_maps(gradient.outputs)
        self._call(
            name,
            to_maps(x),
            is_halved(x),
            to_norms(norm),
            held.data_ptr(),
            *options,
            given,
            to_maps(into),
            add,
            sums.weight.data_ptr(),
            to_pair(sums.gradient, sums.product),
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

"""What is in the way of an engine on this machine, for this subject, for what is asked of it.

Looking imports neither torch nor any runtime, but where there is an NVIDIA GPU; our kernels are
opened (`machine.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from densepath.bundle.bundle import Bundle
from densepath.bundle.formats import RUNTIMES, Runtime, named
from densepath.bundle.other_formats import how_to_get
from densepath.engines import forks
from densepath.engines.machine import torch_has_gpu
from densepath.engines.request import AUTO, EngineRequest
from densepath.errors import (
    BundleError,
    DensepathError,
    EngineError,
    MissingPackageError,
    UnknownNameError,
    UsageError,
)


def find_runtime(name: str) -> Runtime:
    """The engine's row.

    Raises:
        UnknownNameError: there is no such engine.
    """
    if name not in RUNTIMES:
        raise UnknownNameError("engine", name, (AUTO, *RUNTIMES))
    return RUNTIMES[name]


def obstacle(row: Runtime, request: EngineRequest, bundle: Bundle | None) -> DensepathError | None:
    """What is in the way of an engine; nothing if it can answer."""
    for error in _obstacles(row, request, bundle):
        if error is not None:
            return error
    return None


def first_sentence(error: DensepathError) -> str:
    """What is in the way, without the cure."""
    return str(error).split(". ")[0].rstrip(".")


def way_out(errors: Sequence[DensepathError], bundle: Bundle | None) -> str:
    """What lets some engine answer where all of them are kept from it; empty where nothing does.

    A package for a format that is there, else a bundle with a format that needs none.
    """
    lacking = [error for error in errors if isinstance(error, MissingPackageError)]
    if lacking:
        return f"For {lacking[0].package}: {lacking[0]}"
    if bundle is None:
        return ""
    there, precision = bundle.manifest.formats, bundle.manifest.precision
    if precision == "float32":
        return how_to_get("torch", there=there) if "torch" not in there else ""
    if "native" not in there:
        return how_to_get("native", there=there, precision=precision)
    return ""


def explain_obstacle(bundle: Bundle | None) -> DensepathError | None:
    """What is in the way of explanations, which PyTorch makes from float weights; nothing if none.

    Whatever engine answers, and whatever has been compiled, does not change it.
    """
    if find_spec("torch") is None:
        return EngineError("explaining takes PyTorch, which is not installed. pip install torch")
    if bundle is None:
        return None
    if bundle.manifest.precision != "float32":
        return UsageError(
            f"{bundle.folder} is quantised to {bundle.manifest.precision}: it has no float weights "
            "to take gradients of. Explain with the checkpoint or float bundle that it was made "
            f"of ({bundle.manifest.source['subject']})."
        )
    if "torch" not in bundle.manifest.formats:
        there = sorted(bundle.manifest.formats)
        return UsageError(
            f"{bundle.folder} has no torch format, from which explanations are made; it has "
            f"{', '.join(there)}. {how_to_get('torch', there=there)}"
        )
    return None


def _obstacles(
    row: Runtime, request: EngineRequest, bundle: Bundle | None
) -> Iterator[DensepathError | None]:
    """The checks, the cheap ones first."""
    yield _wrong_use(row, request)
    yield _missing_format(row, bundle)
    yield _fixed_graph(row, request, bundle)
    for package, extra in row.packages:
        if find_spec(package) is None:
            yield MissingPackageError(package, extra)
    yield _missing_machine(row, request, bundle)


def _wrong_use(row: Runtime, request: EngineRequest) -> UsageError | None:
    """What the engine never does."""
    if request.precision not in row.arithmetic:
        able = [one.name for one in RUNTIMES.values() if request.precision in one.arithmetic]
        return UsageError(
            f"the engine {row.name!r} computes in {' and '.join(row.arithmetic)}, not in "
            f"{request.precision}. Engines that do: {', '.join(able)}."
        )
    if request.explains and not row.explains:
        other = next(one.name for one in RUNTIMES.values() if one.explains)
        return UsageError(f"the engine {row.name!r} cannot explain its answers; {other!r} can.")
    if request.mean_max and not row.pools:
        other = next(one.name for one in RUNTIMES.values() if one.pools)
        return UsageError(f"the engine {row.name!r} pools by the mean; {other!r} can mean-max.")
    if (
        row.gpu is not None
        and row.gpu != request.device.startswith("cuda")
        and request.device != AUTO
    ):
        kind = "an NVIDIA GPU" if row.gpu else "the CPU"
        return UsageError(
            f"the engine {row.name!r} computes on {kind}, not on {request.device!r}. "
            "Name another device, or --engine eager."
        )
    return None


def _missing_format(row: Runtime, bundle: Bundle | None) -> DensepathError | None:
    """What the subject lacks."""
    if bundle is None:
        if row.format == "torch":
            return None
        return UsageError(
            f"the engine {row.name!r} reads the format {row.format} of bundles, and the subject is "
            f"none. {how_to_get(row.format)}"
        )
    try:
        bundle.path_of(row.format_in(bundle.manifest.precision) or row.format)
    except BundleError as error:
        return error
    return None


def _fixed_graph(row: Runtime, request: EngineRequest, bundle: Bundle | None) -> UsageError | None:
    """Whether the images would not fit the bundle's graph."""
    if bundle is None or row.free_size or request.size is None:
        return None
    height, width = bundle.manifest.input.shape[2:]
    if all(made in (None, side) for made, side in zip((height, width), request.size, strict=True)):
        return None
    other = " Or take one that fits any size: --engine eager."
    return UsageError(
        f"the graphs of this bundle are for images of {height} × {width} pixels, not of "
        f"{request.size[0]} × {request.size[1]}. {_graph_of_size(bundle, request.size)}"
        f"{other if 'torch' in bundle.manifest.formats else ''}"
    )


def _graph_of_size(bundle: Bundle, size: tuple[int, int]) -> str:
    """The commands that make the bundle anew for images of that size."""
    height, width = size
    formats = ",".join(sorted(bundle.manifest.formats))
    if bundle.manifest.precision != "float32":
        if height != width:
            return "A checkpoint of that size, quantised, makes one for them."
        return (
            f"Make one for them: densepath export SUBJECT --to torch --size {height} -o FLOAT, "
            "and of that: densepath quantize FLOAT --data DATA -o DIR."
        )
    if height != width:
        return f"Export any size: densepath export SUBJECT --to {formats} --dynamic-size -o DIR."
    return f"Export it for them: densepath export SUBJECT --to {formats} --size {height} -o DIR."


def _missing_machine(
    row: Runtime, request: EngineRequest, bundle: Bundle | None
) -> DensepathError | None:
    """What this machine lacks."""
    error = _lost_to_fork(row, request)
    if error is not None:
        return error
    if row.gpu is False and request.engine == AUTO and request.device == AUTO and torch_has_gpu():
        return EngineError("it leaves the GPU idle")
    if row.check is None:
        return None
    found: DensepathError | None = named(row.check)(row, request, bundle)
    return found


def _lost_to_fork(row: Runtime, request: EngineRequest) -> EngineError | None:
    """Whether the engine would wait for what only a process has that this one was forked from."""
    on_gpu = row.gpu or (row.gpu is None and request.device.startswith("cuda"))
    if on_gpu and forks.has_inherited_gpu():
        return EngineError(
            f"the engine {row.name!r} cannot use the GPU here: this process was forked from one "
            f"that did. {forks.CURE}"
        )
    if row.openmp and forks.is_inherited("torch"):
        return EngineError(
            f"the engine {row.name!r} cannot compute here: this process was forked from one that "
            f"had imported PyTorch, and would wait for the threads there. {forks.CURE} Or name "
            "another engine: native or eager where there is the format torch."
        )
    return None

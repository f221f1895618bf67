"""`densepath.load`: what a user names → the engine that suits it → a predictor.

PyTorch is imported only for the engines that are PyTorch's, and for subjects that are not bundles.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from densepath.bundle.bundle import Bundle, is_bundle
from densepath.engines import forks
from densepath.engines.choose import Choice, choose
from densepath.engines.engine import Engine, Precision
from densepath.engines.modes import Mode, count_streams
from densepath.engines.obstacles import Wish, explain_obstacle, find_row
from densepath.engines.predictor import Predictor
from densepath.engines.source import Source, name_of_checkpoint
from densepath.errors import UnknownNameError, UsageError, check_count
from densepath.models.spec import to_sides
from densepath.preprocess import Preprocess

if TYPE_CHECKING:
    from densepath.bundle.manifest import Manifest
    from densepath.engines.native import Tensors
    from densepath.models.spec import ModelSpec
    from densepath.weights.checkpoint import Checkpoint

TestPooling = Literal["mean", "mean_max"]


def load(
    subject: str | Path | Bundle | Checkpoint,
    *,
    engine: str = "auto",
    mode: Mode = "auto",
    device: str = "auto",
    precision: Precision = "float32",
    size: int | tuple[int, int] | None = None,
    crop_share: float | None = None,
    test_pooling: TestPooling = "mean",
    threads: int | None = None,
    explains: bool = False,
    num_images: int | None = None,
) -> Predictor:
    """A predictor for a bundle, a published name, a checkpoint file or a run folder.

    Args:
        subject: for example `bundles/pets`, `timm/densenet121.ra_in1k`, `x.safetensors` or
            `runs/digits`; or an open Bundle or Checkpoint.
        engine: `auto`, or a name of docs/engines.md; `Predictor.choice` says what was chosen.
        mode: `latency` has all cores on an image, `throughput` an image on each core; `auto`
            has whichever suits what is asked of it.
        device: `auto` (a GPU when there is one), `cpu`, `cuda:0`.
        precision: `float32` or `bfloat16`.
        size: side of the input in pixels, or height and width; the subject's by default.
        crop_share: the share of the short side that the centre crop keeps; the subject's.
        test_pooling: `mean`, or `mean_max` at sizes above the training size.
        threads: CPU threads of the network; by default one a usable core. For PyTorch's engines
            they are those of the whole process.
        explains: take an engine that explains its answers itself. Every predictor has `explain`;
            without this the one that answers soonest may open PyTorch beside it for that.
        num_images: how many images will be answered, for `auto`; unknown by default.

    Raises:
        BundleError: a bundle that cannot be opened, was changed, or lacks what the engine reads.
        CheckpointError, UnknownNameError, WeightsUnavailableError: no such weights.
        UsageError: an engine that cannot do what is asked; no such device; an impossible size.
        EngineError, MissingPackageError: this machine lacks what the engine needs.
    """
    count_streams(mode, threads)  # a wrong one is refused before anything is read
    if num_images is not None:
        check_count("num_images", num_images)
    sides = None if size is None else to_sides(size)
    if crop_share is not None and not isinstance(crop_share, int | float):
        raise UsageError(f"crop_share is {crop_share!r}; it must be a number in (0, 1].")
    if test_pooling not in get_args(TestPooling):
        raise UnknownNameError("test pooling", test_pooling, get_args(TestPooling))
    if mode == "auto" and num_images == 1:
        mode = "latency"
    wish = Wish(
        *(engine, mode, device, precision, sides, threads),
        mean_max=test_pooling == "mean_max",
        explains=explains,
        num_images=num_images,
    )
    if isinstance(subject, str | PathLike) and is_bundle(subject):
        subject = Bundle.open(Path(subject).resolve())
    if isinstance(subject, Bundle):
        return open_source(Source(subject, None, wish, crop_share, choose(wish, subject)))
    from densepath.weights.checkpoint import Checkpoint
    from densepath.weights.subject import open_checkpoint

    # What is none is said before what an engine would need.
    name = None if isinstance(subject, Checkpoint) else name_of_checkpoint(subject)
    choice = choose(wish, None)
    return open_source(Source(open_checkpoint(subject), name, wish, crop_share, choice))


def open_source(source: Source) -> Predictor:
    """The predictor of a source; of a bundle the files that its engine reads are verified first.

    Raises:
        DensepathError: what `load` raises.
    """
    held, wish, choice = source.held, source.wish, source.choice
    preprocess = _at_size(
        held.manifest.preprocess if isinstance(held, Bundle) else held.preprocess,
        wish,
        source.crop_share,
    )
    if isinstance(held, Bundle):
        made = _open_bundle(held, wish, preprocess, choice)
        labels, multi_label = held.manifest.labels, held.manifest.multi_label
    else:
        made = _open_checkpoint(choice.engine, held, wish, preprocess)
        labels, multi_label = held.labels, held.multi_label
    return Predictor(
        *(made, preprocess, labels),
        multi_label=multi_label,
        choice=choice,
        # A checkpoint's memory is kept for it: its file may be written anew by then.
        open_explainer=lambda: _open_explainer(held, wish, preprocess),
        source=source,
    )


def _open_bundle(bundle: Bundle, wish: Wish, preprocess: Preprocess, choice: Choice) -> Engine:
    """The chosen engine on a bundle's files, which are verified first."""
    format = find_row(choice.engine).format_in(bundle)
    bundle.verify(format)
    model = bundle.path_of(format)
    graph = _open_graph(choice.engine, model, bundle.manifest, wish)
    return graph or _open_weights(choice.engine, model, wish, preprocess)


def _open_explainer(held: Bundle | Checkpoint, wish: Wish, preprocess: Preprocess) -> Engine:
    """PyTorch on a checkpoint in memory, or on a bundle's weights, which are verified first.

    Raises:
        UsageError: it has no float weights.
        BundleError: they were changed.
    """
    if not isinstance(held, Bundle):
        return _open_checkpoint("eager", held, wish, preprocess)
    error = explain_obstacle(held)
    if error is not None:
        raise error
    held.verify("torch")
    return _open_weights("eager", held.path_of("torch"), wish, preprocess)


def _at_size(preprocess: Preprocess, wish: Wish, crop_share: float | None) -> Preprocess:
    """The preprocessing at the size that is wished for."""
    if wish.size is None and crop_share is None:
        return preprocess
    return preprocess.at_size(wish.size or preprocess.size, crop_share)


def _open_graph(name: str, model: Path, manifest: Manifest, wish: Wish) -> Engine | None:
    """An engine that reads an exported graph; None for one that reads weights."""
    int8 = manifest.precision == "int8"
    precision: Precision = "int8" if int8 else wish.precision
    if name == "openvino":
        from densepath.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model, precision=precision, mode=wish.mode, threads=wish.threads)
    if name in ("onnxruntime", "cuda", "tensorrt"):
        from densepath.engines.onnxruntime import OnnxRuntimeEngine

        provider: Any = name
        return OnnxRuntimeEngine(
            *(model,), provider=provider, precision=precision, mode=wish.mode, threads=wish.threads
        )
    _, channels, height, width = manifest.input.shape
    size = (height, width) if height is not None and width is not None else None
    if name in ("executorch", "litert"):
        return _open_edge(name, model, manifest, precision, wish)
    if name == "aoti":
        from densepath.engines.aoti import AotiEngine

        return AotiEngine(
            model,
            in_channels=channels or manifest.preprocess.channels,
            num_classes=len(manifest.labels),
            size=size,
            mode=wish.mode,
        )
    return None


def _open_edge(
    name: str, model: Path, manifest: Manifest, precision: Precision, wish: Wish
) -> Engine:
    """An engine that phones have, too; its graph takes images of one size."""
    preprocess = manifest.preprocess
    options: dict[str, Any] = {
        "in_channels": preprocess.channels,
        "num_classes": len(manifest.labels),
        "size": preprocess.size,
        "precision": precision,
        "mode": wish.mode,
        "threads": wish.threads,
    }
    if name == "litert":
        from densepath.engines.litert import LiteRtEngine

        return LiteRtEngine(model, preprocess=preprocess, **options)
    from densepath.engines.executorch import ExecutorchEngine

    return ExecutorchEngine(model, **options)


def _open_weights(name: str, model: Path, wish: Wish, preprocess: Preprocess) -> Engine:
    """An engine on the checkpoint file of a bundle; our own kernels read it without PyTorch."""
    if name == "native":
        from densepath.engines.native import read_tensors

        spec, in_channels, tensors = read_tensors(model)
        spec.check_size(preprocess.size)
        return _open_native(spec, tensors, in_channels, wish, preprocess)
    from densepath.weights.checkpoint import Checkpoint

    return _open_checkpoint(name, Checkpoint.load(model), wish, preprocess)


def _open_checkpoint(
    name: str, checkpoint: Checkpoint, wish: Wish, preprocess: Preprocess
) -> Engine:
    """An engine on a checkpoint in memory."""
    checkpoint.spec.check_size(preprocess.size)
    if name == "native":
        tensors = {key: tensor.numpy() for key, tensor in checkpoint.tensors.items()}
        return _open_native(checkpoint.spec, tensors, checkpoint.in_channels, wish, preprocess)
    import torch

    from densepath.engines.compiled import CompiledEngine
    from densepath.engines.eager import EagerEngine, settle_in_child

    if forks.is_inherited("torch"):
        settle_in_child()
    elif wish.threads is not None:
        torch.set_num_threads(wish.threads)
    model = checkpoint.to_model()
    model.test_pooling = "mean_max" if wish.mean_max else "mean"
    if name == "compiled":
        return CompiledEngine(model, device=wish.device, precision=wish.precision, mode=wish.mode)
    return EagerEngine(
        model,
        device=wish.device,
        precision=wish.precision,
        mode=wish.mode,
        size=preprocess.size,
    )


def _open_native(
    spec: ModelSpec, tensors: Tensors, in_channels: int, wish: Wish, preprocess: Preprocess
) -> Engine:
    """Our own kernels on a network's tensors."""
    from densepath.engines.native import NativeEngine

    return NativeEngine(
        spec,
        tensors,
        num_classes=len(tensors["classifier.bias"]),
        in_channels=in_channels,
        size=preprocess.size,
        threads=wish.threads,
        mode=wish.mode,
    )

"""`densepath.load`: what a user names → the engine that suits it → a predictor.

PyTorch is imported only for the engines that are PyTorch's, and for subjects that are not bundles.
"""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from densepath.bundle.bundle import Bundle, is_bundle
from densepath.bundle.formats import RUNTIMES, Runtime
from densepath.choices import TestAugmentation, TestPooling
from densepath.engines.choose import Choice, choose
from densepath.engines.engine import Engine, Explainer
from densepath.engines.modes import Mode, count_streams
from densepath.engines.obstacles import explain_obstacle
from densepath.engines.opening import Opening, open_runtime
from densepath.engines.request import AUTO, AskedPrecision, EngineRequest
from densepath.errors import UnknownNameError, UsageError, check_count
from densepath.images.preprocess import Preprocess
from densepath.images.views import make_views
from densepath.models.spec import to_sides
from densepath.predict.predictor import Predictor
from densepath.predict.source import Source, name_of_checkpoint
from densepath.predict.viewing import check_mirrors, with_views

if TYPE_CHECKING:
    from densepath.weights.checkpoint import Checkpoint


def load(
    subject: str | Path | Bundle | Checkpoint,
    *,
    engine: str = "auto",
    mode: Mode = "auto",
    device: str = "auto",
    precision: AskedPrecision = "auto",
    size: int | tuple[int, int] | None = None,
    crop_share: float | None = None,
    test_pooling: TestPooling = "mean",
    tta: TestAugmentation = "none",
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
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 on our kernels where this processor
            has instructions for it and the bundle's report shows that it answers alike, else
            float32; `Predictor.choice` says what was taken and why.
        size: side of the input in pixels, or height and width; the subject's by default.
        crop_share: the share of the short side that the centre crop keeps; the subject's.
        test_pooling: `mean`, or `mean_max` at sizes above the training size.
        tta: test-time augmentation: the mean logits of an image and its mirror (`flip`), of its
            centre and four corners (`five-crop`), or of both; so many times the work. Such a
            predictor does not explain.
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
    if tta not in get_args(TestAugmentation):
        raise UnknownNameError("test-time augmentation", tta, get_args(TestAugmentation))
    if tta != "none" and explains:
        raise UsageError(
            f"explanations and features are of one view of an image; leave --tta {tta} out."
        )
    if mode == "auto" and num_images == 1:
        mode = "latency"
    request = EngineRequest(
        engine,
        mode,
        device,
        precision,
        sides,
        threads,
        mean_max=test_pooling == "mean_max",
        explains=explains,
        num_images=num_images,
    )
    if isinstance(subject, str | PathLike) and is_bundle(subject):
        subject = Bundle.open(Path(subject).resolve())
    if isinstance(subject, Bundle):
        choice = choose(request, subject)
        return open_source(Source(subject, None, request, crop_share, choice, tta))
    from densepath.weights.checkpoint import Checkpoint
    from densepath.weights.subject import open_checkpoint

    # What is none is said before what an engine would need.
    name = None if isinstance(subject, Checkpoint) else name_of_checkpoint(subject)
    choice = choose(request, None)
    checkpoint = open_checkpoint(subject)
    check_mirrors(tta, checkpoint.trained_on.source if checkpoint.trained_on else None)
    return open_source(Source(checkpoint, name, request, crop_share, choice, tta))


def open_source(source: Source) -> Predictor:
    """The predictor of a source; of a bundle the files that its engine reads are verified first.

    Raises:
        DensepathError: what `load` raises.
    """
    held, request, choice = source.held, source.request, source.choice
    preprocess = _at_size(
        held.manifest.preprocess if isinstance(held, Bundle) else held.preprocess,
        request,
        source.crop_share,
    )
    make_views(source.tta, preprocess)  # views that cannot be are said before an engine is opened
    opening = _opening(held, request, choice, preprocess)
    made = _open_chosen(held, opening, choice)
    about = held.manifest if isinstance(held, Bundle) else held
    return Predictor(
        with_views(made, source.tta),
        about.labels,
        multi_label=about.multi_label,
        thresholds=about.thresholds,
        temperature=about.temperature,
        choice=choice,
        # A checkpoint's memory is kept for it: its file may be written anew by then.
        open_explainer=lambda: _open_explainer(held, _to_explain(opening, request)),
        source=source,
    )


def _opening(
    held: Bundle | Checkpoint, request: EngineRequest, choice: Choice, preprocess: Preprocess
) -> Opening:
    """The network as it is asked for; of a bundle its file is still to be named."""
    options: dict[str, Any] = {"precision": choice.precision, "mode": request.mode}
    options |= {"threads": request.threads, "device": request.device, "mean_max": request.mean_max}
    if not isinstance(held, Bundle):
        sizes = held.in_channels, held.num_classes
        return Opening(None, preprocess, *sizes, checkpoint=held, **options)
    manifest = held.manifest
    _, channels, height, width = manifest.input.shape
    return Opening(
        None,
        preprocess,
        channels or manifest.preprocess.channels,
        len(manifest.labels),
        size=None if height is None or width is None else (height, width),
        **options,
    )


def _to_explain(opening: Opening, request: EngineRequest) -> Opening:
    """The same for PyTorch: a bundle's report on bfloat16 is not about it."""
    return replace(opening, precision="float32") if request.precision == AUTO else opening


def _open_chosen(held: Bundle | Checkpoint, opening: Opening, choice: Choice) -> Engine:
    """The chosen engine; the files of a bundle that it reads are verified first."""
    row = RUNTIMES[choice.engine]
    if not isinstance(held, Bundle):
        return open_runtime(row, opening)
    return _open_file(held, row, row.format_in(held.manifest.precision) or row.format, opening)


def _open_explainer(held: Bundle | Checkpoint, opening: Opening) -> Explainer:
    """An engine that explains, on a checkpoint in memory or on a bundle's verified weights.

    Raises:
        UsageError: it has no float weights.
        BundleError: they were changed.
    """
    row = next(row for row in RUNTIMES.values() if row.explains)
    if isinstance(held, Bundle):
        error = explain_obstacle(held)
        if error is not None:
            raise error
        engine = _open_file(held, row, row.format, opening)
    else:
        engine = open_runtime(row, opening)
    assert isinstance(engine, Explainer)
    return engine


def _open_file(bundle: Bundle, row: Runtime, format: str, opening: Opening) -> Engine:
    """The runtime's engine on the format's file, which is verified first."""
    bundle.verify(format)
    return open_runtime(row, replace(opening, model=bundle.path_of(format)))


def _at_size(
    preprocess: Preprocess, request: EngineRequest, crop_share: float | None
) -> Preprocess:
    """The preprocessing at the size that is asked for."""
    if request.size is None and crop_share is None:
        return preprocess
    return preprocess.at_size(request.size or preprocess.size, crop_share)

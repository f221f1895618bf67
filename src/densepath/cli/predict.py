"""`densepath predict`: images in, one answer each out, in order."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from densepath.choices import TOP_K, AnswerFormat, Mode, OnError
from densepath.cli import options, outputs
from densepath.cli.console import note
from densepath.cli.features import Collected
from densepath.cli.streams import input_lines
from densepath.cli.tally import AnswerTally
from densepath.errors import UsageError

if TYPE_CHECKING:
    from densepath.predict.answers import Prediction
    from densepath.predict.predictor import Explanation, Predictor


# What a shell reports for a program that Ctrl-C ended: 128 and SIGINT's number.
INTERRUPTED = 130


def predict(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="A bundle, a published name, a checkpoint file, a run folder, or a file of "
            "another system.",
        ),
    ],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images, folders (all images below them), lists (.txt), globs, or - for a list on "
            "standard input.",
        ),
    ],
    top_k: options.TopK = TOP_K,
    format: Annotated[
        AnswerFormat | None,
        typer.Option(
            help="How answers are written; by default as the suffix of --output says, or a table.",
            show_default=False,
        ),
    ] = None,
    json: options.JsonLines = False,
    csv: Annotated[bool, typer.Option("--csv", help="One CSV row an image.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=outputs.path, help="Write the answers to this file, whole or not at all."
        ),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=outputs.path,
            help="Write a Grad-CAM picture of each answer there.",
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            parser=outputs.path,
            help="Write each image's features there, a row of float32 each; the names of the "
            "images go into FILE.json.",
        ),
    ] = None,
    neighbours: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            parser=outputs.path,
            help="Draw some of the images with those that are nearest by their features.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="With --explain: this class, by name or number; each image's likeliest by "
            "default.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Of a multi-label network: above which score each class is a yes; by default what "
            "was chosen for each, where it was.",
            show_default=False,
        ),
    ] = None,
    on_error: Annotated[
        OnError,
        typer.Option(help="An unreadable image: answer with its error, or stop there."),
    ] = "skip",
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Download images named by http(s) addresses.")
    ] = False,
    size: options.Size = None,
    crop_pct: options.CropPct = None,
    test_pooling: options.Pooling = "mean",
    tta: options.Tta = "none",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images of one run; by the engine by default.")
    ] = None,
    engine: options.Engine = "auto",
    mode: Annotated[
        Mode,
        typer.Option(help="All cores on an image, or an image on each; auto by their number."),
    ] = "auto",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of the network; one a core by default.")
    ] = None,
) -> None:
    """Name what is in images: the likeliest classes of each, with scores, in order.

    Exits with 0 when an image was answered, and with 1 when none was or, with --on-error fail,
    when one could not be read, or with --explain when not one picture could be made.

    Example: densepath predict runs/digits photos/ --top-k 3 --json
    """
    from densepath.engines.request import MANY_IMAGES
    from densepath.images.find import STDIN, URLS_ALLOWED_BY, find_images
    from densepath.images.image_files import PassedOver
    from densepath.outputs import check_file, check_folder, is_stream
    from densepath.predict.answers import WRITERS
    from densepath.predict.feature_file import check_feature_file

    chosen = _choose_format(format, json, csv, output)
    if target is not None and explain is None:
        raise UsageError(f"--target {target} chooses what --explain DIR draws; name a folder, too.")
    embeds = features is not None or neighbours is not None
    if embeds and explain is not None:
        raise UsageError("--explain and --features (or --neighbours): one at a time.")
    for place in (output, neighbours):
        if place is not None:
            check_file(place)
    if features is not None:
        check_feature_file(features)
    if explain is not None and is_stream(explain):
        check_folder(explain)
    lines, passed_over = input_lines(), PassedOver()

    def find(*, values: bool, passed_over: PassedOver) -> Iterator[Any]:
        """The images that are named."""
        return find_images(
            paths,
            lines=lines,
            allow_urls=allow_urls,
            refusal=URLS_ALLOWED_BY,
            passed_over=passed_over,
            values=values,
        )

    # Before the network says which files it takes: all that any takes.
    found = find(values=True, passed_over=PassedOver())
    first = [] if STDIN in paths else list(itertools.islice(found, MANY_IMAGES))

    from densepath.predict.load import load
    from densepath.predict.viewing import describe_views

    predictor = load(
        subject,
        engine=engine,
        mode=mode,
        device=device,
        precision=precision,
        size=size,
        crop_share=crop_pct,
        test_pooling=options.to_pooling(test_pooling),
        tta=tta,
        threads=threads,
        explains=explain is not None or embeds,
        num_images=len(first) or None,
    )
    _check_channels(predictor)
    if threshold is not None:
        _decide(predictor, threshold)
    choice = predictor.choice
    if choice and (engine == "auto" or choice.precision_reason):
        note(str(choice))
    if predictor.views is not None:
        note(describe_views(predictor.views))
    found = find(values=predictor.preprocess.read_as.by_value, passed_over=passed_over)
    how: dict[str, Any] = {
        "top_k": min(top_k, len(predictor.labels)),
        "batch_size": batch_size,
        "live": STDIN in paths,
    }
    tally = AnswerTally(stop_at_failure=on_error == "fail")
    try:
        with predictor, ExitStack() as stack:
            if embeds:
                collected = Collected(predictor, features, neighbours, subject)
                answers = stack.enter_context(collected).answers(predictor.embed(found, **how))
            elif explain is None:
                answers = predictor.predict(found, **how)
            else:
                explanations = predictor.explain(found, target=target, **how)
                answers = _drawn(explanations, explain, tally)
            with _open_output(output) as file:
                tally.seen = file.isatty()
                counting = tally.counting(answers, show=not file.isatty())
                decides = predictor.thresholds is not None
                WRITERS[chosen](counting, file, how["top_k"], decides=decides)
                if decides and chosen == "table":
                    note("* above its class's threshold")
    except KeyboardInterrupt:
        note(f"interrupted after {tally.pace()}")
        raise typer.Exit(INTERRUPTED) from None
    if passed_over:
        note(str(passed_over))
    tally.report(explain)


def _decide(predictor: Predictor, threshold: float) -> None:
    """Let answers say which classes are above one threshold.

    Raises:
        UsageError: the network is not multi-label.
    """
    try:
        predictor.decide_at(threshold)
    except UsageError as error:
        predictor.close()
        raise UsageError(f"--threshold {threshold:g}: {error}") from error


def _check_channels(predictor: Predictor) -> None:
    """Raise unless files can be read for the network.

    Raises:
        UsageError: it takes more channels than files are read with.
    """
    from densepath.images.decode import MOST_CHANNELS

    channels = predictor.preprocess.channels
    if channels > MOST_CHANNELS:
        predictor.close()
        raise UsageError(
            f"the network takes {channels} channels; files are read with 1 to {MOST_CHANNELS}. In "
            f"Python, densepath.load(...).predict takes arrays [height, width, {channels}]."
        )


def _choose_format(
    format: AnswerFormat | None, json: bool, csv: bool, output: Path | None
) -> AnswerFormat:
    """The format that the options ask for.

    Raises:
        UsageError: they ask for two.
    """
    flags: dict[AnswerFormat, bool] = {"json": json, "csv": csv}
    asked = {name for name, wanted in flags.items() if wanted}
    if format is not None:
        asked.add(format)
    if len(asked) > 1:
        raise UsageError(f"one output format, please, not {' and '.join(sorted(asked))}.")
    suffixes: dict[str, AnswerFormat] = {".json": "json", ".jsonl": "json", ".csv": "csv"}
    by_suffix = suffixes.get(output.suffix.lower() if output else "", "table")
    return asked.pop() if asked else by_suffix


@contextmanager
def _open_output(path: Path | None) -> Iterator[TextIO]:
    """Standard output; or a file in UTF-8 that appears once all is written, a pipe, a device."""
    from densepath.files import open_output

    if path is None or outputs.is_stdout(path):
        yield sys.stdout
        sys.stdout.flush()
        return
    with open_output(path) as file:
        yield file


def _drawn(
    explanations: Iterator[Explanation], folder: Path, tally: AnswerTally
) -> Iterator[Prediction]:
    """The answers; a picture of each is in `folder` before the next is made, or it is counted."""
    from densepath.predict.pictures import explanation_name, save_explanation

    for index, explanation in enumerate(explanations):
        if explanation.prediction.error is None:
            path = folder / explanation_name(explanation, index)
            if save_explanation(explanation, path) is None:
                tally.drawn += 1
            else:
                tally.undrawn += 1
        yield explanation.prediction

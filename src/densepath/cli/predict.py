"""`densepath predict`: images in, one answer each out, in order."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from densepath.cli import outputs
from densepath.cli.console import NAMED_FAILURES, note, note_unreadable, stderr
from densepath.cli.options import EngineName
from densepath.cli.streams import input_lines
from densepath.errors import DataError, OutputError, UsageError
from densepath.wording import counted

if TYPE_CHECKING:
    from densepath.predict.answers import Format, Prediction
    from densepath.predict.predictor import Explanation, Predictor


# What a shell reports for a program that Ctrl-C ended: 128 and SIGINT's number.
INTERRUPTED = 130


class OutputFormat(StrEnum):
    """How answers are written."""

    table = "table"
    json = "json"
    csv = "csv"


class OnError(StrEnum):
    """What an image that cannot be read does."""

    skip = "skip"
    fail = "fail"


class Precision(StrEnum):
    """The type of the arithmetic."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class ModeName(StrEnum):
    """How the cores are used."""

    auto = "auto"
    latency = "latency"
    throughput = "throughput"


class Pooling(StrEnum):
    """How the last map becomes one vector."""

    mean = "mean"
    mean_max = "mean-max"


def predict(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="A bundle, a published name, a checkpoint file or a run folder.",
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
    top_k: Annotated[int, typer.Option(min=1, help="Classes in each answer.")] = 5,
    format: Annotated[
        OutputFormat | None,
        typer.Option(
            help="How answers are written; by default as the suffix of --output says, or a table.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
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
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="With --explain: this class, by name or number; each image's likeliest by "
            "default.",
            show_default=False,
        ),
    ] = None,
    on_error: Annotated[
        OnError,
        typer.Option(help="An unreadable image: answer with its error, or stop there."),
    ] = OnError.skip,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Download images named by http(s) addresses.")
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Side of the network's input in pixels; the subject's by default."
        ),
    ] = None,
    crop_pct: Annotated[
        float | None,
        typer.Option(help="Share of the short side that the crop keeps; the subject's."),
    ] = None,
    test_pooling: Annotated[
        Pooling, typer.Option(help="mean-max is for sizes above the training size.")
    ] = Pooling.mean,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images of one run; by the engine by default.")
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="What runs the network; auto says what it chose and why.")
    ] = "auto",
    mode: Annotated[
        ModeName,
        typer.Option(help="All cores on an image, or an image on each; auto by their number."),
    ] = ModeName.auto,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="The type of the arithmetic.")
    ] = Precision.float32,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of the network; one a core by default.")
    ] = None,
) -> None:
    """Name what is in images: the likeliest classes of each, with scores, in order.

    Exits with 0 when an image was answered, and with 1 when none was or, with --on-error fail,
    when one could not be read, or with --explain when not one picture could be made.

    Example: densepath predict runs/digits photos/ --top-k 3 --json
    """
    from densepath.engines.wish import MANY_IMAGES
    from densepath.images.find import STDIN, URLS_ALLOWED_BY, find_images
    from densepath.images.image_files import PassedOver
    from densepath.outputs import check_file, check_folder, is_stream
    from densepath.predict.answers import WRITERS

    chosen = _choose_format(format, json, csv, output)
    if target is not None and explain is None:
        raise UsageError(f"--target {target} chooses what --explain DIR draws; name a folder, too.")
    if output is not None:
        check_file(output)
    if explain is not None and is_stream(explain):
        check_folder(explain)
    passed_over = PassedOver()
    found: Iterator = find_images(
        paths,
        lines=input_lines(),
        allow_urls=allow_urls,
        refusal=URLS_ALLOWED_BY,
        passed_over=passed_over,
    )
    first = [] if STDIN in paths else list(itertools.islice(found, MANY_IMAGES))

    from densepath.predict.load import load

    predictor = load(
        subject,
        engine=engine,
        mode=mode.value,
        device=device,
        precision=precision.value,
        size=size,
        crop_share=crop_pct,
        test_pooling="mean_max" if test_pooling is Pooling.mean_max else "mean",
        threads=threads,
        explains=explain is not None,
        num_images=len(first) or None,
    )
    _check_channels(predictor)
    if engine == "auto":
        note(str(predictor.choice))
    found = itertools.chain(first, found)
    how: dict[str, Any] = {
        "top_k": min(top_k, len(predictor.labels)),
        "batch_size": batch_size,
        "live": STDIN in paths,
    }
    tally = _Tally(stop_at_failure=on_error is OnError.fail)
    try:
        with predictor:
            if explain is None:
                answers = predictor.predict(found, **how)
            else:
                explanations = predictor.explain(found, target=target, **how)
                answers = _drawn(explanations, explain, tally)
            with _open_output(output) as file:
                tally.seen = file.isatty()
                counting = tally.counting(answers, show=not file.isatty())
                WRITERS[chosen](counting, file, how["top_k"])
    except KeyboardInterrupt:
        note(f"interrupted after {tally.pace()}")
        raise typer.Exit(INTERRUPTED) from None
    if passed_over:
        note(str(passed_over))
    tally.report(explain)


def _check_channels(predictor: Predictor) -> None:
    """Returns when files can be read for the network.

    Raises:
        UsageError: it takes other channels than files are read with.
    """
    from densepath.images.decode import FILE_CHANNELS

    channels = predictor.preprocess.channels
    if channels not in FILE_CHANNELS:
        predictor.close()
        raise UsageError(
            f"the network takes {channels} channels; image files are read with 1 (gray) or 3 "
            f"(RGB). In Python, densepath.load(...).predict takes arrays [height, width, "
            f"{channels}]."
        )


def _choose_format(
    format: OutputFormat | None, json: bool, csv: bool, output: Path | None
) -> Format:
    """The format that the options ask for.

    Raises:
        UsageError: they ask for two.
    """
    asked = {name for name, wanted in (("json", json), ("csv", csv)) if wanted}
    if format is not None:
        asked.add(format.value)
    if len(asked) > 1:
        raise UsageError(f"one output format, please, not {' and '.join(sorted(asked))}.")
    suffixes: dict[str, Format] = {".json": "json", ".jsonl": "json", ".csv": "csv"}
    by_suffix = suffixes.get(output.suffix.lower() if output else "", "table")
    return asked.pop() if asked else by_suffix  # type: ignore[return-value]


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
    explanations: Iterator[Explanation], folder: Path, tally: _Tally
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


@dataclass
class _Tally:
    """Counts answers as they pass, and the first failures by name.

    `seen`: the answers, and with them the failures, are before the person's eyes.
    """

    stop_at_failure: bool
    seen: bool = False
    answered: int = 0
    failed: int = 0
    drawn: int = 0
    undrawn: int = 0
    named: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def counting(self, predictions: Iterator[Prediction], *, show: bool) -> Iterator[Prediction]:
        """The predictions, with a progress line on standard error if `show`.

        Raises:
            DataError: one is a failure and the user wants to stop there.
        """
        start = time.monotonic()
        with _progress_line(show and sys.stderr.isatty()) as say:
            for prediction in predictions:
                self._count(prediction)
                self.seconds = time.monotonic() - start
                say(self.pace())
                yield prediction

    def _count(self, prediction: Prediction) -> None:
        """One more."""
        if prediction.error is None:
            self.answered += 1
            return
        self.failed += 1
        if self.stop_at_failure:
            raise DataError(
                f"{prediction.path}: {prediction.error}. --on-error skip goes on after such "
                "images and answers with their error."
            )
        if len(self.named) < NAMED_FAILURES:
            self.named.append(f"{prediction.path}: {prediction.error}")

    def pace(self) -> str:
        """How many, and how fast."""
        total = self.answered + self.failed
        return f"{counted(total, 'image')}, {total / max(self.seconds, 1e-9):.1f} images/s"

    def report(self, pictures: Path | None) -> None:
        """What happened, on standard error.

        Raises:
            DataError: nothing was answered.
            OutputError: not one of the pictures could be made.
        """
        if not self.seen:
            note_unreadable(self.named, self.failed)
        if not self.answered:
            raise DataError(f"no image was answered; {self.failed:,} could not be read.")
        unread = f"; {self.failed:,} could not be read" if self.failed else ""
        note(f"{self.pace()}; {self.answered:,} answered{unread}")
        if pictures is None:
            return
        if not self.drawn:
            what = "the picture" if self.undrawn == 1 else f"none of the {self.undrawn:,} pictures"
            could = "could not" if self.undrawn == 1 else "could"
            raise OutputError(f"{what} {could} be made; see above.")
        missing = f"; {self.undrawn:,} could not be made" if self.undrawn else ""
        note(f"{counted(self.drawn, 'picture')} in {pictures}{missing}")


@contextmanager
def _progress_line(shown: bool) -> Iterator[Callable[[str], None]]:
    """A function that changes the text of a line on standard error, if it is to be shown."""
    if not shown:
        yield lambda text: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        task = progress.add_task("reading the first images")
        yield lambda text: progress.update(task, description=text)

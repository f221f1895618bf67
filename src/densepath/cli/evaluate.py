"""`densepath evaluate`: a network in any form and a labelled data set in, a report out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densepath.choices import EVALUATION_BATCH_SIZE, OnError
from densepath.cli import options, outputs
from densepath.cli.console import note, note_unreadable, print_json, stdout
from densepath.cli.data_options import DataSettings, read_data_fields

if TYPE_CHECKING:
    from densepath.evaluation.report import Report


def evaluate(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="A published name, a checkpoint file, a run folder, a bundle or an NPU's program.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, cifar10, a folder of class folders, a list file, a CSV or an archive. "
            "[default: what it was trained on]",
            show_default=False,
        ),
    ] = None,
    split: options.SplitOf = None,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=outputs.path, help="Write the report, its tables and pictures into this folder."
        ),
    ] = None,
    on_error: Annotated[
        OnError, typer.Option(help="An unreadable image: leave it out and name it, or stop there.")
    ] = "fail",
    missing_classes: options.Missing = "refuse",
    size: options.Size = None,
    crop_pct: options.CropPct = None,
    test_pooling: options.Pooling = "mean",
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Of the scores of a multi-label network; by default its own for each class, else "
            "0.5.",
            show_default=False,
        ),
    ] = None,
    choose_thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Choose a threshold for each class on these images and write them into the "
            "checkpoint: youden, f1, precision=0.9 or recall=0.9.",
            show_default=False,
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Fit a temperature on these images and write it into the checkpoint.",
        ),
    ] = False,
    save_checkpoint: Annotated[
        Path | None,
        typer.Option(
            parser=outputs.path,
            help="With these two: write a new checkpoint there; the one named stays as it is.",
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="The folder that a list's or CSV's paths start from; its own."),
    ] = None,
    path_column: Annotated[str | None, typer.Option(help="A CSV's column of files.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Its column of class names.")] = None,
    class_columns: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Its columns of 0 and 1, one a class."),
    ] = None,
    split_column: Annotated[str | None, typer.Option(help="Its column of splits.")] = None,
    settings: DataSettings = None,
    engine: options.Engine = "auto",
    precision: options.Precision = "float32",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images of one run.")
    ] = EVALUATION_BATCH_SIZE,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Measure a network on labelled images: accuracy, each class, confusion, calibration.

    The first line says how many of the images it was trained on. A run's own data is read as in
    its training, and its own held-out images are taken where it has no test images. A data set
    whose classes are not the checkpoint's is refused with the difference.

    Example: densepath evaluate runs/digits --data digits --output reports/digits
    """
    from densepath.evaluation.evaluate import evaluate as evaluate_subject
    from densepath.outputs import check_folder

    if output is not None:
        check_folder(output)
    chooses = choose_thresholds is not None or calibrate
    report = evaluate_subject(
        subject,
        data,
        split=split,
        size=size,
        crop_share=crop_pct,
        test_pooling=options.to_pooling(test_pooling),
        batch_size=batch_size,
        workers=workers,
        engine=engine,
        precision=precision,
        device=device,
        on_error=on_error,
        missing_classes=missing_classes,
        threshold=threshold,
        choose_thresholds=choose_thresholds,
        calibrate=calibrate,
        save_checkpoint=save_checkpoint,
        data_root=data_root,
        reading=read_data_fields(
            settings, _reading(path_column, label_column, class_columns, split_column)
        ),
        progress=True,
        say=note if engine == "auto" or chooses else lambda step: None,
    )
    saved = "" if output is None else _saved(output, *report.write(output))
    if json:
        print_json(report.to_dict())
    else:
        _print_figures(report)
    unreadable = [f"{path}: {reason}" for path, reason in report.skipped]
    note_unreadable(unreadable, len(unreadable))
    if saved:
        note(saved)


def _saved(folder: Path, drawn: int, wanted: int) -> str:
    """What of a report is in the folder; why a picture is not has been said."""
    if drawn == wanted:
        return f"report, tables and pictures in {folder}"
    if not drawn:
        return f"report and tables in {folder}, without pictures"
    return f"report, tables and {drawn} of {wanted} pictures in {folder}"


def _reading(
    path_column: str | None, label_column: str | None, class_columns: str | None, split: str | None
) -> dict[str, Any]:
    """The options on a CSV's columns that were given."""
    columns = class_columns and tuple(name.strip() for name in class_columns.split(","))
    given = {
        "path_column": path_column,
        "label_column": label_column,
        "class_columns": columns,
        "split_column": split,
    }
    return {name: value for name, value in given.items() if value}


def _print_figures(report: Report) -> None:
    """Print the overall figures and the weakest classes as tables."""
    from rich.table import Table

    from densepath.evaluation.report import shown
    from densepath.predict.answers import LABEL_WIDTH
    from densepath.wording import printable, shorten

    overall = Table(box=None, show_header=False, pad_edge=False)
    overall.add_column(style="bold")
    overall.add_column(justify="right")
    for name, value in report.shown_figures().items():
        overall.add_row(name.replace("_", " "), value)
    overall.add_row("images", f"{report.images:,}")
    overall.add_row("could not be read", f"{len(report.skipped):,}")
    overall.add_row("images/s", f"{report.images_per_second:.1f}")
    about = printable(str(report.overlap))
    stdout().print(about, markup=False, highlight=False, soft_wrap=True)
    stdout().print(f"{report.subject} on {report.data}", markup=False, highlight=False)
    stdout().print(f"answered by {report.answered_by()}", markup=False, highlight=False)
    stdout().print(overall)
    rows = [row for row in report.per_class if row["f1"] is not None and row["support"]]
    weakest = sorted(rows, key=lambda row: row["f1"])[:5]
    classes = Table(box=None, pad_edge=False, header_style="bold")
    ends = ("_low", "_high")
    names = [n for n in report.per_class[0] if n != "label" and not n.endswith(ends)]
    classes.add_column("weakest classes")
    for name in names:
        classes.add_column(name.replace("_", " "), justify="right")
    for row in weakest:
        classes.add_row(
            shorten(printable(row["label"]), LABEL_WIDTH),
            *(f"{row[n]:,}" if isinstance(row[n], int) else shown(n, row[n]) for n in names),
        )
    stdout().print(classes)

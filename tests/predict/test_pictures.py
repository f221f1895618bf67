"""What the pictures show, with names, numbers and settings as bad as they come."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Patch
from PIL import Image

from densepath import notes
from densepath.drawing.picture import BLUE, RED, plain_matplotlib, save_picture
from densepath.evaluation import figures, ladder_figure
from densepath.evaluation.ladder import Ladder, Rung
from densepath.evaluation.measured import Overlap
from densepath.evaluation.mistake import Mistake
from densepath.evaluation.report import Report
from densepath.images.preprocess import Preprocess
from densepath.metrics import metrics
from densepath.npu.description import CompiledFor, Description, OperatorPlacement
from densepath.npu.estimate import Estimate, NotCounted, OperatorCost
from densepath.npu.figure import draw_profile
from densepath.npu.layout import Layout
from densepath.npu.profile import Profile
from densepath.quantize import figure as sensitivity
from densepath.quantize.sensitivity import Sensitivity
from densepath.training.curves import draw_curves
from densepath.training.epochs import EpochRow

NOT_SEEN = Overlap(images=60, trained_on=0, chosen_by=0)
NAMES = ["$x^$", "a\\b", "[/]", "|`<b>", "new\nline", "", "_under_", "日本", "قطة", "y" * 300]


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch):
    monkeypatch.setattr(notes, "_said", set())


def report(labels, num_images=200, share_right=0.8, **changes):
    """A report on answers that are drawn at random."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, len(labels), num_images)
    answers = np.where(
        rng.random(num_images) < share_right, targets, rng.integers(0, len(labels), num_images)
    )
    matrix = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(matrix, (targets, answers), 1)
    wrong = np.flatnonzero(targets != answers)[:16]
    image = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    mistakes = [
        Mistake(f"some/$photo_{i}^.png", labels[targets[i]], labels[answers[i]], 0.9, 2.0, image)
        for i in wrong
    ]
    made = Report(
        subject="runs/$a_b$",
        data="$d^ata | test",
        labels=list(labels),
        images=num_images,
        skipped=[],
        figures={"top1": 0.8, "top5": 1.0, "loss": 0.5, "calibration_error": 0.1},
        per_class=metrics.per_class(matrix, labels),
        confusion=matrix,
        reliability=[
            metrics.Bin(0.0, 0.5, 3, 0.4, 0.2),
            metrics.Bin(0.5, 1.0, num_images - 3, 0.8, 0.9),
        ],
        mistakes=mistakes,
        settings={"split": "test", "size": [32, 32]},
        images_per_second=1.0,
    )
    return dataclasses.replace(made, **changes)


def texts_of(draw):
    """All texts of the figure, as they are drawn."""
    from matplotlib.text import Text

    with plain_matplotlib():
        figure = draw()
        figure.draw_without_rendering()
        return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("labels", [NAMES, NAMES[:1], NAMES[:2], [f"c{i}" for i in range(70)]])
def test_a_report_with_any_names_has_all_its_pictures(labels, tmp_path, caplog):
    report(labels, num_images=200).save(tmp_path)
    wanted = {"confusion.png", "reliability.png", "per_class.png"}
    if len(labels) > 1:
        wanted.add("mistakes.png")
    assert {path.name for path in tmp_path.glob("*.png")} == wanted
    assert not [r for r in caplog.records if "no picture" in r.getMessage()]


def test_a_picture_that_fails_leaves_the_rest_of_the_report(tmp_path, monkeypatch, caplog):
    def fail(report):
        raise MemoryError

    broken = [dataclasses.replace(one, draw=fail) for one in figures.PICTURES[:1]]
    monkeypatch.setattr(figures, "PICTURES", (*broken, *figures.PICTURES[1:]))
    report(NAMES).save(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["top1"] == 0.8
    assert (tmp_path / "confusion.csv").is_file()
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "confusion.png" not in readme
    assert "(reliability.png)" in readme
    assert any("confusion.png: not enough memory" in r.getMessage() for r in caplog.records)


def test_the_readme_says_how_to_read_each_picture_and_names_classes_as_they_stand(tmp_path):
    report(NAMES).save(tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    drawn = [picture for picture in figures.PICTURES if picture.has_data(report(NAMES))]
    assert len(drawn) > 3
    for picture in drawn:
        assert f"{picture.words}\n\n![{picture.title}]({picture.file})" in text
    table = [line for line in text.splitlines() if line.startswith("|") and " % |" in line]
    unescaped = [line.replace("\\|", "") for line in table]
    assert {line.count("|") for line in unescaped} <= {3, 5}
    assert "# runs/\\$a_b\\$ on \\$d^ata \\| test" in text


def test_classes_with_one_name_keep_their_columns(tmp_path):
    """As ImageNet's two cranes."""
    matrix = np.array([[5, 1, 0], [0, 6, 2], [3, 0, 7]])
    labels = ["crane", "dog", "crane"]
    rows = metrics.per_class(matrix, labels)
    report(labels, confusion=matrix, per_class=rows).save(tmp_path)
    lines = (tmp_path / "confusion.csv").read_text().splitlines()
    assert lines == ["true,crane,dog,crane", "crane,5,1,0", "dog,0,6,2", "crane,3,0,7"]


@pytest.mark.parametrize(("classes", "tells"), [(2, False), (5, False), (6, True)])
def test_top5_is_shown_where_there_are_more_than_five_classes(classes, tells, tmp_path):
    made = report([f"c{i}" for i in range(classes)])
    assert ("top5" in made.shown_figures()) is tells
    assert made.to_dict()["top5"] == 1.0
    assert ("| top5 |" in made._readme([])) is tells


def test_the_confusion_matrix_explains_its_scale_and_what_is_grey():
    labels = [f"c{i}" for i in range(3)]
    matrix = np.array([[5, 1, 0], [0, 6, 2], [0, 0, 0]])
    texts = texts_of(lambda: figures.draw_confusion(report(labels, confusion=matrix)))
    together = " ".join(texts).replace("\n", " ")
    assert "share of the true class's images" in texts
    assert "square-root scale" in together
    assert "Grey rows: classes without images" in together
    assert {"c0", "c1", "c2", "5", "50 %"} <= set(texts)


def test_of_many_classes_the_axes_have_numbers_that_are_explained():
    labels = [f"c{i}" for i in range(1000)]
    matrix = np.eye(1000, dtype=np.int64)
    made = report(labels, confusion=matrix)
    texts = texts_of(lambda: figures.draw_confusion(made))
    assert any("number, from 0" in text for text in texts)
    assert "c1" not in texts
    made = dataclasses.replace(made, per_class=metrics.per_class(matrix, labels))
    assert any("40 lowest of 1,000" in t for t in texts_of(lambda: figures.draw_classes(made)))


def test_the_counts_of_a_log_axis_are_plain_numbers():
    made = report(["a", "b"])
    texts = texts_of(lambda: figures.draw_reliability(made))
    assert not [text for text in texts if "mathdefault" in text or "10^" in text]
    assert {"10", "100"} <= set(texts)
    assert any("overconfident" in text for text in texts)
    assert any("underconfident" in text for text in texts)


@pytest.mark.parametrize("accuracy", [0.5, 0.95, 1.0])
def test_the_legend_has_the_colours_of_the_bars_also_where_there_are_none(accuracy):
    """A network that is overconfident throughout: the other colour is explained all the same."""
    bins = [metrics.Bin(0.9, 1.0, 10, confidence=0.95, accuracy=accuracy)]
    made = dataclasses.replace(report(["a", "b"]), reliability=bins)
    legend = figures.draw_reliability(made).axes[0].get_legend()
    colours = {
        text.get_text().partition(":")[0]: to_hex(handle.get_facecolor())
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if isinstance(handle, Patch)
    }
    assert colours.pop("right answers") == figures.BLUE
    assert colours == {"overconfident": figures.TOO_SURE, "underconfident": figures.TOO_UNSURE}


def test_mistakes_name_the_true_class_the_answer_and_the_file():
    made = report(["$cat$", "dog"])
    texts = texts_of(lambda: figures.draw_mistakes(made))
    for true, said in (("$cat$", "dog"), ("dog", "$cat$")):
        assert {f"true: {true}", f"said: {said}, 90 %"} <= set(texts)
    assert sum(text.startswith("$photo_") for text in texts) == len(made.mistakes)


def epochs(count, **changes):
    """Rows of metrics.csv."""
    rows = []
    for epoch in range(1, count + 1):
        row = EpochRow(
            epoch=epoch,
            lr=0.1,
            train_loss=2 / epoch,
            train_accuracy=0.5,
            loss=1 / epoch,
            top1=1 - 0.5 / epoch,
            top5=0.9,
            train_skipped=0,
            count=10,
            skipped=0,
            seconds=1.0,
        )
        rows.append(dataclasses.replace(row, **changes))
    return rows


@pytest.mark.parametrize(
    "rows",
    [
        epochs(1),
        epochs(2),
        epochs(90),
        epochs(3, loss=math.nan),
        epochs(3, loss=math.inf, train_loss=math.nan, top1=math.nan),
        epochs(3, top5=None),
        epochs(3, float_top1=0.9),
    ],
    ids=["one", "two", "many", "nan", "nothing finite", "multi-label", "quantised"],
)
def test_curves_are_drawn_of_any_rows(rows, tmp_path):
    draw = lambda: draw_curves(rows, "$model^$ on a\\b", "validation")  # noqa: E731
    assert save_picture(tmp_path / "curves.png", draw, dpi=60) is None
    texts = texts_of(draw)
    assert {"$model^$ on a\\b", "training images", "validation images"} <= set(texts)
    assert ("micro-F1, %" in texts) is (rows[0].top5 is None)
    if not math.isfinite(rows[0].loss):
        assert any("No finite loss after epoch 1, 2, 3" in t.replace("\n", " ") for t in texts)


def row(name, precision, top1, latency_ms=5.0, snr_db=30.0):
    report = Report(
        name,
        "digits",
        ["a", "b"],
        9,
        [],
        {"top1": top1, "top5": 1.0},
        [],
        None,
        [],
        [],
        {},
        1.0,
        engine="onnxruntime",
        precision=precision,
    )
    return Rung(report, 0.9, snr_db, 0.8, 10**6, latency_ms)


def test_a_ladder_says_where_its_axis_begins_and_what_its_colours_are(tmp_path):
    rows = [row("$x^$", "float32", 0.8, snr_db=None), row("a\\b", "int8", 0.77, latency_ms=None)]
    made = Ladder(rows, "$data^$ | of " + "z" * 200, 3, NOT_SEEN)
    assert ladder_figure.draw_ladder(made, tmp_path / "ladder.png") is None
    texts = texts_of(lambda: ladder_figure._draw(made))
    assert {"float32", "int8", "not timed", "$x^$\nonnxruntime"} <= set(texts)
    assert any("axis begins at 76.1" in text for text in texts)
    with Image.open(tmp_path / "ladder.png") as picture:
        assert picture.format == "PNG"


def test_a_ladder_of_one_form_that_is_never_right_is_drawn(tmp_path):
    made = Ladder([row("one", "float32", 0.0, None, None)], "digits", 10, NOT_SEEN)
    assert ladder_figure.draw_ladder(made, tmp_path / "ladder.png") is None


@pytest.mark.parametrize(("classes", "tells"), [(3, False), (5, False), (10, True)])
def test_a_ladders_table_has_top5_where_it_tells_something(classes, tells):
    made = Ladder(
        [row("a | b", "float32", 0.8), row("[/]", "int8", 0.7)], "<data>", classes, NOT_SEEN
    )
    titles, rows = made.table()
    assert ("top-5" in titles) is tells
    assert rows[0][0] == "a | b"
    lines = made.to_markdown().splitlines()
    table = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {len(titles) + 1}
    assert "Images: &lt;data&gt;." in made.to_markdown()
    assert made.to_dict()["rows"][0]["top5"] == 1.0


@pytest.mark.parametrize(
    ("kept", "red"),
    [([], 0), (["block1.layer1.conv1"], 1), (["block1"], 4), (["block1", "block2.layer1"], 6)],
)
def test_all_convolutions_of_a_block_in_float_are_coloured(kept, red, tmp_path):
    names = [f"block{b}.layer{n}.conv{c}" for b in (1, 2, 10) for n in (1, 2) for c in (1, 2)]
    found = [Sensitivity(name, 30.0 + place) for place, name in enumerate(names)]
    with plain_matplotlib():
        from matplotlib.colors import to_hex

        figure = sensitivity._draw(found, kept, "$net^$")
        colours = [to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches]
    assert (colours.count(RED), colours.count(BLUE)) == (red, len(names) - red)
    texts = texts_of(lambda: sensitivity._draw(found, kept, "$net^$"))
    assert (f"kept in float32: {red}" in texts) is bool(red)


def test_a_sensitivity_that_is_no_number_is_drawn(tmp_path):
    found = [Sensitivity("$conv^$", math.nan), Sensitivity("conv_2", -math.inf)]
    assert sensitivity.draw_sensitivity(found, ["$conv^$"], "net", tmp_path / "s.png") is None


def made_profile(count):
    """The profile of a program with so many layers."""
    area = dict.fromkeys(("compute", "SRAM", "DRAM", "flash"), 1)
    layers = [
        OperatorCost(f"$l{i}^$", "Conv2D", "CONV", True, 100 + i, area, 10, 0.1, "SRAM")
        for i in range(count)
    ]
    memory = {"sram": 1, "dram": 0, "on_chip_flash": 0, "off_chip_flash": 0}
    description = Description(
        model="$net^$",
        target=CompiledFor("u65", 256, "$a_b$", "c^", 1e9),
        tools={},
        labels=["a"],
        multi_label=False,
        preprocess=Preprocess((32, 32)),
        operators=OperatorPlacement(count, [], 1.0, []),
        estimate=Estimate(1.0, 1, memory, memory, 1, 1, NotCounted.of(layers)),
        layout=Layout(0, 0, 0, 0, 0, 0, "flash", "SRAM", "SRAM", 0, 0, ("ethos-u",)),
        files={},
    )
    program = SimpleNamespace(description=description, layers=lambda: layers)
    return Profile(program, layers)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 60])
def test_a_profile_of_any_length_is_drawn(count, tmp_path):
    assert draw_profile(made_profile(count), tmp_path / "profile.png") is None


def test_a_profile_is_printed_whose_picture_cannot_be_written(tmp_path, monkeypatch, run):
    from densepath.npu.program import Program

    monkeypatch.setattr(Program, "open", lambda folder: made_profile(3).program)
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" / "p.png"
    for picture, wanted in ((path, 1), (tmp_path / "p.png", 0)):
        code, out, err = run("npu", "profile", tmp_path, "--picture", picture)
        assert code == wanted
        assert "$l0^$" in out
        assert ("no picture" in err) is bool(wanted)
    assert (tmp_path / "p.png").is_file()

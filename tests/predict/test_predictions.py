"""predictions.py: logits become sorted, named classes; the three ways to write them."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densepath.predict.answers import (
    LABEL_WIDTH,
    Prediction,
    answer,
    probabilities,
    write_csv,
    write_json_lines,
    write_table,
)

LABELS = ["ant", "bee", "cat", "dog"]
GOOD = Prediction("a.png", [1, 0], ["bee", "ant"], [0.75, 0.25])
BROKEN = Prediction.failed("b.png", "the file is empty")


def written(write, *predictions, top_k=2):
    file = io.StringIO()
    write(iter(predictions), file, top_k)
    return file.getvalue()


def test_softmax_scores_are_those_of_arithmetic_and_sorted():
    [prediction] = answer(np.log([[1.0, 4.0, 3.0, 2.0]]), ["a.png"], LABELS, top_k=3)
    assert prediction.class_ids == [1, 2, 3]
    assert prediction.labels == ["bee", "cat", "dog"]
    assert prediction.scores == pytest.approx([0.4, 0.3, 0.2])


def test_multi_label_scores_are_each_class_by_itself():
    logits = np.array([[0.0, math.log(3), -800.0, 800.0]])
    assert probabilities(logits, multi_label=True)[0] == pytest.approx([0.5, 0.75, 0.0, 1.0])


def test_equal_scores_are_answered_with_the_lower_class_first():
    [prediction] = answer(np.zeros((1, 4)), ["a.png"], LABELS, top_k=4)
    assert prediction.class_ids == [0, 1, 2, 3]


def test_more_classes_asked_for_than_there_are_gives_all_of_them():
    [prediction] = answer(np.zeros((1, 4)), ["a.png"], LABELS, top_k=9)
    assert len(prediction.class_ids) == 4


def test_an_answer_that_is_not_a_number_is_a_failure_and_leaves_the_others_alone():
    logits = np.array([[np.nan, 0, 0, 0], [0, 0, 0, 9.0], [np.inf, 0, 0, 0]])
    predictions = answer(logits, ["a", "b", "c"], LABELS)
    assert [p.error is None for p in predictions] == [False, True, False]
    assert predictions[1].labels[0] == "dog"


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=8))
def test_softmax_scores_add_up_to_one_however_large_the_logits(row):
    assert probabilities(np.array([row])).sum() == pytest.approx(1.0)


def test_json_lines_hold_one_object_an_image_with_exactly_the_promised_fields():
    lines = written(write_json_lines, GOOD, BROKEN).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"path": "a.png", "class_ids": [1, 0], "labels": ["bee", "ant"], "scores": [0.75, 0.25]},
        {"path": "b.png", "error": "the file is empty"},
    ]


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\xff\xfe", b"a/\x80\xe5\x9b\xbe.jpg"])
def test_a_file_name_that_is_not_utf8_is_readable_in_json_and_its_bytes_are_beside_it(name):
    text = written(write_json_lines, Prediction(os.fsdecode(name), [0], ["ant"], [1.0]))
    text.encode("utf-8")
    found = json.loads(text)
    assert base64.b64decode(found["path_base64"]) == name
    assert found["path"] == name.decode("utf-8", "backslashreplace")
    assert "\\ud" not in text  # a lone surrogate, which strict readers of JSON refuse


def test_a_name_that_is_text_has_no_second_form_in_json():
    text = written(write_json_lines, Prediction("café \\xe9.png", [0], ["ant"], [1.0]))
    assert json.loads(text) == {
        "path": "café \\xe9.png", "class_ids": [0], "labels": ["ant"], "scores": [1.0]
    }  # fmt: skip


def test_names_that_are_not_utf8_can_be_written_in_every_format():
    odd = os.fsdecode(b"caf\xe9.png")
    for writer in (write_json_lines, write_csv, write_table):
        for prediction in (Prediction(odd, [0], [odd], [1.0]), Prediction.failed(odd, odd)):
            written(writer, prediction).encode("utf-8")


def test_csv_has_a_row_an_image_and_empty_cells_where_there_is_no_answer():
    rows = list(csv.DictReader(io.StringIO(written(write_csv, GOOD, BROKEN))))
    assert rows[0]["label_1"] == "bee"
    assert (rows[0]["class_id_2"], rows[0]["score_2"]) == ("0", "0.25")
    assert (rows[1]["error"], rows[1]["label_1"]) == ("the file is empty", "")


def test_csv_quotes_labels_with_commas_and_quotation_marks():
    prediction = Prediction("a.png", [0], ['tench, "Tinca"'], [1.0])
    [row] = csv.DictReader(io.StringIO(written(write_csv, prediction, top_k=1)))
    assert row["label_1"] == 'tench, "Tinca"'


def test_the_table_names_the_image_once_and_says_why_one_has_no_answer():
    text = written(write_table, GOOD, BROKEN)
    assert text.count("a.png") == 1
    assert " 75.0 %  bee" in text
    assert "b.png: the file is empty" in text


def test_the_table_keeps_its_columns_and_lines_whatever_names_hold():
    odd = Prediction("a\nb\x1b[31m.png", [0], ["x" * 99], [1.0])
    _, line = written(write_table, odd).splitlines()
    assert "a\\nb\\x1b[31m.png" in line
    assert "x" * (LABEL_WIDTH - 1) + "…  " in line


@pytest.mark.parametrize("write", [write_json_lines, write_csv, write_table])
def test_each_answer_is_on_its_way_before_the_next_is_asked_for(write, tmp_path):
    path = tmp_path / "answers"
    with path.open("w", encoding="utf-8") as file:

        def predictions():
            yield GOOD
            assert "a.png" in path.read_text("utf-8")
            yield BROKEN
            assert "b.png" in path.read_text("utf-8")

        write(predictions(), file, 2)


def test_csv_ends_its_lines_as_other_files_here():
    assert "\r" not in written(write_csv, GOOD, BROKEN)


def test_logits_of_any_precision_have_the_shares_of_double_precision():
    logits = np.array([[0.0, 11.0, 3.5, -9.0]])
    exact = np.exp(logits) / np.exp(logits).sum()
    for dtype in (np.float64, np.float32, np.float16):
        shares = probabilities(logits.astype(dtype))
        assert shares.dtype == np.float64
        np.testing.assert_allclose(shares, exact, rtol=1e-12)
    assert probabilities([[0, 0]]).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("label", ["ant", "a\x1bnt"])
def test_json_that_no_other_program_reads_is_not_written(label):
    odd = Prediction("a.png", [0], [label], [math.nan])
    with pytest.raises(ValueError, match="not JSON compliant"):
        written(write_json_lines, odd)


def test_classes_above_their_thresholds_are_named_whether_they_are_among_the_best_or_not():
    logits = np.log([[1.0, 3.0, 1.0, 9.0]])
    [made] = answer(
        logits, ["a.png"], LABELS, top_k=1, multi_label=True, thresholds=[0.4, 0.75, 0.5, 0.89]
    )
    assert made.class_ids == [3]
    assert made.positive_ids == [3, 0]  # 0.75 is not above 0.75, nor 0.5 above 0.5
    assert made.to_dict()["positive_labels"] == [LABELS[3], LABELS[0]]
    assert "positive_ids" not in answer(logits, ["a.png"], LABELS)[0].to_dict()
    stars = written(write_table, made).splitlines()[1]
    assert stars.startswith(" 90.0 %* ")


def test_csv_has_a_column_of_what_is_above_its_threshold():
    made = Prediction("a.png", [1], ["bee"], [0.75], None, [1, 0], ["bee", "ant"])
    file = io.StringIO()
    write_csv([made, Prediction.failed("b.png", "no")], file, 1, decides=True)
    assert file.getvalue().splitlines() == [
        "path,error,class_id_1,label_1,score_1,positive_labels",
        "a.png,,1,bee,0.75,bee|ant",
        "b.png,no,,,,",
    ]


def test_a_temperature_divides_the_logits():
    logits = np.array([[0.0, 2.0]])
    assert probabilities(logits, temperature=2.0) == pytest.approx(probabilities(logits / 2))
    both = {"multi_label": True}
    expected = probabilities(logits / 2, **both)
    assert probabilities(logits, temperature=2.0, **both) == pytest.approx(expected)

"""The precision of a server: as it is told, or taken by itself; what answers is said."""

from __future__ import annotations

import pytest

from densepath.engines import precision as judging

pytest.importorskip("fastapi")


def row_of(server):
    with server as running, running.http() as client:
        [row] = client.get("/models").json()["models"]
        stored = client.get("/v2/models/colour/config").json()["parameters"]
    assert stored["precision"]["string_value"] == row["precision"]
    return row


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_server_computes_in_the_precision_that_it_is_told(in_process, precision):
    assert row_of(in_process(precision=precision))["precision"] == precision


@pytest.mark.parametrize(
    ("missing", "precision", "said"),
    [
        ("", "bfloat16", "; in bfloat16: by the bundle's report on bfloat16 the best class is the"),
        ("it has none", "float32", "; in float32: it has none"),
    ],
)
def test_by_itself_it_takes_bfloat16_where_that_is_there_and_says_why(
    in_process, monkeypatch, missing, precision, said
):
    monkeypatch.setattr(judging, "missing_bfloat16", lambda: missing)
    row = row_of(in_process())
    assert row["precision"] == precision
    assert said in row["reason"]

"""Options that a server does not know are refused by name: none is silently ignored."""

from __future__ import annotations

import base64
import gzip
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")


@pytest.fixture
def client(server):
    with server.http() as http:
        yield http


def encoded(file) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def tensor(**more) -> dict:
    return {"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [0] * 12, **more}


QUERIES = [
    ("post", "/classify?model=gray&topk=3", "'topk'. Did you mean top_k?"),
    ("post", "/classify?model=gray&Top_K=3", "'Top_K'"),
    ("post", "/classify?modle=gray", "'modle'. Did you mean model?"),
    ("post", "/classify?model=gray&top_k=3&top_k=1", "top_k stands in the query twice"),
    ("post", "/v1/models/gray:predict?topk=3", "'topk'. Did you mean top_k?"),
    ("post", "/v1/models/gray:explain?targett=1", "'targett'. Did you mean target?"),
    ("post", "/v2/models/gray/infer?top_k=3", "option of the query 'top_k'"),
    ("get", "/models?name=gray", "'name': there are none here"),
    ("get", "/v2/models/gray?verson=1", "'verson'. Did you mean version?"),
    ("post", "/v2/repository/index?ready=true", "'ready': there are none here"),
]


@pytest.mark.parametrize(("method", "path", "said"), QUERIES)
def test_an_unknown_option_of_a_query_is_refused(client, files, method, path, said):
    options = {"json": {"images": [encoded(files[0])]}} if "classify" in path else {}
    if "/v1" in path:
        options = {"json": {"instances": [{"b64": encoded(files[0])}]}}
    if "infer" in path:
        options = {"json": {"inputs": [tensor()]}}
    reply = client.request(method, path, **options)
    assert reply.status_code == 400, reply.text
    assert said in reply.json()["error"]


def test_the_pages_and_health_take_whatever_stands_behind_their_address(client):
    for path in ("/?from=mail", "/page/page.js?v=2", "/v2/health/live?t=1", "/v2/health/ready?x"):
        assert client.get(path).status_code == 200


BODIES = [
    ("/classify?model=gray", {"topk": 3}, "unknown field of the JSON 'topk'. Did you mean top_k?"),
    ("/classify?model=gray", {"image": 1}, "'image'. Did you mean images?"),
    ("/classify?model=gray", {"model": "gray"}, "model stands in the query and in the body"),
    ("/classify?model=gray", {"top_k": 0}, "top_k: input should be greater"),
    ("/classify?model=gray", {"explain": "perhaps"}, "explain: input should be a valid boolean"),
    ("/v1/models/gray:predict", {"topk": 3}, "'topk'. Did you mean top_k?"),
    ("/v1/models/gray:predict", {"signature_name": "x"}, "'signature_name'"),
    ("/v1/models/gray:explain", {"targets": "1"}, "'targets'. Did you mean target?"),
    ("/v2/models/gray/infer", {"output": []}, "'output'. Did you mean outputs?"),
    ("/v2/models/gray/infer", {"top_k": 3}, "unknown field of the JSON 'top_k'"),
    ("/v2/models/gray/infer", {"parameters": {"topk": 3}}, "'topk'. Did you mean top_k?"),
    ("/v2/models/gray/infer", {"parameters": {"priority": 1}}, "request 'priority'"),
    ("/v2/models/gray/infer", {"model_name": "colour"}, "model_name is not gray"),
    ("/v2/models/gray/infer", {"inputs": [tensor(dtype="x")]}, "field of an input 'dtype'"),
    ("/v2/models/gray/infer", {"inputs": [tensor(parameters={"a": 1})]}, "of input 'images' 'a'"),
    ("/v2/models/gray/infer", {"outputs": [{"name": "labels", "k": 1}]}, "of an output 'k'"),
    (
        "/v2/models/gray/infer",
        {"outputs": [{"name": "logits", "parameters": {"clasification": 1}}]},
        "'clasification'. Did you mean classification?",
    ),
    (
        "/v2/models/gray/infer",
        {"outputs": [{"name": "logits", "parameters": {"binary_data": "yes"}}]},
        "binary_data is 'yes'; it must be true or false",
    ),
    ("/v2/repository/index", {"raedy": True}, "'raedy'. Did you mean ready?"),
    ("/v2/repository/index", {"ready": "yes"}, "ready is 'yes'; it must be true or false"),
    ("/v2/repository/models/gray/load", {"parameters": {"config": "{}"}}, "of load 'config'"),
    ("/v2/repository/models/gray/unload", {"force": True}, "'force'"),
    ("/v2/repository/index", {"repository_name": "other"}, "no repository 'other'"),
]


@pytest.mark.parametrize(("path", "more", "said"), BODIES)
def test_an_unknown_field_of_a_body_is_refused(client, files, path, more, said):
    whole = {}
    if "classify" in path:
        whole = {"images": [encoded(files[0])]}
    elif "/v1" in path:
        whole = {"instances": [{"b64": encoded(files[0])}]}
    elif "infer" in path:
        whole = {"inputs": [tensor()]}
    reply = client.post(path, json={**whole, **more})
    assert reply.status_code == 400, reply.text
    assert said in reply.json()["error"]


@pytest.mark.parametrize(
    ("instance", "said"),
    [
        ({"b64": "", "name": "x"}, "unknown field of instance 0 'name'"),
        ({"image_bytes": {"b64": "", "type": "png"}}, "unknown field of instance 0 'type'"),
        ({"image_bytes": {"b64": ""}, "b64": ""}, "unknown field of instance 0 'b64'"),
    ],
)
def test_an_unknown_field_of_an_instance_or_image_is_refused(client, instance, said):
    reply = client.post("/v1/models/gray:predict", json={"instances": [instance]})
    assert (reply.status_code, said in reply.json()["error"]) == (400, True), reply.text
    image = {"b64": "", "nam": "x"}
    reply = client.post("/classify?model=gray", json={"images": [image]})
    assert reply.status_code == 400
    assert "unknown field of image 0 'nam'. Did you mean name?" in reply.json()["error"]


def test_fields_of_a_form_are_options_or_refused(client, files):
    form = {"file": files[0].read_bytes()}
    for fields, said in (
        ({"topk": "3"}, "'topk'. Did you mean top_k?"),
        ({"image": encoded(files[0])}, "An image is sent with a file name"),
        ({"top_k": "many"}, "top_k: input should be a valid integer"),
        ({"top_k": ["1", "2"]}, "top_k stands in the form twice"),
    ):
        reply = client.post("/classify?model=gray", files=form, data=fields)
        assert reply.status_code == 400, reply.text
        assert said in reply.json()["error"]
    fields = {"model": "colour", "version": "1", "top_k": "2", "explain": "true"}
    reply = client.post("/classify", files=form, data=fields)
    assert reply.status_code == 200, reply.text
    row = reply.json()["predictions"][0]
    assert (len(row["class_ids"]), "explanation" in row) == (2, True)


def test_options_may_stand_in_the_json_too(client, files):
    image = encoded(files[0])
    listed = {"images": [image], "model": "gray", "top_k": 2}
    assert len(client.post("/classify", json=listed).json()["predictions"][0]["labels"]) == 2
    instances = {"instances": [{"b64": image}], "top_k": 3}
    rows = client.post("/v1/models/gray:predict", json=instances).json()["predictions"]
    assert len(rows[0]["labels"]) == 3
    rows = client.post("/v1/models/gray:predict?top_k=1", json={"instances": [{"b64": image}]})
    assert len(rows.json()["predictions"][0]["labels"]) == 1
    asked = {"instances": [{"b64": image}], "target": "rose, wild"}
    explained = client.post("/v1/models/gray:explain", json=asked).json()["explanations"]
    assert explained[0]["label"] == "rose, wild"


def test_what_known_clients_send_beside_the_tensors_is_taken(client):
    """KServe's repeats the model's name, Triton's speaks of dependents at each unload."""
    request = {"id": "1", "model_name": "gray", "inputs": [tensor()]}
    assert client.post("/v2/models/gray/infer", json=request).status_code == 200
    for body in ({"parameters": {"unload_dependents": False}}, {"repository_name": ""}):
        reply = client.post("/v2/repository/models/x/unload", json=body)
        assert reply.status_code == 404


def test_half_a_form_is_refused_wherever_it_is_cut(client, files):
    data = files[0].read_bytes()
    part = b'--B\r\nContent-Disposition: form-data; name="%s"; filename="%s.png"\r\n\r\n%s\r\n'
    whole = b"".join(part % (name, name, data) for name in (b"a", b"b")) + b"--B--\r\n"
    second = whole.index(b"--B\r\n", 10)
    kind = {"Content-Type": "multipart/form-data; boundary=B"}

    def ask(body: bytes):
        return client.post("/classify?model=gray", content=body, headers=kind)

    assert len(ask(whole).json()["predictions"]) == 2
    assert ask(whole[:-2]).status_code == 200  # the line break behind the end
    for length in (len(whole) - 3, len(whole) - 4, len(whole) - 6, second + 200, second + 30,
                   second + 5, second + 2, second, second - 2, second - 500, 40, 3, 0):  # fmt: skip
        reply = ask(whole[:length])
        assert reply.status_code == 400, length
        assert "predictions" not in reply.json()


def test_a_compressed_body_that_ends_early_or_goes_on_is_refused(client, files):
    body = b'{"images": ["%s"]}' % encoded(files[0]).encode()
    half = len(body) // 2
    ways = {
        "gzip": gzip.compress(body),
        "x-gzip": gzip.compress(body[:half]) + gzip.compress(body[half:]),
        "deflate": zlib.compress(body),
    }
    kind = "application/json"
    for encoding, packed in ways.items():
        headers = {"Content-Type": kind, "Content-Encoding": encoding}

        def ask(data: bytes, headers=headers) -> int:
            return client.post("/classify?model=gray", content=data, headers=headers).status_code

        assert ask(packed) == 200, encoding
        for cut in (1, 4, 8, 9, len(packed) // 2, len(packed) - 1, len(packed)):
            assert ask(packed[:-cut]) == 400, (encoding, cut)
        assert ask(packed + b"more") == 400, encoding
        assert ask(packed + packed) == 400, encoding  # two JSON texts, or bytes behind the end


def test_the_index_lists_those_that_answer_where_that_is_asked(start):
    server = start("colour", "gray")
    with server.http() as client:
        assert client.post("/v2/repository/models/colour/unload").status_code == 200
        every = client.post("/v2/repository/index").json()
        assert [(row["name"], row["state"]) for row in every] == [
            ("colour", "UNAVAILABLE"),
            ("gray", "READY"),
        ]
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert [row["name"] for row in ready] == ["gray"]
        assert len(client.post("/v2/repository/index", json={"ready": False}).json()) == 2


PIXELS = np.random.default_rng(3).integers(0, 256, 1000, np.uint8).tobytes()
PLAIN = base64.b64encode(PIXELS).decode()
WAYS = {
    "plain": PLAIN,
    "in lines, as MIME": base64.encodebytes(PIXELS).decode(),
    "in lines of Windows": base64.encodebytes(PIXELS).decode().replace("\n", "\r\n"),
    "for addresses": base64.urlsafe_b64encode(PIXELS).decode(),
    "without padding": PLAIN.rstrip("="),
    "for addresses, without padding": base64.urlsafe_b64encode(PIXELS).decode().rstrip("="),
    "a data address": "data:image/png;base64," + PLAIN,
    "a data address in capitals": "DATA:IMAGE/PNG;BASE64," + PLAIN,
    "a data address with escapes": "data:image/png;base64," + PLAIN.replace("+", "%2B"),
    "indented": f"  {PLAIN}\t\n",
}


@pytest.mark.parametrize("way", WAYS)
def test_base64_is_read_as_any_tool_writes_it(way):
    from densepath.serving.v2.tensors import from_base64

    assert "=" in PLAIN
    assert set("+/") <= set(PLAIN)
    assert from_base64(WAYS[way]) == PIXELS


@pytest.mark.parametrize("text", ["%%", "AAAAA", "AA=A", "=AAA", "é", "AA\0A", 7, None, ["AA"]])
def test_what_is_no_base64_is_refused(text):
    from densepath.serving.v2.tensors import from_base64

    with pytest.raises(ValueError):  # noqa: PT011
        from_base64(text)


def test_every_route_reads_these_ways(client, files):
    data = files[0].read_bytes()
    ways = (
        base64.encodebytes(data).decode(),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
        "DATA:;BASE64," + base64.b64encode(data).decode(),
    )
    inputs = [{"name": "images", "datatype": "BYTES", "shape": [3], "data": list(ways)}]
    for path, body in (
        ("/classify?model=gray", {"images": list(ways)}),
        ("/v1/models/gray:predict", {"instances": [{"b64": way} for way in ways]}),
        ("/v2/models/gray/infer", {"inputs": inputs}),
    ):
        assert client.post(path, json=body).status_code == 200, path


@pytest.mark.parametrize("option", ["--timeout", "--grace", "--linger", "--max-delay-ms"])
@pytest.mark.parametrize("value", ["inf", "nan", "-inf", "-1", "1e30"])
def test_a_time_that_is_none_is_refused_at_the_start(option, value):
    from typer.testing import CliRunner

    from densepath.cli.app import app
    from densepath.errors import UsageError

    run = CliRunner().invoke(app, ["serve", "x", option, value])
    said = str(run.exception) if isinstance(run.exception, UsageError) else run.output
    assert run.exit_code != 0
    assert option in said
    assert "must be a number of" in said or "is not in the range" in said


def test_settings_made_in_python_are_held_to_the_same():
    from densepath.errors import UsageError
    from densepath.serving.core.settings import Settings

    Settings().check()
    for wrong in ({"timeout_s": 0.0}, {"timeout_s": float("inf")}, {"body_timeout_s": float("nan")},
                  {"grace_s": -1.0}, {"header_timeout_s": 0.0}):  # fmt: skip
        with pytest.raises(UsageError, match="must be a number of seconds"):
            Settings(**wrong).check()
    for size in ("inf", "nan", "3000"):
        from densepath.serving.core.settings import check_number

        with pytest.raises(UsageError, match=r"--max-body-mb is .* at most 2000"):
            check_number("--max-body-mb", float(size), "megabytes", 2000, above_zero=True)


def test_several_workers_need_one_folder_that_can_be_written(monkeypatch, tmp_path):
    """Shared memory where no temporary folder can be written; else they say what to do."""
    import tempfile

    from densepath.errors import OutputError
    from densepath.serving.core import metrics

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    monkeypatch.setattr(metrics, "SHARED_MEMORY", str(tmp_path))
    assert metrics.make_shared_folder().startswith(str(tmp_path))
    monkeypatch.setattr(metrics, "SHARED_MEMORY", str(tmp_path / "neither"))
    with pytest.raises(OutputError, match=r"set TMPDIR to a folder that can, or .* --workers 1"):
        metrics.make_shared_folder()


def test_the_counters_of_a_server_that_was_killed_go_with_the_next_start(monkeypatch, tmp_path):
    """Those of a living one, and what is not ours, stay."""
    import subprocess
    import tempfile

    from densepath.serving.core import metrics

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = (
        "from densepath.serving.core.metrics import make_shared_folder as m; print(m(), flush=True)"
    )
    killed = f"{made}; import os; os.kill(os.getpid(), 9)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", killed], env=environment, capture_output=True, text=True
    )
    left = Path(run.stdout.strip())
    (left / "counter_1.db").write_bytes(b"1")
    living = subprocess.Popen(
        [sys.executable, "-c", f"{made}; input()"],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    others = Path(living.stdout.readline().strip())
    assert left.parent == others.parent == tmp_path
    assert not left.exists()
    (tmp_path / "densepath-metrics-of-mine").mkdir()
    ours = Path(metrics.make_shared_folder())
    living.communicate("\n", timeout=60)
    assert {path.name for path in tmp_path.iterdir()} == {
        ours.name, others.name, "densepath-metrics-of-mine",
    }  # fmt: skip
    assert ours.stat().st_mode & 0o777 == 0o700


def test_ctrl_c_while_libraries_are_imported_is_no_traceback(bundles):
    """pydantic turns it into a SchemaError; here what is imported does the same on purpose."""
    import subprocess

    program = """
import os, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "pydantic":
            try:
                os.kill(os.getpid(), 2)
            except KeyboardInterrupt:
                raise RuntimeError("this is an error of mine")
sys.meta_path.insert(0, Interrupting())
from densepath.__main__ import main
main()
"""
    run = subprocess.run(
        [sys.executable, "-c", program, "serve", "colour", "--port", "0", "--grpc-port", "0"],
        cwd=bundles, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 130, run.stderr
    assert "Traceback" not in run.stderr

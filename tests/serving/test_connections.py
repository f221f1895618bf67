"""What a connection brings in another form than usual: half-closed, by HEAD, from other pages."""

from __future__ import annotations

import json
import socket
import time

import pytest

pytest.importorskip("fastapi")


def address(server) -> tuple[str, int]:
    host, port = server.url.partition("://")[2].rsplit(":", 1)
    return host, int(port)


def half_closed(server, data: bytes, *, wait_s: float = 30) -> bytes:
    """What the server says to a client that sends these bytes and no more, as `nc -N`."""
    with socket.create_connection(address(server), timeout=wait_s) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def post(path: str, kind: str, body: bytes, length: int | None = None, extra: str = "") -> bytes:
    """A request whose length may be another than that of its body."""
    told = len(body) if length is None else length
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{extra}"
        f"Content-Length: {told}\r\n\r\n"
    ).encode() + body


def status(answer: bytes) -> int:
    return int(answer.split()[1]) if answer else 0


def body_of(answer: bytes) -> dict:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def test_a_client_that_sends_no_more_is_answered(server, files):
    for request in (
        b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /models HTTP/1.0\r\n\r\n",
        b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        post("/classify?model=gray", "image/png", files[0].read_bytes()),
    ):
        answer = half_closed(server, request)
        assert status(answer) == 200, (request[:40], answer[:200])
    two = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 2
    assert half_closed(server, two).count(b"HTTP/1.1 200") == 2


def test_a_slow_answer_reaches_a_client_that_sends_no_more(in_process, files, monkeypatch):
    """It is asked meanwhile whether it is there, in a way that clients pass over."""
    from densepath.serving.core.batcher import Batcher

    compute = Batcher._compute
    with in_process() as running:
        monkeypatch.setattr(
            Batcher,
            "_compute",
            lambda *of, **how: (time.sleep(0.5), compute(*of, **how))[1],
        )
        answer = half_closed(running, post("/classify", "image/png", files[0].read_bytes()))
        both = half_closed(running, 2 * post("/classify", "image/png", files[0].read_bytes()))
    assert both.count(b"HTTP/1.1 200 OK") == 2
    assert both.count(b'"predictions":[{"name":"image"') == 2
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert first == b"HTTP/1.1 100 Continue"
    assert status(rest) == 200
    assert len(body_of(rest)["predictions"]) == 1


def test_who_sent_all_and_left_does_not_keep_the_network_busy(in_process, files, monkeypatch):
    """Only a reset tells such a client from one that waits."""
    from densepath.serving.core.batcher import Batcher

    ran, compute = [], Batcher._compute

    def slow(self, rows, **how):
        ran.append(len(rows))
        time.sleep(0.3)
        return compute(self, rows, **how)

    request = post("/classify", "image/png", files[0].read_bytes())
    with in_process(max_batch=1, threads=1) as running:
        monkeypatch.setattr(Batcher, "_compute", slow)
        for _ in range(40):
            with socket.create_connection(address(running), timeout=30) as connection:
                connection.sendall(request)
        for _ in range(300):
            with running.http() as client:
                text = client.get("/metrics").text
            if 'densepath_pending_images{model="colour",version="1"} 0.0' in text:
                break
            time.sleep(0.05)
        else:
            pytest.fail("their images are still inside")
    assert len(ran) < 20
    assert 'outcome="cancelled"' in text


@pytest.mark.parametrize("cut", [1, 40, 400])
@pytest.mark.parametrize("kind", ["image/png", "application/json", "multipart/form-data"])
def test_a_body_that_ends_before_its_length_is_refused(server, files, kind, cut):
    data = files[0].read_bytes()
    if kind == "multipart/form-data":
        data, kind = form([("a.png", data), ("b.png", data)])
    answer = half_closed(server, post("/classify?model=gray", kind, data[:-cut], len(data)))
    assert status(answer) == 400
    assert (
        f"after {len(data) - cut:,} bytes of the body of the {len(data):,} announced"
        in (body_of(answer)["error"])
    )


def form(files: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    """A form of these files, and its content type."""
    parts = [
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), data)
        for name, data in files
    ]
    return b"".join(parts) + b"--B--\r\n", "multipart/form-data; boundary=B"


def test_chunks_without_the_last_one_are_refused(server, files):
    data = files[0].read_bytes()
    head = (
        b"POST /classify?model=gray HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"%x\r\n%s\r\n" % (len(data), data)
    assert status(half_closed(server, head + chunk + b"0\r\n\r\n")) == 200
    for cut in (chunk, chunk[:-1], chunk[:-2], chunk[: len(chunk) // 2], chunk + b"0\r\n"):
        answer = half_closed(server, head + cut)
        assert status(answer) == 400, cut[-10:]
        assert "the connection ended after" in body_of(answer)["error"]


@pytest.mark.parametrize("path", ["/v1/models/gray:predict", "/v2/models/gray/infer"])
def test_half_a_body_of_the_protocols_is_refused_too(server, path):
    answer = half_closed(server, post(path, "application/json", b'{"instances": [', 200))
    assert status(answer) == 400
    assert "15 bytes of the body of the 200 announced" in body_of(answer)["error"]


def test_headers_that_end_in_the_middle_are_refused(server):
    for begun in (b"GET /models HTTP/1.1\r\nHost", b"POST /classify HTTP/1.1\r\n", b"G"):
        answer = half_closed(server, begun)
        assert status(answer) == 400
        assert "before the request's headers were whole" in body_of(answer)["error"]
    assert half_closed(server, b"") == b""


def test_head_is_answered_as_get_without_its_body(server):
    with server.http() as client:
        for path in ("/", "/models", "/metrics", "/v2", "/v2/health/ready", "/openapi.json",
                     "/docs", "/v1/models/gray", "/page/page.js"):  # fmt: skip
            head, get = client.head(path), client.get(path)
            assert (head.status_code, get.status_code) == (200, 200), path
            assert head.content == b""
            assert head.headers["Content-Type"] == get.headers["Content-Type"]
            if path not in ("/metrics", "/models"):
                assert head.headers["Content-Length"] == get.headers["Content-Length"]
        assert client.head("/nothing").status_code == 404
        assert client.head("/v2/models/none").status_code == 404
        refused = client.head("/classify")
        assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    routes = [line["route"] for line in server.log if line.get("route", "").startswith("HEAD")]
    assert "HEAD /models" in routes


OWN = [
    ("http://photos.example", "photos.example:80"),
    ("http://photos.example:80", "photos.example"),
    ("https://photos.example", "photos.example:443"),
    ("https://photos.example:443", "photos.example"),
    ("HTTP://Photos.Example", "photos.EXAMPLE"),
    ("http://photos.example.:8080", "photos.example:8080"),
    ("http://photos.example", "photos.example."),
    ("http://[::1]:80", "[0:0:0:0:0:0:0:1]"),
    ("http://[FE80::A]:8080", "[fe80::a]:8080"),
]
FOREIGN = [
    ("http://evil.example", "photos.example"),
    ("http://photos.example:81", "photos.example"),
    ("https://photos.example", "photos.example:80"),
    ("http://photos.example@evil.example", "photos.example"),
    ("http://photos.example.evil.example", "photos.example"),
    ("http://photos.example/path", "photos.example"),
    ("http://[::2]", "[::1]"),
    ("null", "photos.example"),
    ("", "photos.example"),
    ("http://", ""),
]


@pytest.mark.parametrize(("origin", "host"), OWN)
def test_a_page_of_the_server_itself_may_use_it_however_its_address_is_spelled(
    server, origin, host
):
    with server.http() as client:
        reply = client.get("/models", headers={"Origin": origin, "Host": host})
    assert reply.status_code == 200


@pytest.mark.parametrize(("origin", "host"), FOREIGN)
def test_a_page_of_another_site_may_not(server, origin, host):
    request = f"GET /models HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n".encode()
    answer = half_closed(server, request)
    assert status(answer) == 403
    assert "--allow-origin" in body_of(answer)["error"]


def test_pages_of_origins_on_the_list_may_send_and_read(start, files, tmp_path):
    key = "a-key-of-some-length-0123"
    file = tmp_path / "key"
    file.write_text(key)
    allowed = ["--allow-origin", "https://Photos.example:443/", "--allow-origin", "http://b:81"]
    server = start("colour", "--api-key-file", str(file), *allowed)
    page = {"Origin": "https://photos.example"}
    with server.http() as client:
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        before = client.options("/classify", headers={**page, **asked})
        assert before.status_code == 204
        assert before.headers["Access-Control-Allow-Origin"] == page["Origin"]
        assert "POST" in before.headers["Access-Control-Allow-Methods"]
        assert before.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        form = {"f": files[0].read_bytes()}
        bearer = {"Authorization": f"Bearer {key}"}
        reply = client.post("/classify", files=form, headers={**page, **bearer})
        assert reply.status_code == 200
        assert reply.headers["Access-Control-Allow-Origin"] == page["Origin"]
        assert "Retry-After" in reply.headers["Access-Control-Expose-Headers"]
        assert reply.headers["Vary"] == "Origin"
        # The page can read why it is refused, too.
        refused = client.post("/classify", files=form, headers=page)
        assert refused.status_code == 401
        assert refused.headers["Access-Control-Allow-Origin"] == page["Origin"]
        for origin in ("https://evil.example", "http://photos.example", "http://b"):
            other = client.options("/classify", headers={"Origin": origin, **asked})
            assert other.status_code == 403
            assert "Access-Control-Allow-Origin" not in other.headers
    assert server.stop() == 0


def test_an_origin_that_no_browser_sends_is_refused_at_the_start():
    from densepath.errors import UsageError
    from densepath.serving.rest.origins import parse_origins

    assert parse_origins(["*", "http://a", "http://A:80/"]) == ("*", "http://a")
    for wrong in ("photos.example", "http://a/b", "ftp://a", "http://*.a", "http://u@a", ""):
        with pytest.raises(UsageError, match="is no origin; write SCHEME://HOST"):
            parse_origins([wrong])


def test_docs_is_a_page_of_its_own_that_loads_nothing(server):
    with server.http() as client:
        reply = client.get("/docs")
        paths = client.get("/openapi.json").json()["paths"]
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/html")
    assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha")
    assert "<script" not in reply.text
    assert "src=" not in reply.text
    assert "http://" not in reply.text.replace("http://json-schema.org", "")
    assert "https://" not in reply.text
    for path in paths:
        assert f"<code>{path}</code>" in reply.text

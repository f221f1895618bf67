"""What a client may not do: too large, too slow, too many, without a key; and TLS."""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
KEY = "a-key-of-some-length-0123"


def address(server) -> tuple[str, int]:
    host, port = server.url.partition("://")[2].rsplit(":", 1)
    return host, int(port)


def raw(server, data: bytes, *, wait_s: float = 30) -> bytes:
    """What the server says to these bytes until it closes."""
    with socket.create_connection(address(server), timeout=wait_s) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def still_answers(server, files) -> None:
    with server.http() as client:
        reply = client.post("/classify", files={"f": files[0].read_bytes()})
        assert reply.status_code == 200


def test_a_body_beyond_the_limit_is_refused_by_its_length_and_as_it_comes(start, files):
    server = start("colour", "--max-body-mb", "1")
    with server.http() as client:
        large = bytes(1_500_000)
        kind = {"Content-Type": "image/png"}
        reply = client.post("/classify", content=large, headers=kind)
        assert reply.status_code == 413
        assert "larger than the 1 MB allowed" in reply.json()["error"]
        chunked = client.post("/classify", content=iter([large]), headers=kind)
        assert chunked.status_code == 413
        lied = raw(
            server,
            b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: image/png\r\nContent-Length: 1000000000000000000\r\n\r\n",
        )
        assert lied.startswith(b"HTTP/1.1 413")
    still_answers(server, files)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, with next to nothing in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(999)))
    return b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")


def test_an_image_of_900_megapixels_is_refused_by_its_header(server):
    with server.http() as client:
        reply = client.post("/classify?model=colour", files={"f": png_header(30_000, 30_000)})
    assert reply.status_code == 422
    said = reply.json()["predictions"][0]["error"]
    assert "30000 × 30000 is more than the 50,000,000 pixels allowed" in said


def test_too_many_images_of_one_request_are_refused(server, files):
    form = [("f", ("x.png", files[0].read_bytes())) for _ in range(33)]
    with server.http() as client:
        reply = client.post("/classify?model=colour", files=form)
    assert reply.status_code == 413
    assert "more than the 32 images" in reply.json()["error"]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(start, files):
    server = start("colour", "--max-queue", "4", "--max-images", "4", "--threads", "1")
    data = files[0].read_bytes()
    form = [("f", ("x.png", data))] * 4

    def ask(_: int):
        with server.http() as client:
            return client.post("/classify", files=form)

    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(ask, range(160)))
    statuses = {reply.status_code for reply in replies}
    assert statuses == {200, 429}
    for reply in replies:
        if reply.status_code == 429:
            assert int(reply.headers["Retry-After"]) >= 1
            assert "the queue of model colour is full" in reply.json()["error"]
        else:
            assert len(reply.json()["predictions"]) == 4
    still_answers(server, files)
    with server.http() as client:
        text = client.get("/metrics").text
    assert 'densepath_pending_images{model="colour",version="1"} 0.0' in text
    refused = sum(reply.status_code == 429 for reply in replies)
    assert f'densepath_refused_total{{model="colour",version="1"}} {refused:.1f}' in text


def test_a_full_queue_is_resource_exhausted_over_grpc(start, tensor):
    grpcclient = pytest.importorskip("tritonclient.grpc")
    from tritonclient.utils import InferenceServerException

    server = start("colour", "--max-queue", "12", "--max-images", "12", "--threads", "1")
    said = []

    def ask(_: int) -> None:
        with grpcclient.InferenceServerClient(server.grpc) as client:
            given = grpcclient.InferInput("images", list(tensor.shape), "FP32")
            given.set_data_from_numpy(tensor)
            for _ in range(20):
                try:
                    client.infer("colour", [given])
                    said.append("OK")
                except InferenceServerException as error:
                    said.append(error.status())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert set(said) == {"OK", "StatusCode.RESOURCE_EXHAUSTED"}


def test_headers_that_never_end_cost_a_connection_no_longer_than_they_may(in_process, files):
    """In this process, for the time limit is no option of the command line."""
    with in_process(header_timeout_s=0.3) as running:
        slow = [socket.create_connection(address(running), timeout=30) for _ in range(20)]
        for connection in slow:
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nX-Slow: ")
        for connection in slow:
            connection.sendall(b"a")
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")
            assert connection.recv(65536) == b""
            connection.close()
        still_answers(running, files)


def test_bodies_that_are_too_large_together_are_refused_until_some_are_gone(in_process, files):
    with in_process(max_body_bytes=100_000) as running:
        head = (
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 99000\r\n\r\n"
        )
        slow = [socket.create_connection(address(running), timeout=30) for _ in range(8)]
        for connection in slow:
            connection.sendall(head + bytes(98_999))
        # All of them are in: else the next one may be taken, and one of these refused for it.
        for _ in range(3000):
            if running.service.held_bytes == 8 * 98_999:
                break
            time.sleep(0.01)
        kind = {"Content-Type": "image/png"}
        with running.http() as client:
            reply = client.post("/classify", content=bytes(60_000), headers=kind)
            assert reply.status_code == 429
            assert "too large together" in reply.json()["error"]
            for connection in slow:
                connection.close()
            for _ in range(3000):
                reply = client.post("/classify", content=bytes(60_000), headers=kind)
                if reply.status_code == 422:
                    break
                time.sleep(0.01)
            assert reply.status_code == 422
        still_answers(running, files)


def test_a_body_that_never_ends_is_given_up(in_process, files):
    with in_process(body_timeout_s=0.3) as running:
        said = raw(
            running,
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Connection: close\r\nContent-Length: 1000\r\n\r\nstart",
        )
        assert said.startswith(b"HTTP/1.1 408")
        assert b"did not arrive within 0.3 s" in said
        still_answers(running, files)


def test_headers_beyond_the_limit_are_refused(server):
    said = raw(server, b"GET / HTTP/1.1\r\n" + b"X-Large: " + bytes([97]) * 200_000)
    assert said.startswith(b"HTTP/1.1 431")


def test_connections_beyond_the_limit_are_refused_and_those_inside_served(in_process, files):
    with in_process(max_connections=3) as running:
        kept = [socket.create_connection(address(running), timeout=30) for _ in range(3)]
        for connection in kept:
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert raw(running, b"").startswith(b"HTTP/1.1 503")
        kept[0].close()
        for _ in range(100):
            if raw_status(running) == 200:
                break
            time.sleep(0.05)
        else:
            pytest.fail("no connection came free")
        for connection in kept[1:]:
            connection.close()


def raw_status(server) -> int:
    request = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    return int(raw(server, request).split()[1])


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_answered_400(server, data):
    assert raw(server, data).startswith(b"HTTP/1.1 400")


@pytest.mark.slow
def test_ten_thousand_broken_uploads_leave_no_trace(start, files):
    server = start("colour")
    whole = files[0].read_bytes()
    status = f"/proc/{server.process.pid}/status"

    def ask(_: int) -> set[int]:
        seen = set()
        with server.http() as client:
            for i in range(625):
                broken = bytearray(whole[: 40 + (i * 7) % len(whole)])
                broken[i % len(broken)] ^= 1 + i % 255
                seen.add(client.post("/classify", files={"f": bytes(broken)}).status_code)
        return seen

    seen, readings, before = set(), [], 0
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            seen |= set().union(*pool.map(ask, range(4)))
            readings.append(resident(status))
            before = before or descriptors(server)
    assert seen <= {200, 422}
    assert 422 in seen
    # What is kept grows every time: 2,500 uploads are more than 12 MB.
    growth = [late - early for early, late in itertools.pairwise(readings)]
    assert min(growth) < 4 << 20, growth
    for _ in range(100):
        if descriptors(server) <= before:
            break
        time.sleep(0.05)
    assert descriptors(server) <= before
    still_answers(server, files)


def resident(status: str) -> int:
    line = next(li for li in Path(status).read_text().splitlines() if li.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def descriptors(server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def test_a_client_that_goes_away_leaves_the_queue(start, files):
    server = start("colour", "--threads", "1")
    data = files[0].read_bytes()
    head = (
        f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    ).encode()
    for _ in range(200):
        with socket.create_connection(address(server), timeout=30) as connection:
            connection.sendall(head + data)
    with server.http() as client:
        for _ in range(200):
            if 'densepath_pending_images{model="colour",version="1"} 0.0' in (
                client.get("/metrics").text
            ):
                break
            time.sleep(0.05)
        else:
            pytest.fail("images of clients that went away are still inside")
    still_answers(server, files)


def test_without_the_key_only_health_and_the_page_are_open(start, files, tmp_path):
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    server = start("colour", "--api-key-file", str(file))
    with server.http() as client:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        form = {"f": files[0].read_bytes()}
        for headers in (
            {},
            {"Authorization": "Bearer " + KEY[:-1]},
            {"Authorization": "Basic " + KEY},
            {"X-API-Key": KEY + "x"},
            {"X-API-Key": "é".encode("latin-1")},
        ):
            for path in ("/models", "/metrics", "/openapi.json", "/v2", "/nothing"):
                assert client.get(path, headers=headers).status_code == 401
            reply = client.post("/classify", files=form, headers=headers)
            assert reply.status_code == 401
            assert reply.headers["WWW-Authenticate"] == "Bearer"
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
            assert client.post("/classify", files=form, headers=headers).status_code == 200
            document = client.get("/openapi.json", headers=headers).json()
            assert document["security"]
    grpcclient = pytest.importorskip("tritonclient.grpc")
    from tritonclient.utils import InferenceServerException

    with grpcclient.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live()
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            client.get_model_metadata("colour")
        said = {"authorization": f"Bearer {KEY}"}
        assert client.get_model_metadata("colour", headers=said).name == "colour"
    assert not any(KEY in line for line in server.lines)


def test_tls_is_spoken_on_both_ports(start, files, certificate):
    chain, key = certificate
    server = start("colour", "--tls-certificate", str(chain), "--tls-key", str(key))
    assert server.url.startswith("https://")
    trusted = ssl.create_default_context(cafile=str(chain))
    with server.http(verify=trusted) as client:
        assert client.post("/classify", files={"f": files[0].read_bytes()}).status_code == 200
    grpcclient = pytest.importorskip("tritonclient.grpc")
    with grpcclient.InferenceServerClient(
        server.grpc, ssl=True, root_certificates=str(chain)
    ) as client:
        assert client.is_server_ready()


@pytest.fixture
def certificate(tmp_path):
    """A certificate of 127.0.0.1, signed by itself, and its key."""
    import shutil
    import subprocess

    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    words = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    return chain, key


def test_pages_of_other_sites_may_not_use_it(server):
    """A form of any page reaches a server on its visitor's own machine."""
    with server.http() as client:
        own = server.url
        for origin, status in ((own, 200), ("https://evil.example", 403), ("null", 403)):
            reply = client.post("/v2/repository/index", headers={"Origin": origin})
            assert reply.status_code == status

"""What is lost when the server, a worker or a bundle goes: nothing that was taken and answered."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest

pytest.importorskip("fastapi")
pytestmark = pytest.mark.slow


class Load:
    """Clients that ask without end, and what became of every request."""

    def __init__(self, server, file: Path, *, clients: int = 4, path: str = "/classify") -> None:
        self.answered, self.refused, self.lost, self.unsent = [], [], [], 0
        self._data, self._path = file.read_bytes(), path
        self._server, self._ended = server, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, count: int) -> None:
        """Until so many more have been answered."""
        goal, end = len(self.answered) + count, time.monotonic() + 60
        while len(self.answered) < goal:
            assert time.monotonic() < end, "no answers come any more"
            time.sleep(0.01)

    def _ask(self) -> None:
        kind = {"Content-Type": "image/png"}
        client = self._server.http()
        while not self._ended.is_set():
            try:
                reply = client.post(self._path, content=self._data, headers=kind)
            except httpx.ConnectError:  # nobody listens: nothing was taken
                self.unsent += 1
                time.sleep(0.02)
            except httpx.TransportError as error:
                self.lost.append(repr(error))
            else:
                (self.answered if reply.status_code == 200 else self.refused).append(reply.json())
        client.close()


def same_answers(load: Load) -> None:
    """Every answer is that of the image."""
    first = load.answered[0]["predictions"]
    for body in load.answered:
        assert body["predictions"][0]["class_ids"] == first[0]["class_ids"]


def test_sigterm_answers_all_that_was_taken_and_exits_with_0(start, files):
    # So long that no client is kept from its next request until the server has closed the idle.
    server = start("colour", "--linger", "3")
    with Load(server, files[0]) as load:
        load.wait_for(50)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        time.sleep(0.1)
    assert load.lost == []
    assert load.refused == []
    assert load.unsent > 0
    same_answers(load)
    events = [line["event"] for line in server.log]
    assert events[-1] == "ended"
    assert "draining" in events


def test_a_server_that_is_being_stopped_says_that_it_is_not_ready(start, files):
    server = start("colour", "--linger", "3")
    with server.http() as client:
        assert client.get("/v2/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        for _ in range(100):
            reply = client.get("/v2/health/ready")
            if reply.status_code == 503:
                break
            time.sleep(0.01)
        assert reply.json()["error"].startswith("the server is being stopped")
        assert reply.headers["Connection"] == "close"
        assert client.get("/v2/health/live").status_code == 200
        kind = {"Content-Type": "image/png"}
        taken = client.post("/classify", content=files[0].read_bytes(), headers=kind)
        assert taken.status_code == 200
    assert server.stop() == 0


def test_ctrl_c_ends_it_with_0(start):
    server = start("colour")
    assert server.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_ends_it_at_once(start, workers):
    server = start("colour", "--linger", "1000", "--workers", workers)
    server.process.send_signal(signal.SIGINT)
    while not any(line["event"] == "draining" for line in server.log):
        time.sleep(0.01)
    assert server.stop(signal.SIGINT) == (1 if workers == "1" else 0)


def copy_bundles(bundles: Path, folder: Path) -> Path:
    for name in ("colour", "newer"):
        shutil.copytree(bundles / name, folder / name)
    return folder


@pytest.fixture
def own(bundles, tmp_path, start):
    """Starts a server of copies that a test may break."""
    folder = copy_bundles(bundles, tmp_path)
    return lambda *words: start(f"mine={folder / 'colour'}", *words), folder


def test_a_corrupt_bundle_on_reload_is_refused_and_what_was_loaded_goes_on(own, files):
    begin, folder = own
    server = begin()
    weights = folder / "colour" / "model.safetensors"
    whole = weights.read_bytes()
    with Load(server, files[0], clients=2) as load, server.http() as client:
        load.wait_for(10)
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        reply = client.post("/v2/repository/models/mine/load")
        assert reply.status_code == 409
        said = reply.json()["error"]
        assert "model.safetensors was changed" in said
        assert "goes on answering" in said
        assert str(folder) not in reply.text
        load.wait_for(10)
        (folder / "colour" / "manifest.json").unlink()
        assert client.post("/v2/repository/models/mine/load").status_code == 409
        load.wait_for(10)
    assert (load.lost, load.refused) == ([], [])
    same_answers(load)


def test_a_reload_under_load_drops_nothing_and_the_new_bundle_answers(own, files, answers):
    begin, folder = own
    server = begin()
    with Load(server, files[0]) as load, server.http() as client:
        load.wait_for(20)
        shutil.rmtree(folder / "colour")
        (folder / "newer").rename(folder / "colour")
        for _ in range(5):
            assert client.post("/v2/repository/models/mine/load").status_code == 200
            load.wait_for(5)
        load.answered.clear()
        load.wait_for(10)
    assert (load.lost, load.refused) == ([], [])
    assert load.answered[-1]["predictions"][0]["class_ids"] == answers["newer"][0]["class_ids"][:5]


def test_sighup_opens_the_bundles_anew(own, files, answers):
    begin, folder = own
    server = begin()
    shutil.rmtree(folder / "colour")
    (folder / "newer").rename(folder / "colour")
    server.process.send_signal(signal.SIGHUP)
    with server.http() as client:
        for _ in range(200):
            reply = client.post("/classify", files={"f": files[0].read_bytes()}).json()
            if reply["predictions"][0]["class_ids"] == answers["newer"][0]["class_ids"][:5]:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the old bundle answers still")


# Several processes.


def test_a_worker_that_is_killed_under_load_is_replaced_and_the_others_answer(start, files):
    server = start("colour", "--workers", "2")
    first = server.workers()
    assert len(first) == 2
    with Load(server, files[0], clients=6) as load:
        load.wait_for(100)
        os.kill(first[0], signal.SIGKILL)
        load.wait_for(200)
        for _ in range(400):
            if len(server.workers()) == 2 and first[0] not in server.workers():
                break
            time.sleep(0.05)
        else:
            pytest.fail("no worker took the place of the one that was killed")
        load.wait_for(100)
    # At most what the killed one was answering, one request a client.
    assert len(load.lost) <= 6, load.lost
    assert load.refused == []
    same_answers(load)
    assert any(line["event"] == "worker died" for line in server.log)
    assert server.stop() == 0


def test_sigterm_drains_all_workers(start, files):
    server = start("colour", "--workers", "2")
    with Load(server, files[0]) as load:
        load.wait_for(50)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    assert (load.lost, load.refused) == ([], [])
    same_answers(load)


def test_orders_reach_every_worker_and_their_counters_are_one(start, files):
    server = start("colour", "gray", "--workers", "2")
    form = {"f": files[0].read_bytes()}

    def ask(path: str, **options) -> httpx.Response:
        with server.http() as client:  # a connection each: any worker may answer
            return client.post(path, **options)

    for _ in range(20):
        assert ask("/classify?model=gray", files=form).status_code == 200
    with server.http() as client:
        text = client.get("/metrics").text
    assert 'densepath_images_total{model="gray",outcome="answered",version="1"} 20.0' in text, text
    assert ask("/v2/repository/models/gray/unload").status_code == 200
    statuses = {ask("/classify?model=gray", files=form).status_code for _ in range(20)}
    assert statuses == {404}
    assert ask("/v2/repository/models/x/load").status_code == 404
    assert ask("/v2/repository/models/gray/load").status_code == 200
    statuses = {ask("/classify?model=gray", files=form).status_code for _ in range(20)}
    assert statuses == {200}


def test_workers_end_when_the_process_that_watches_them_is_killed(start):
    server = start("colour", "--workers", "2")
    pids = server.workers()
    server.process.kill()
    server.process.wait(30)
    for _ in range(400):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.05)
    pytest.fail("workers are left")

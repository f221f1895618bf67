"""What the page does about a server that refuses, is busy, or is gone, in headless Chromium."""

from __future__ import annotations

import signal
import socket
import time
import urllib.error
import urllib.request
from importlib.resources import files

import httpx2 as httpx
import pytest

from densepath.serving.page import FILES

pytestmark = [pytest.mark.slow, pytest.mark.web]

KEY = "a-key-for-the-tests-of-the-page"
REFUSE = """(() => {
    const real = window.fetch;
    window.asked = [];
    let left = NUMBER;
    window.fetch = (address, options) => {
        if (!address.startsWith("classify")) return real(address, options);
        asked.push(address);
        if ((left -= 1) < 0) return real(address, options);
        const headers = { "Retry-After": "1" };
        const body = JSON.stringify({ error: "the queue is full" });
        return Promise.resolve(new Response(body, { status: 429, headers }));
    };
    const told = document.getElementById("live");
    window.told = [];
    new MutationObserver(() => window.told.push(told.textContent))
        .observe(told, { childList: true, characterData: true, subtree: true });
})()"""


def test_a_busy_server_is_asked_again(browser, one, labels, images):
    browser.visit(one)
    browser.run(REFUSE.replace("NUMBER", "2"))
    (answer,) = browser.answers(images[:1])
    assert len(answer["labels"]) == len(labels["hostile"])
    assert browser.run("asked.length") == 3
    *busy, last = [text for text in browser.run("told") if text]
    assert busy == [f"The server is busy. Trying again in 1 s ({i} of 3) …" for i in (1, 2)]
    assert last.startswith(f"{images[0].name}: ")


def test_a_server_that_stays_busy_is_not_asked_for_ever(browser, one, images):
    browser.visit(one)
    browser.run(REFUSE.replace("NUMBER", "4"))
    (answer,) = browser.answers(images[:1])
    assert answer == {"path": images[0].name, "error": "the server was busy 4 times"}
    assert browser.run("asked.length") == 4
    browser.run("document.querySelector('.again').click()")
    browser.wait_for("densepath.answers()[0]?.labels")
    assert browser.run("document.querySelector('.card').className") == "card"
    assert browser.run("document.activeElement === document.querySelector('.card')")


def test_at_most_four_images_are_sent_at_a_time(browser, one, images):
    browser.visit(one)
    browser.run("""(() => {
        const real = window.fetch;
        window.most = 0;
        let running = 0;
        window.fetch = async (...given) => {
            most = Math.max(most, running += 1);
            await new Promise((resolve) => setTimeout(resolve, 20));
            return real(...given).finally(() => { running -= 1; });
        };
    })()""")
    browser.answers(images * 3)
    assert browser.run("most") == 4


def test_a_file_that_is_too_large_says_so(browser, serving, images):
    with serving("hostile", "--max-body-mb", "0.02") as server:
        browser.visit(server.address)
        photo = next(image for image in images if image.name == "flower.jpg")
        assert photo.stat().st_size > 20_000
        (answer,) = browser.answers([photo])
        assert "larger than the 0.02 MB allowed" in answer["error"]
        assert "larger than the 0.02 MB allowed" in browser.text(".card .state")
        assert browser.run("document.querySelector('.again').hidden")


def test_a_server_that_is_gone_is_waited_for(browser, serving, images):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving("hostile", port=port) as server:
        browser.visit(server.address)
        (before,) = browser.answers(images[:1])
        server.stop()
        found = browser.answers(images[1:3])
        assert {answer["error"] for answer in found} == {"the server cannot be reached"}
        browser.wait_for("!document.getElementById('notice').hidden")
        assert browser.text("#notice").startswith("The server cannot be reached.")
    with serving("hostile", port=port):
        browser.wait_for("document.getElementById('notice').hidden")
        browser.wait_for("densepath.answers().every((answer) => answer?.labels)")
        assert browser.run("densepath.answers()[0]") == before


def test_a_server_that_is_being_stopped_says_so(browser, serving, labels, images):
    with serving("hostile", "--linger", "60") as server:
        server.process.send_signal(signal.SIGTERM)
        while is_ready(server.address):
            time.sleep(0.05)
        browser.visit(server.address)
        browser.wait_for("!document.getElementById('notice').hidden")
        assert browser.text("#notice").startswith("The server is being stopped")
        # It takes images still, until its balancer has seen that it is not ready.
        (answer,) = browser.answers(images[:1])
        assert len(answer["labels"]) == len(labels["hostile"])


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}v2/health/ready"):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code != 503


def test_the_api_key_is_asked_for_and_kept_in_the_tab(browser, serving, agree, images):
    with serving("hostile", "many", key=KEY) as server:
        browser.open(server.address)
        browser.wait_for("document.activeElement.id === 'key'")
        field = "(({ type, autocomplete }) => [type, autocomplete])"
        assert browser.run(f"{field}(document.getElementById('key'))") == ["password", "off"]
        assert browser.run("document.getElementById('drop').hidden")
        for wrong in ("another key", "ключ", "a-wrong-key-for-the-tests"):
            browser.run("document.getElementById('key-hint').textContent = ''")
            browser.send("Input.insertText", text=wrong)
            browser.press("Enter", text="\r")
            browser.wait_for("document.getElementById('key-hint').textContent")
            assert browser.text("#key-hint") == "The server does not take this key."
            assert browser.focused() == "key"
            assert browser.run("sessionStorage.length") == 0
        browser.send("Input.insertText", text=KEY)
        browser.press("Enter", text="\r")
        browser.wait_for("!document.getElementById('drop').hidden")
        assert browser.run("document.getElementById('access').hidden")
        agree(browser.answers(images), "hostile", images, top_k=7)
        browser.visit(server.address)
        assert browser.run("document.getElementById('access').hidden")
        assert browser.run("document.cookie + localStorage.length") == "0"
        assert KEY not in browser.run("document.body.innerText + location.href")


def test_the_page_is_its_files_which_need_no_key_and_nothing_beside_them(serving):
    folder = files("densepath.serving.page")
    kept = {file.name for file in folder.iterdir() if not file.name.startswith("__")}
    assert kept == {name for name, _ in FILES.values()}
    with serving("hostile", key=KEY) as server, httpx.Client(base_url=server.address) as client:
        for path, (name, kind) in FILES.items():
            reply = client.get(path)
            assert reply.status_code == 200
            assert reply.headers["Content-Type"] == kind
            assert reply.content == (folder / name).read_bytes()
        for name in ("__init__.py", "index.html", "nothing.js", ""):
            assert client.get(f"/page/{name}").status_code == 401
            assert client.get(f"/page/{name}", headers={"X-API-Key": KEY}).status_code == 404

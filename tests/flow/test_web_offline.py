"""The browser page without a network: kept whole, by its user's choice, or not at all.

Each site is a copy of the built page on a plain server, below a path of odd characters.
"""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import json
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image

from densepath.exporting.export import export
from fixtures.bundles import flowers

pytestmark = [pytest.mark.slow, pytest.mark.web]

ROOT = Path(__file__).parents[2]
WEB = ROOT / "deploy" / "web"
BELOW = "my site/Löwe & #1, 100%"
BROWSERS_OWN = (".google.com", ".googleapis.com", ".gvt1.com")
NEW = "/* the next version */"


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


PAGE = module(ROOT / "tests" / "flow" / "test_web.py")
chromium = PAGE.chromium
built = PAGE.built


class Site:
    """The page below a path of a plain server, which may be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.root, self.page = folder, folder / BELOW
        self.asked: list[str] = []
        self._port = 0
        self.start()

    def start(self) -> None:
        """Listens, on the port that it had."""
        asked = self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                asked.append(self.path)

        handler = partial(Handler, directory=str(self.root))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def address(self) -> str:
        return f"{self.origin}/{quote(BELOW)}/"

    def change(self, name: str, text: str = NEW, *, listed: bool = True) -> None:
        """Another version of a file; `listed` as a build does, for the whole page."""
        file = self.page / name
        if listed:
            file.write_bytes(file.read_bytes() + text.encode())
        listing = self.page / "vendor" / "files.js"
        start, value = listing.read_text(encoding="utf-8").split("self.densepathPage = ")
        page = json.loads(value.strip().removesuffix(";"))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        page["files"][name]["sha256"] = digest if listed else "0" * 64
        page["version"] = hashlib.sha256(json.dumps(page["files"]).encode()).hexdigest()[:12]
        text = f"{start}self.densepathPage = {json.dumps(page)};\n"
        listing.write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def exported(tmp_path_factory, built) -> Path:
    """Two bundles: `old`, and `new`, which answers otherwise."""
    folder = tmp_path_factory.mktemp("exported")
    for seed, name in enumerate(("old", "new")):
        export(
            flowers(seed=3 + 7 * seed), folder / name, to=["onnx"], num_images=2, batch_sizes=[1]
        )
    return folder


@pytest.fixture
def site(tmp_path, exported) -> Iterator[Site]:
    ignored = shutil.ignore_patterns("node_modules", "__pycache__", "bundle")
    shutil.copytree(WEB, tmp_path / "site" / BELOW, ignore=ignored)
    shutil.copytree(exported / "old", tmp_path / "site" / BELOW / "bundle")
    made = Site(tmp_path / "site")
    yield made
    made.stop()


class Tab(chromium.Chromium):
    """A tab with what a user sees and does on the page."""

    def visit(self, address: str) -> None:
        """The page is there, and says what is kept of it."""
        self.open(address)
        self.settle()

    def settle(self) -> None:
        """Waits until the page says what is kept of it."""
        self.wait_for("document.getElementById('offline-text')?.checkVisibility()")
        self.wait_for("document.getElementById('offline-text').textContent !== ''")

    def text(self, name: str) -> str:
        """The element's text, with plain spaces."""
        return self.run(f"document.getElementById('{name}').innerText").replace("\xa0", " ")

    def click(self, name: str) -> None:
        """Presses a button, which can be seen."""
        self.wait_for(f"document.getElementById('{name}')?.checkVisibility()")
        self.run(f"document.getElementById('{name}').click()")

    def reloaded(self) -> None:
        """Waits until the page has begun anew, and there is nothing new."""
        self.wait_for("document.getElementById('update')?.hidden")
        self.settle()

    def keep(self) -> None:
        """Keeps the page and its bundle."""
        self.click("keep")
        self.wait_for("document.getElementById('keep').hidden")

    def answer(self, image: Path) -> dict:
        """The page's answer to one more image."""
        number = self.run("densepath.answers().length")
        self.choose_files("#files", [image])
        self.wait_for(f"densepath.answers().at({number})")
        return self.run(f"densepath.answers().at({number})")

    def stored(self) -> list[str]:
        """The names of all that the browser keeps for the origin."""
        return self.run("caches.keys()")

    def registrations(self) -> list[str]:
        """The scopes of the origin's service workers."""
        scopes = "navigator.serviceWorker.getRegistrations().then(all => all.map(r => r.scope))"
        return self.run(scopes)

    def file(self, name: str) -> str:
        """The text of a file as the page gets it."""
        return self.run(f"fetch({json.dumps(name)}).then(answer => answer.text())")


@pytest.fixture(scope="session")
def tab(built) -> Iterator[Tab]:
    """One for all sites: each has a port of its own, for which nothing was kept before."""
    with Tab() as running:
        running.send("Page.enable")
        yield running


@pytest.fixture(scope="session")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("given") / "Blüte #1?.png"
    Image.fromarray(PAGE.PHOTO).save(path)
    return path


def hosts_of(net_log: Path) -> set[str]:
    """Where a request was begun to by any part of the browser, but for its maker's news."""
    text = net_log.read_text(encoding="utf-8", errors="replace")
    addresses = re.findall(r'"url":"((?:http|ws)s?://[^"]*)"', text)
    assert addresses
    hosts = {urlsplit(address).netloc for address in addresses}
    return {host for host in hosts if not host.endswith(BROWSERS_OWN)}


def test_a_kept_page_answers_without_a_network_after_a_restart(site, image, tmp_path):
    log = tmp_path / "net.json"
    profile = tmp_path / "profile"
    with Tab(f"--log-net-log={log}", profile=profile) as tab:
        tab.visit(site.address)
        assert tab.registrations() == tab.stored() == []
        assert tab.text("offline-text").startswith("Nothing is kept on this device")
        before = tab.answer(image)
        promised = tab.text("keep")
        tab.keep()
        size = re.search(r"\((\d+\.\d) MB\)", tab.text("remove"))[1]
        files = [*site.page.rglob("*.*")]
        assert float(size) <= sum(f.stat().st_size for f in files if f.is_file()) / 1e6
        assert float(size) > 14
        assert promised == f"Keep for use without a network ({size} MB)"
    assert hosts_of(log) == {urlsplit(site.origin).netloc}
    assert all(path.startswith(urlsplit(site.address).path) for path in site.asked)
    site.stop()
    with Tab(f"--log-net-log={log}", profile=profile) as tab:
        tab.visit(site.address)
        assert tab.answer(image) == before
        assert before["path"] == image.name
        assert tab.text("offline-text") == "This page works without a network."
        assert f"({size} MB)" in tab.text("remove")
    assert hosts_of(log) == {urlsplit(site.origin).netloc}
    site.start()


def test_a_kept_page_is_isolated_by_itself(site, tab, image):
    """So that it has several threads on a server that sends no headers for them."""
    tab.visit(site.address)
    tab.answer(image)
    said = tab.text("speed-text")
    cores = tab.run("navigator.hardwareConcurrency")
    assert "1 thread on" in said
    assert "came without the headers Cross-Origin-Opener-Policy" in said
    tab.keep()
    tab.visit(site.address)
    tab.answer(image)
    assert tab.run("crossOriginIsolated")
    assert f"{min(cores, 8)} thread" in tab.text("speed-text")
    assert "headers" not in tab.text("speed-text")


@pytest.mark.parametrize("name", ["vendor/style.css", "page.js", "index.html", "vendor/speed.js"])
def test_a_new_version_is_announced_and_comes_whole(site, tab, name):
    tab.visit(site.address)
    tab.keep()
    site.change(name, "<!-- the next version -->" if name.endswith("html") else NEW)
    site.change("engine.js")
    site.asked.clear()
    tab.visit(site.address)
    for _ in range(2):  # The browser's own reload does not yet bring it.
        tab.wait_for("!document.getElementById('update').hidden")
        assert "This page has a new version." in tab.text("update")
        assert "next version" not in tab.file(name) + tab.file("engine.js")
        tab.run("window.isBefore = true")
        tab.send("Page.reload")
        tab.wait_for("document.readyState === 'complete' && !window.isBefore")
        tab.settle()
    tab.click("reload")
    tab.reloaded()
    assert not [path for path in site.asked if path.endswith(".wasm")]  # It is the same.
    assert "next version" in tab.file(name)
    assert "next version" in tab.file("engine.js")
    tab.wait_for("caches.keys().then(names => names.length === 2)")  # The page, and its bundle.
    site.stop()
    tab.visit(site.address)
    assert "next version" in tab.file(name)
    site.start()


def test_of_two_tabs_one_brings_the_new_version_and_the_other_is_told(site, tab):
    tab.visit(site.address)
    tab.keep()
    tab.visit(site.address)
    site.change("vendor/style.css")
    other = tab.send("Target.createTarget", url=site.address, background=True)["targetId"]
    waiting = "navigator.serviceWorker.getRegistration().then(({ waiting }) => waiting"
    tab.wait_for(f"{waiting} !== null)")
    tab.run(f"{waiting}.postMessage('answer from now on'))")  # As the other's button does.
    tab.wait_for(f"{waiting} === null)")
    tab.wait_for("!document.getElementById('update').hidden")
    assert "This page has a new version." in tab.text("update")
    tab.click("reload")
    tab.reloaded()
    assert NEW in tab.file("vendor/style.css")
    tab.send("Target.closeTarget", targetId=other)


@pytest.mark.parametrize("name", ["page.css", "vendor/ort-wasm-simd-threaded.mjs", "missing"])
def test_a_version_of_which_a_file_is_missing_or_another_is_not_taken(site, tab, image, name):
    """As while a new build is being copied to a server."""
    tab.visit(site.address)
    tab.keep()
    if name == "missing":
        site.change("icon.svg")
        (site.page / "icon.svg").unlink()
    else:
        site.change(name, listed=False)
    tab.visit(site.address)
    tab.wait_for("document.getElementById('offline-note').textContent !== ''")
    assert tab.text("offline-note").startswith("A version cannot be kept: ")
    assert ("the server answers 404" in tab.text("offline-note")) == (name == "missing")
    assert tab.run("document.getElementById('update').hidden")
    tab.wait_for("caches.keys().then(names => names.length === 2)")  # It has tried again.
    site.stop()
    tab.visit(site.address)
    assert len(tab.answer(image)["scores"]) == 5
    site.start()


def test_a_page_that_is_not_of_one_build_is_not_kept(site, tab):
    site.change("errors.js", listed=False)
    tab.visit(site.address)
    tab.click("keep")
    tab.wait_for("document.getElementById('offline-note').textContent.startsWith('Not kept')")
    note = tab.text("offline-note")
    assert "errors.js is not the file of version" in note
    assert "npm run build" in note
    assert tab.stored() == tab.registrations() == []


def test_a_newer_model_is_announced_and_replaces_the_kept_one(site, tab, image, exported):
    tab.visit(site.address)
    tab.keep()
    old = tab.answer(image)
    shutil.rmtree(site.page / "bundle")
    shutil.copytree(exported / "new", site.page / "bundle")
    tab.visit(site.address)
    tab.wait_for("!document.getElementById('update').hidden")
    assert "The server has a newer model." in tab.text("update")
    assert tab.answer(image) == old
    tab.click("reload")
    tab.reloaded()
    site.stop()
    tab.visit(site.address)
    new = tab.answer(image)
    assert np.abs(np.subtract(new["scores"], old["scores"])).max() > 1e-3
    assert len([name for name in tab.stored() if " bundle " in name]) == 1
    site.start()


DAMAGED = """caches.keys().then(async (names) => {
    const cache = await caches.open(names.find((name) => name.includes(" bundle ")));
    const model = (await cache.keys()).find(({ url }) => url.endsWith("/model.onnx"));
    await CHANGE;
})"""


@pytest.mark.parametrize("change", ["cache.put(model, new Response('x'))", "cache.delete(model)"])
def test_a_kept_model_that_is_damaged_is_fetched_again_or_said(site, tab, image, change):
    tab.visit(site.address)
    tab.keep()
    damage = DAMAGED.replace("CHANGE", change)
    tab.run(damage)
    tab.visit(site.address)
    assert tab.text("offline-text") == "This page works without a network."
    assert len(tab.answer(image)["scores"]) == 5
    tab.run(damage)
    site.stop()
    tab.open(site.address)
    text = PAGE.failure(tab)
    assert text.startswith("What is kept on this device cannot be used: ")
    assert "model.onnx" in text
    assert "cannot be reached" in text
    site.start()


def test_removing_leaves_nothing_and_the_page_can_be_kept_again(site, tab, image):
    tab.visit(site.address)
    tab.keep()
    tab.visit(site.address)  # From now on the service worker answers.
    size = re.search(r"\(.* MB\)", tab.text("remove"))[0].strip("()")
    tab.click("remove")
    tab.wait_for("document.getElementById('offline-note').textContent.startsWith('Removed')")
    assert tab.text("offline-note") == f"Removed {size}."
    assert tab.stored() == tab.registrations() == []
    assert "Nothing is kept on this device" in tab.text("offline-text")
    tab.keep()
    site.stop()
    tab.visit(site.address)
    assert len(tab.answer(image)["scores"]) == 5
    site.start()


def test_what_the_browser_threw_away_comes_from_the_server_as_a_whole(site, tab):
    tab.visit(site.address)
    tab.keep()
    site.change("vendor/style.css")
    site.change("engine.js")
    tab.run("""caches.keys().then(async (names) => {
        const cache = await caches.open(names.find((name) => name.includes(" page ")));
        await cache.delete((await cache.keys()).find(({ url }) => url.endsWith("/style.css")));
    })""")
    tab.visit(site.address)
    assert NEW in tab.file("vendor/style.css")
    assert NEW in tab.file("engine.js")


def test_two_pages_of_one_server_do_not_touch_each_others_files(site, tab, tmp_path):
    other = f"{site.origin}/{quote(BELOW)}/second/"
    shutil.copytree(site.page, tmp_path / "second")
    (tmp_path / "second").rename(site.page / "second")
    for address in (site.address, other):
        tab.visit(address)
        tab.keep()
    assert sorted(tab.registrations()) == sorted([site.address, other])
    assert len(tab.stored()) == 4
    tab.click("remove")
    tab.wait_for("document.getElementById('offline-note').textContent.startsWith('Removed')")
    assert tab.registrations() == [site.address]
    site.stop()
    tab.visit(site.address)
    assert tab.text("offline-text") == "This page works without a network."
    site.start()


@pytest.mark.parametrize("name", ["Blumen #2", "what?", "100%", "a+b & c", "花"])
def test_a_bundle_of_any_name_is_opened_and_kept(site, tab, image, name):
    (site.page / "bundle").rename(site.page / name)
    address = f"{site.address}?bundle={quote(name, safe='')}"
    tab.visit(address)
    before = tab.answer(image)
    tab.keep()
    site.stop()
    tab.visit(address)
    assert tab.answer(image) == before
    # Installed, the page begins without `?bundle=`: it shows what is kept.
    tab.open(site.address)
    PAGE.failure(tab)
    tab.wait_for("document.querySelector('#kept a') !== null")
    tab.run("document.querySelector('#kept a').click()")
    tab.wait_for("location.search !== ''")
    tab.settle()
    assert tab.answer(image) == before
    site.start()


REFUSING = {
    "no service workers": "delete Navigator.prototype.serviceWorker",
    "service workers are forbidden": """Object.defineProperty(Navigator.prototype,
        "serviceWorker", { get() { throw new DOMException("denied", "SecurityError"); } })""",
    "registrations are forbidden": """ServiceWorkerContainer.prototype.getRegistration =
        () => Promise.reject(new DOMException("not here", "SecurityError"))""",
    "no storage": """CacheStorage.prototype.keys =
        () => Promise.reject(new DOMException("not here", "SecurityError"))""",
}


@pytest.mark.parametrize("case", REFUSING)
def test_a_browser_that_keeps_nothing_still_answers_and_says_so(site, tab, image, case):
    script = tab.send("Page.addScriptToEvaluateOnNewDocument", source=REFUSING[case])
    tab.visit(site.address)
    assert tab.text("offline-text").startswith("Only with its server: this browser keeps no pages")
    assert tab.run("document.getElementById('keep').hidden")
    assert len(tab.answer(image)["scores"]) == 5
    tab.send("Page.removeScriptToEvaluateOnNewDocument", **script)


def test_over_http_from_another_machine_nothing_is_kept(site):
    with Tab("--host-resolver-rules=MAP page.test 127.0.0.1") as tab:
        tab.open(site.address.replace("127.0.0.1", "page.test"))
        assert "localhost or over https" in PAGE.failure(tab)
        tab.wait_for("document.getElementById('offline-text').textContent !== ''")
        assert "https or from localhost only" in tab.text("offline-text")
        assert tab.run("document.getElementById('keep').hidden")


def test_a_device_without_room_is_left_as_it_was(site, tab, image):
    tab.visit(site.address)
    tab.send("Storage.overrideQuotaForOrigin", origin=site.origin, quotaSize=5_000_000)
    tab.click("keep")
    tab.wait_for("document.getElementById('offline-note').textContent.startsWith('Not kept')")
    assert "quota" in tab.text("offline-note").lower()
    assert tab.stored() == tab.registrations() == []
    assert len(tab.answer(image)["scores"]) == 5


def test_a_server_that_breaks_off_leaves_nothing_behind(site, tab):
    tab.visit(site.address)
    site.stop()
    tab.click("keep")
    tab.wait_for("document.getElementById('offline-note').textContent.startsWith('Not kept')")
    assert tab.stored() == tab.registrations() == []
    site.start()


def test_the_page_can_be_installed(site, tab):
    tab.visit(site.address)
    found = tab.send("Page.getAppManifest")
    assert found["errors"] == []
    assert found["url"] == f"{site.address}densepath.webmanifest"
    assert tab.send("Page.getInstallabilityErrors")["installabilityErrors"] == []
    for icon in json.loads(found["data"])["icons"]:
        if icon["type"] == "image/png":
            with Image.open(WEB / icon["src"]) as picture:
                assert icon["sizes"] == "{}x{}".format(*picture.size)


def test_the_build_lists_every_file_of_the_page(site):
    text = (site.page / "vendor" / "files.js").read_text(encoding="utf-8")
    listed = json.loads(text.split("self.densepathPage = ")[1].strip().removesuffix(";"))["files"]
    for name, file in listed.items():
        content = (site.page / name).read_bytes()
        assert file == {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    imported = {
        str((script.parent / found).resolve().relative_to(site.page.resolve()))
        for script in site.page.glob("*.js")
        for found in re.findall(r'(?:from|import) "(\./[^"]+)"', script.read_text(encoding="utf-8"))
    }
    named = {"index.html", "page.css", "vendor/style.css", "complete.js", "worker.js"}
    assert named | imported <= {*listed}
    assert not {name for name in listed if name.endswith((".py", ".json", "build.mjs"))} - {
        "vendor/manifest-1.json"
    }

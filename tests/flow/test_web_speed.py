"""How fast the browser page says it is; images of a folder; images that are no longer wanted."""

from __future__ import annotations

import importlib.util
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.web]

ROOT = Path(__file__).parents[2]
# A card's `640 × 427 · decode 2.1 ms · preprocess 1.0 ms · network 3.2 ms`.
TIMES = "[...document.querySelectorAll('.times')].map(line => line.textContent)"


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


PAGE = module(ROOT / "tests" / "flow" / "test_web.py")
built, bundles, site = PAGE.built, PAGE.bundles, PAGE.site


@pytest.fixture(scope="session")
def browser(site) -> Iterator[PAGE.chromium.Chromium]:
    with PAGE.chromium.Chromium(timeout_s=60) as running:
        yield running


@pytest.fixture
def page(browser, site):
    """The page with the bundle `colour`."""
    browser.open(f"{site}?bundle=bundle/colour/")
    browser.run("densepath.ready.then(() => true)")
    return browser


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Images in two folders, two of them with the same name, and what is no image."""
    made = tmp_path_factory.mktemp("given") / "Urlaub #1"
    (made / "zweiter Tag").mkdir(parents=True)
    picture = Image.fromarray(PAGE.PHOTO)
    for name in ("a.jpg", "b.png", "c.webp", "zweiter Tag/a.jpg"):
        picture.save(made / name)
    (made / "notes.txt").write_text("no image")
    (made / "zweiter Tag" / "Thumbs.db").write_bytes(b"no image")
    return made


def text(page, name: str) -> str:
    return page.run(f"document.getElementById('{name}').textContent").replace("\xa0", " ")


def settle(page, number: int) -> None:
    page.wait_for(f"densepath.answers().length === {number} && densepath.answers().every(Boolean)")


def number(pattern: str, sentence: str) -> float:
    found = re.search(pattern, sentence)
    assert found, sentence
    return float(found[1])


def test_the_sentence_has_the_medians_of_the_cards_and_the_images_a_second(page, folder):
    page.choose_files("#files", [folder / "a.jpg", folder / "b.png", folder / "c.webp"])
    settle(page, 3)
    said = text(page, "speed-text")
    lines = page.run(TIMES)
    for step in ("decode", "preprocess", "network"):
        times = [number(rf"{step}\s([\d.]+)", line) for line in lines]
        assert number(rf"{step} ([\d.]+) ms", said) == pytest.approx(median(times), abs=0.6)
    assert said.startswith("tiny (float32): ")
    assert "; median of the last 3 images. 3 images in " in said
    seconds = number(r"3 images in ([\d.]+) s", said)
    assert number(r"s: ([\d.]+) images/s", said) == pytest.approx(3 / seconds, rel=0.1)
    assert re.search(r"ONNX Runtime [\d.]+ in WebAssembly, \d+ threads? on \d+ cores?\.$", said)
    page.run("document.getElementById('clear').click()")
    page.choose_files("#files", [folder / "a.jpg"])
    settle(page, 1)
    assert "measured on one image. ONNX Runtime" in text(page, "speed-text")


def test_the_sentence_is_there_before_the_last_answer(page, folder):
    page.run("""(() => {
        window.seen = [];
        new MutationObserver(() => {
            seen.push(document.getElementById("speed-text").textContent);
        }).observe(document.getElementById("speed-text"), { childList: true });
    })()""")
    page.choose_files("#files", [folder / "a.jpg", folder / "b.png", folder / "c.webp"])
    settle(page, 3)
    seen = page.run("seen")
    assert len(seen) == 3
    assert "measured on one image" in seen[0]
    assert "last 2 images" in seen[1]


def test_medians_are_of_the_last_hundred_and_a_rate_is_of_the_images_given_together(page):
    found = page.run("""import("./vendor/speed.js").then(({ Speed }) => {
        const speed = new Speed();
        const first = [speed.figures, speed.rate];
        speed.begin(3);
        speed.end({ network: 1000 });
        const one = [speed.figures, speed.rate];
        speed.end(null);
        speed.end({ network: 2 });
        const two = [speed.figures, speed.rate];
        speed.begin(150);
        for (let i = 0; i < 150; i += 1) speed.end({ network: i });
        return { first, one, two, many: [speed.figures, speed.rate] };
    })""")
    assert found["first"] == [None, ""]
    assert found["one"] == [{"medians": {"network": 1000}, "num": 1}, ""]
    figures, rate = found["two"]
    assert figures == {"medians": {"network": 501}, "num": 2}
    assert rate.startswith("2\xa0images in ")
    figures, rate = found["many"]
    assert figures == {"medians": {"network": median(range(50, 150))}, "num": 100}
    assert rate.startswith("150\xa0images in ")


def test_images_that_are_refused_count_nowhere(page, folder):
    page.choose_files("#files", [folder / "notes.txt"])
    settle(page, 1)
    assert page.run("document.getElementById('speed').hidden")
    page.choose_files("#files", [folder / "a.jpg", folder / "notes.txt", folder / "b.png"])
    settle(page, 4)
    assert "median of the last 2 images. 2 images in" in text(page, "speed-text")


def test_the_sentence_is_copied_or_selected(page, site, folder):
    page.choose_files("#files", [folder / "a.jpg", folder / "b.png"])
    settle(page, 2)
    for works in ("window.copied = given; return Promise.resolve()", "return Promise.reject()"):
        page.run(f"navigator.clipboard.writeText = (given) => {{ {works}; }}; null")
        page.run("document.getElementById('copy').click()")
        page.wait_for("document.getElementById('copy').textContent !== 'Copy'")
        page.wait_for("document.getElementById('copy').textContent === 'Copy'")
    assert page.run("copied") == text(page, "speed-text")
    assert page.run("getSelection().toString()").replace("\xa0", " ") == text(page, "speed-text")


def test_a_dropped_folder_is_answered_in_order_and_the_rest_of_it_is_counted(page, folder):
    point = {"x": 200, "y": 200}
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.send("Input.dispatchDragEvent", type=kind, data=data, **point)
    settle(page, 4)
    names = ["a.jpg", "b.png", "c.webp", "zweiter Tag/a.jpg"]
    paths = page.run("densepath.answers().map(({ path }) => path)")
    assert paths == [f"{folder.name}/{name}" for name in names]
    assert text(page, "left-out") == "Left out, as no image: 2 other files of the folder."
    assert "4 images in" in text(page, "speed-text")


def test_a_chosen_folder_is_answered(page, folder):
    page.choose_files("#folder", [folder])
    settle(page, 4)
    paths = page.run("densepath.answers().map(({ path }) => path)")
    assert paths[-1] == f"{folder.name}/zweiter Tag/a.jpg"
    assert text(page, "left-out").startswith("Left out, as no image: 2 ")


def test_cleared_images_are_not_waited_for(page, folder, tmp_path):
    """They are taken out of the worker's queue, and nothing goes wrong on the page."""
    page.run("addEventListener('unhandledrejection', (e) => { window.wrong = String(e.reason); })")
    many = []
    for i in range(60):
        many.append(tmp_path / f"{i}.jpg")
        shutil.copy(folder / "a.jpg", many[-1])
    page.choose_files("#files", many)
    page.wait_for("densepath.answers().some(Boolean)")
    page.run("document.getElementById('clear').click()")
    page.choose_files("#files", [folder / "b.png"])
    settle(page, 1)
    assert page.run("densepath.answers()[0].path") == "b.png"
    assert "measured on one image" in text(page, "speed-text")
    assert page.run("window.wrong ?? null") is None


def test_a_page_that_was_not_built_says_so(built, bundles, tmp_path):
    shutil.copytree(
        PAGE.WEB, tmp_path / "web", ignore=shutil.ignore_patterns("node_modules", "vendor")
    )
    serve = module(tmp_path / "web" / "serve.py")
    with serve.server(bundles, quiet=True) as server, PAGE.chromium.Chromium() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.open(f"http://127.0.0.1:{server.server_address[1]}/?bundle=bundle/colour/")
        assert "Run `npm ci` and `npm run build`." in PAGE.failure(browser)
        server.shutdown()

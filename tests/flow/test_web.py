"""The browser page from end to end, in headless Chromium: the answers of `densepath predict`."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from densepath.exporting.export import export
from densepath.images.decode import open_image
from densepath.images.intensity import Intensity
from densepath.images.preprocess import Preprocess
from fixtures.bundles import COLOUR, GRAY, flowers

pytestmark = [pytest.mark.slow, pytest.mark.web]

ROOT = Path(__file__).parents[2]
WEB = ROOT / "deploy" / "web"
DENSEPATH = Path(sys.executable).with_name("densepath")
PHOTO = load_sample_image("flower.jpg")
# As everywhere: the same five classes, scores within this.
MOST_APART = 1e-3
NOT_IN_BROWSERS = "which browsers do not read"
# A browser shows it, Pillow does not.
ONLY_IN_BROWSERS = ("wrong checksum.png",)


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


chromium = module(WEB / "chromium.py")
STRANGE = module(ROOT / "tests" / "images" / "test_decode_strange_images.py")


@pytest.fixture(scope="session")
def built(once):
    """The page with ONNX Runtime beside it. Skips where a tool to build or run it is missing."""
    if chromium.find_chromium() is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    once("page", build_page)


def build_page(_: Path) -> None:
    """Bring ONNX Runtime into the page's folder."""
    if (WEB / "vendor").is_dir():
        return
    if shutil.which("npm") is None:
        pytest.skip("the page is not built, and npm is not installed: docs/web.md")
    for command in (["npm", "ci"], ["npm", "run", "build"]):
        run = subprocess.run(command, cwd=WEB, capture_output=True, text=True)
        if run.returncode != 0:
            pytest.skip(f"the page cannot be built here: {' '.join(run.stderr.split())[-300:]}")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> Path:
    """A folder of bundles: `colour`, `gray`, and broken ones that their tests add."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, preprocess in (("colour", COLOUR), ("gray", GRAY)):
        export(
            flowers(preprocess, seed=preprocess.channels),
            folder / name,
            to=["onnx"],
            num_images=2,
            batch_sizes=[1],
        )
    return folder


@pytest.fixture(scope="session")
def site(built, bundles):
    """The address of the page; its folder `bundle/` is `bundles`."""
    with module(WEB / "serve.py").server(bundles, quiet=True) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser(site):
    with chromium.Chromium() as running:
        yield running


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> list[Path]:
    """Photographs in the forms that go wrong most often, and the decoder test's strange files."""
    folder = tmp_path_factory.mktemp("images")
    picture = Image.fromarray(PHOTO)
    turned = Image.Exif()
    turned[0x0112] = 6
    ramp = np.linspace(0, 255, PHOTO.shape[1]).astype(np.uint8)
    alpha = np.broadcast_to(ramp, PHOTO.shape[:2])
    picture.save(folder / "photo.jpg", quality=90)
    picture.save(folder / "lies on its side.jpg", exif=turned)
    picture.save(folder / "lies on its side.webp", exif=turned, lossless=True)
    picture.convert("L").save(folder / "gray photo.jpg")
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "few colours.gif")
    Image.fromarray(np.dstack([PHOTO, alpha])).save(folder / "fades out.png")
    picture.crop((0, 0, 300, 427)).resize((3, 2000)).save(folder / "narrow.png")
    for table in (STRANGE.READ, STRANGE.REFUSED):
        for name, row in table.items():
            (folder / name).write_bytes(row[0])
    return sorted(folder.iterdir())


def answers_of_page(browser, site, name, images):
    browser.open(f"{site}?bundle=bundle/{name}/")
    browser.run("densepath.ready.then(() => true)")
    browser.choose_files("#files", images)
    browser.wait_for(
        f"densepath.answers().length === {len(images)} && densepath.answers().every(Boolean)"
    )
    return browser.run("densepath.answers()")


def answers_of_program(bundle, images):
    run = subprocess.run(
        [DENSEPATH, "predict", bundle, *images, "--json", "--engine", "onnxruntime"],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert run.stdout, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("name", ["colour", "gray"])
def test_answers_are_those_of_the_program(browser, site, bundles, images, name):
    compared = 0
    found = answers_of_page(browser, site, name, images)
    for ours, theirs in zip(found, answers_of_program(bundles / name, images), strict=True):
        assert ours["path"] == Path(theirs["path"]).name
        if NOT_IN_BROWSERS in ours.get("error", "") or ours["path"] in ONLY_IN_BROWSERS:
            continue
        assert ("error" in ours) == ("error" in theirs), (ours, theirs)
        if "error" not in ours:
            assert ours["labels"] == theirs["labels"], ours["path"]
            assert ours["class_ids"] == theirs["class_ids"]
            np.testing.assert_allclose(ours["scores"], theirs["scores"], rtol=0, atol=MOST_APART)
            compared += 1
    assert compared > 40


@pytest.mark.parametrize("channels", [3, 1])
def test_files_become_the_pixels_of_the_python_reader(browser, site, images, channels):
    """Bit by bit: the page's own decoder, and the hash of what it makes."""
    browser.open(site)
    browser.run(
        """(async () => {
        const { decode } = await import("./decode.js");
        window.hashes = [];
        const hash = async (file, channels) => {
            const { data, height, width } = await decode(file, channels);
            const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
            const hex = [...digest].map(byte => byte.toString(16).padStart(2, "0")).join("");
            return [height, width, hex];
        };
        const field = Object.assign(document.createElement("input"), {
            type: "file", multiple: true, id: "all",
            onchange: () => Promise.all([...field.files].map(file =>
                hash(file, CHANNELS).catch(error => error.message))).then(all => hashes = all),
        });
        document.body.append(field);
    })()""".replace("CHANNELS", str(channels))
    )
    browser.choose_files("#all", images)
    browser.wait_for(f"hashes.length === {len(images)}")
    compared = 0
    for path, found in zip(images, browser.run("hashes"), strict=True):
        if isinstance(found, str) or path.name in ONLY_IN_BROWSERS:
            continue
        expected = open_image(path, channels=channels)
        digest = hashlib.sha256(np.ascontiguousarray(expected)).hexdigest()
        assert found == [*expected.shape[:2], digest], path.name
        compared += 1
    assert compared > 40


def test_what_is_no_image_is_refused_with_its_reason(browser, site, images):
    names = ["words.jpg", "phone.jpg", "empty.jpg", "web page.jpg", "bomb.png"]
    found = answers_of_page(browser, site, "colour", [i for i in images if i.name in names])
    reasons = {answer["path"]: answer["error"] for answer in found}
    assert "not an image of a known kind (JPEG, PNG" in reasons["words.jpg"]
    assert "a HEIC photo" in reasons["phone.jpg"]
    assert reasons["empty.jpg"] == "the file is empty"
    assert reasons["web page.jpg"] == "a web page, not an image"
    assert "30000 × 30000 is more than the 89,478,485 pixels allowed" in reasons["bomb.png"]


def test_the_page_shows_answers_pixels_and_times(browser, site, images):
    photo = [image for image in images if image.name == "photo.jpg"]
    (answer,) = answers_of_page(browser, site, "colour", photo)
    lines = browser.run("document.querySelector('.card').innerText.split('\\n')")
    assert lines[0] == "photo.jpg"
    assert [line for line in lines if line in answer["labels"]] == answer["labels"]
    assert f"{answer['scores'][0] * 100:.1f} %" in lines
    assert {"decode", "preprocess", "network"} <= set(lines[-1].replace("\xa0", " ").split())
    assert browser.run("document.querySelectorAll('.card b').length") == 0
    size = "(({width, height}) => [width, height])(document.querySelector('.card canvas'))"
    assert browser.run(size) == [32, 32]
    assert browser.run("document.getElementById('live').textContent").startswith("photo.jpg: ")
    browser.run("document.getElementById('clear').click()")
    assert browser.run("[densepath.answers().length, document.activeElement.id]") == [0, "files"]


def test_dropped_and_pasted_images_are_answered(browser, site, images):
    answers_of_page(browser, site, "colour", [i for i in images if i.name == "photo.jpg"])
    given = (("drop", "dataTransfer"), ("paste", "clipboardData"))
    for count, (event, holder) in enumerate(given, start=1):
        kind = {"drop": "DragEvent", "paste": "ClipboardEvent"}[event]
        browser.run(f"""(() => {{
            const canvas = document.querySelector(".card canvas");
            const text = atob(canvas.toDataURL().split(",")[1]);
            const bytes = Uint8Array.from(text, letter => letter.charCodeAt());
            const given = new DataTransfer();
            given.items.add(new File([bytes], "{event}.png"));
            document.dispatchEvent(new {kind}("{event}", {{{holder}: given, cancelable: true}}));
        }})()""")
        browser.wait_for(f"densepath.answers().at({count})")
        last = browser.run("densepath.answers().at(-1)")
        assert last["path"] == f"{event}.png"
        assert len(last["scores"]) == 5


def failure(browser):
    """What the page says instead of loading the bundle."""
    browser.wait_for("!document.getElementById('failure').hidden")
    return browser.run("document.getElementById('failure-text').innerText")


def seal(folder, text):
    """Writes a manifest with its right hash."""
    (folder / "manifest.json").write_bytes(text)
    line = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n"
    (folder / "manifest.json.sha256").write_text(line, encoding="ascii")


def changed(**fields):
    def change(folder):
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        seal(folder, json.dumps({**manifest, **fields}).encode())

    return change


def edited(name, edit):
    def change(folder):
        (folder / name).write_bytes(edit((folder / name).read_bytes()))

    return change


BROKEN = {
    "manifest edited": (edited("manifest.json", lambda b: b + b" "), "manifest.json was changed"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
    "no hash": (lambda f: (f / "manifest.json.sha256").unlink(), "manifest.json.sha256 is missing"),
    "not json": (lambda f: seal(f, b"{"), "is not JSON"),
    "another format": (changed(format="zip"), "does not say that it describes a densepath-bundle"),
    "newer": (changed(schema_version=2), "schema version is 2; this page reads version 1"),
    "version as text": (changed(schema_version="1"), 'schema version is "1"'),
    "unknown field": (changed(colour="red"), 'has an unknown field "colour"'),
    "wrong type": (changed(labels="daisy"), "labels must be of the type array"),
    "too few labels": (changed(labels=["daisy"]), "1 labels for 7 logits"),
    "other size": (changed(preprocess=Preprocess((16, 16)).to_dict()), "makes images [3,16,16]"),
    "deep images": (
        changed(
            preprocess=Preprocess((32, 32), intensity=Intensity("window", (40, 400))).to_dict()
        ),
        "has an intensity setting (window 40 400), for files of more than 8 bits, and a browser",
    ),
    "file not listed": (changed(files={}), "model.onnx is not listed in files"),
    "other runtime": (
        changed(formats={"torch": {"model": "model.safetensors"}}),
        "has no onnx format; it has torch. Add it: densepath export SUBJECT --to torch,onnx -o",
    ),
    "other runtime in INT8": (
        changed(formats={"litert": {"model": "model.tflite"}}, precision="int8"),
        "it has litert. Add it: densepath quantize SUBJECT --data DATA --to litert,onnx -o DIR",
    ),
    "no model": (lambda f: (f / "model.onnx").unlink(), "model.onnx is missing"),
    "model changed": (
        edited("model.onnx", lambda b: b[:99] + bytes([b[99] ^ 1]) + b[100:]),
        "model.onnx was changed: its sha256 is",
    ),
    "model cut short": (edited("model.onnx", lambda b: b[:-1]), "bytes, not the"),
    "model too long": (edited("preprocess.onnx", lambda b: b + b" "), "has more than"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_bundle_is_refused_with_its_reason(browser, site, bundles, case):
    change, reason = BROKEN[case]
    folder = shutil.copytree(bundles / "colour", bundles / f"broken {case}")
    change(folder)
    browser.open(f"{site}?bundle=bundle/broken%20{case.replace(' ', '%20')}")
    text = failure(browser)
    assert reason in text
    assert browser.run("document.getElementById('drop').hidden")


def test_a_folder_without_a_bundle_is_said_to_be_none(browser, site):
    browser.open(f"{site}?bundle=nothing/")
    text = failure(browser)
    assert "is not a bundle: it has no manifest.json. `densepath export` makes bundles." in text


def test_bundles_of_other_servers_are_not_loaded(browser, site):
    """So that a link cannot make the page show a stranger's answers."""
    browser.open(f"{site}?bundle=http://localhost:1/")
    text = failure(browser)
    assert "from its own server only" in text


def test_everything_can_be_reached_with_the_keyboard(browser, site, images):
    answers_of_page(browser, site, "colour", [i for i in images if i.name == "photo.jpg"])
    browser.run("document.activeElement.blur()")
    browser.wait_for("!document.getElementById('keep').hidden")
    reached = []
    for _ in range(7):
        for kind in ("keyDown", "keyUp"):
            browser.send("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
        reached.append(browser.run("document.activeElement.id || document.activeElement.tagName"))
    assert reached == ["files", "choose-folder", "save", "clear", "copy", "keep", "SUMMARY"]


def test_nothing_is_wider_than_a_phone(browser, site, images):
    browser.resize(360, 740, mobile=True)
    answers_of_page(browser, site, "colour", images[:3])
    browser.run("document.getElementById('about').open = true")
    browser.wait_for("!document.getElementById('keep').hidden")
    widths = browser.run("[document.documentElement.scrollWidth, innerWidth]")
    browser.resize(1000, 800)
    assert widths[0] <= 360


def test_the_lock_file_names_no_registry():
    lock = (WEB / "package-lock.json").read_text(encoding="utf-8")
    assert "://" not in lock
    assert '"resolved"' not in lock

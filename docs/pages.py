"""Takes the pictures of our pages in docs/images: serve*.png and web*.png.

The server's page shows scikit-image's `chelsea.png` and `horse.png`, the browser's page digits of
the test part of scikit-learn's, which a network trained on the others answers. Both are the real
pages, in headless Chromium, with the times of this machine: it should be idle. Look at the pictures
before they are committed.

Run: python docs/pages.py DIGITS_BUNDLE CHELSEA.png HORSE.png; deploy/web must be built, docs/web.md
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from densepath.data.digits import DigitsDataset

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT / "deploy" / "web"))

from chromium import Chromium  # noqa: E402
from serve import server  # noqa: E402

DENSEPATH = Path(sys.executable).with_name("densepath")
DESK, PHONE = 1000, 390
# Of the test part, which had no part in the training: one is plain, one is not.
DIGITS = {"six.png": 349, "eight.png": 290}
STARTED_IN_S = 120


def scroll_free(browser: Chromium, width: int, *, phone: bool = False) -> None:
    """Makes the window as high as the page, so that nothing is cut off."""
    scale = 2 if phone else 1
    browser.send("Emulation.setTouchEmulationEnabled", enabled=phone)
    browser.send("Emulation.setScrollbarsHidden", hidden=True)
    browser.resize(width, 400, mobile=phone, scale=scale)
    height = browser.run("document.documentElement.scrollHeight")
    browser.resize(width, height, mobile=phone, scale=scale)
    time.sleep(0.5)


def give(browser: Chromium, images: Sequence[Path]) -> None:
    """Gives the page the images, and waits for all of its answers."""
    browser.choose_files("#files", images)
    browser.wait_for(
        f"densepath.answers().length === {len(images)} && densepath.answers().every(Boolean)"
    )


def warm(browser: Chromium, images: Sequence[Path]) -> None:
    """Gives the images twice: the first answers of a process are slower than all later ones."""
    give(browser, images)
    clear(browser)
    give(browser, images)


def clear(browser: Chromium) -> None:
    """Takes the images away, and the focus that the page then sets."""
    browser.run("document.getElementById('clear').click()")
    browser.run("document.activeElement.blur()")


@contextmanager
def served(scratch: Path) -> Iterator[str]:
    """The address of `densepath serve`, with the weights that the package ships."""
    bundle = scratch / "cifar10"
    export = [DENSEPATH, "export", "cifar10/densenet_bc_22_12", "--to", "torch", "-o", bundle]
    subprocess.run(export, check=True, capture_output=True)
    log = scratch / "serve.log"
    command = [DENSEPATH, "serve", bundle, "--port", "0", "--grpc-port", "0"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + STARTED_IN_S
        while time.monotonic() < end:
            if found := re.search(r"REST (http://[\w.:]+),", log.read_text(encoding="utf-8")):
                yield f"{found[1]}/"
                return
            time.sleep(0.1)
        raise SystemExit(f"the server did not start: {log.read_text(encoding='utf-8')}")
    finally:
        process.terminate()
        process.wait()


def take_servers_page(images: Sequence[Path], scratch: Path) -> None:
    """serve.png, with heat maps, and serve-phone.png."""
    with served(scratch) as address, Chromium() as browser:
        browser.open(address)
        browser.wait_for("!document.getElementById('drop').hidden")
        warm(browser, images)
        scroll_free(browser, PHONE, phone=True)
        browser.screenshot(IMAGES / "serve-phone.png")
        browser.run("document.getElementById('heat').click()")
        browser.wait_for(f"document.querySelectorAll('.map').length === {len(images)}")
        scroll_free(browser, DESK)
        browser.screenshot(IMAGES / "serve.png")


def take_browsers_page(bundle: Path, scratch: Path) -> None:
    """web.png, and web-phone.png once the page is kept without a network."""
    digits = DigitsDataset("test", channels=1)
    images = [scratch / name for name in DIGITS]
    for image, row in zip(images, DIGITS.values(), strict=True):
        Image.fromarray(digits.load(row).image[:, :, 0]).save(image)
    with server(bundle, quiet=True) as running, Chromium() as browser:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        browser.open(f"http://127.0.0.1:{running.server_address[1]}/")
        browser.run("densepath.ready.then(() => true)")
        warm(browser, images)
        browser.wait_for("document.getElementById('keep').checkVisibility()")
        scroll_free(browser, DESK)
        browser.screenshot(IMAGES / "web.png")
        browser.run("document.getElementById('keep').click()")
        browser.wait_for("document.getElementById('remove').checkVisibility()")
        clear(browser)
        give(browser, images[:1])
        scroll_free(browser, PHONE, phone=True)
        browser.screenshot(IMAGES / "web-phone.png")
        running.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("digits_bundle", type=Path, help="of a network trained on the digits, onnx")
    parser.add_argument("images", type=Path, nargs=2, help="scikit-image's chelsea and horse")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        take_servers_page(given.images, Path(scratch))
        take_browsers_page(given.digits_bundle, Path(scratch))


if __name__ == "__main__":
    main()

"""Draws the icons that `densepath.webmanifest` and `index.html` name from `icon.svg`, by Chromium.

Run, after a change of `icon.svg`: python deploy/web/icons.py
"""

from __future__ import annotations

import json

from chromium import Chromium
from serve import HERE

SIZES = (180, 192, 512)


def main() -> None:
    """Draw each size."""
    drawing = (HERE / "icon.svg").read_text(encoding="utf-8")
    with Chromium() as browser:
        for size in SIZES:
            browser.resize(size, size)
            browser.run(f"document.documentElement.innerHTML = {json.dumps(drawing)}")
            browser.run("document.body.style.margin = 0")
            browser.run("document.querySelector('svg').style.display = 'block'")
            browser.screenshot(HERE / f"icon-{size}.png")


if __name__ == "__main__":
    main()

"""A headless Chromium that runs a page, for the page's test and `compare.py`.

It is driven through the DevTools protocol over two pipes, without any package. Source:
https://chromedevtools.github.io/devtools-protocol/, `--remote-debugging-pipe`: JSON messages that
end with a zero byte, read from descriptor 3 and written to descriptor 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # Root, as in a container, has no other way.
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    # Nor does it look up the names of its maker's servers.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
)
# The pipes become descriptors 3 and 4 of what replaces this program.
LAUNCH = (
    "import os,sys;r,w=(os.dup2(int(n),100+i) for i,n in enumerate(sys.argv[1:3]));"
    "os.dup2(r,3);os.dup2(w,4);os.execv(sys.argv[3],sys.argv[3:])"
)


def find_chromium() -> str | None:
    """The program's path; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class PageError(Exception):
    """What the page threw, or the browser refused."""


class Chromium:
    """One tab; a context manager, which ends the browser.

    What the browser keeps goes with it, unless it is given a folder as its `profile`.
    """

    def __init__(self, *options: str, timeout_s: float = 120, profile: Path | None = None) -> None:
        program = find_chromium()
        if program is None:
            raise PageError(f"no Chromium on this machine: none of {', '.join(NAMES)}.")
        self._timeout_s = timeout_s
        self._scratch = tempfile.mkdtemp(prefix="densepath-chromium-")
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        command = [sys.executable, "-c", LAUNCH, str(reads), str(writes), program, *OPTIONS]
        self._process = subprocess.Popen(
            [*command, *options, f"--user-data-dir={profile or self._scratch}", "about:blank"],
            pass_fds=(reads, writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(reads)
        os.close(writes)
        self._buffer, self._number, self._session = bytearray(), 0, None
        try:
            target = self.send("Target.createTarget", url="about:blank")["targetId"]
            attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and remove its scratch folder."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def open(self, address: str) -> None:
        """Go to the address and wait until its document has been read."""
        for page in ("about:blank", address):  # So that the same address is a new document.
            self.send("Page.navigate", url=page)
        self.wait_for(
            f"document.readyState === 'complete' && location.href === {json.dumps(address)}"
        )

    def run(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression; of a promise, what it resolves to."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"]
            raise PageError(thrown.get("exception", {}).get("description") or thrown["text"])
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The expression's value, once it is true."""
        end = time.monotonic() + self._timeout_s
        while time.monotonic() < end:
            if value := self.run(expression):
                return value
            time.sleep(0.05)
        raise PageError(f"{expression} did not become true in {self._timeout_s} s")

    def choose_files(self, selector: str, paths: Sequence[Path]) -> None:
        """Pick these files, as a user does."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(p.resolve()) for p in paths])

    def resize(self, width: int, height: int, *, mobile: bool = False, scale: float = 1) -> None:
        """Set the size of the window, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def screenshot(self, path: Path) -> None:
        """Write the window's picture as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the protocol; events are passed over.

        Raises:
            PageError: the browser refuses, has ended, or does not answer in time.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self._timeout_s
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                break
        if "error" in answer:
            raise PageError(f"{method}: {answer['error'].get('message')}")
        return answer.get("result", {})

    def _receive(self, end: float) -> dict[str, Any]:
        """The next message of the browser."""
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], max(0, end - time.monotonic()))[0]:
                raise PageError(f"Chromium did not answer in {self._timeout_s} s")
            if not (part := os.read(self._from, 1 << 20)):
                raise PageError("Chromium has ended")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

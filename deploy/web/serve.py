"""Serves this folder, and a bundle as `bundle/`, to the browsers of this machine.

`python -m http.server` in this folder does as well; this one also sends the headers that let the
network run on several threads (COOP and COEP), and takes the bundle from where it lies.

Run: python deploy/web/serve.py [BUNDLE] [--port 8000]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of this folder; what is below `/bundle/` comes from the bundle."""

    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *arguments, bundle: Path | None = None, quiet: bool = False, **keywords):
        self.bundle, self.quiet = bundle, quiet
        super().__init__(*arguments, directory=str(HERE), **keywords)

    def translate_path(self, path: str) -> str:
        """The file of a request's path."""
        inside = Path(super().translate_path(path)).relative_to(HERE)
        if self.bundle and inside.parts[:1] == ("bundle",):
            return str(self.bundle.joinpath(*inside.parts[1:]))
        return str(HERE / inside)

    def end_headers(self) -> None:
        """Add the headers of isolation."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments) -> None:
        """Log each request, unless it is to be quiet."""
        if not self.quiet:
            super().log_message(*arguments)


def server(bundle: Path | None, port: int = 0, *, quiet: bool = False):
    """A server on 127.0.0.1, not yet running; port 0 takes a free one."""
    handler = functools.partial(Handler, bundle=bundle and bundle.resolve(), quiet=quiet)
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)


def main() -> None:
    """Serve until Ctrl+C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="a folder of `densepath export`")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    if not (HERE / "vendor").is_dir():
        parser.error("the page is not built: npm ci --ignore-scripts && npm run build")
    with server(given.bundle, given.port) as running:
        print(f"http://127.0.0.1:{running.server_address[1]}/  (Ctrl+C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            running.serve_forever()


if __name__ == "__main__":
    main()

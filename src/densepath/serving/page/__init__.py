"""The page at `/`: these files, and nothing from another host."""

from __future__ import annotations

_SCRIPT = "text/javascript; charset=utf-8"
# By the path that a browser asks for: the file here, and what it is.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page.js", _SCRIPT),
    "/page/cards.js": ("cards.js", _SCRIPT),
    "/page/elements.js": ("elements.js", _SCRIPT),
    "/page/speed.js": ("speed.js", _SCRIPT),
    "/page/server.js": ("server.js", _SCRIPT),
}
DOCS = "/docs"

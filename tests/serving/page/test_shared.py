"""What the server's page and the browser's page have in common is written once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from densepath.serving.page import FILES

ROOT = Path(__file__).parents[3]
SERVERS = ROOT / "src" / "densepath" / "serving" / "page"
BROWSERS = ROOT / "deploy" / "web"
FUNCTION = re.compile(r"^(?:export )?((?:async )?function \w+\(.*?^\})$", re.MULTILINE | re.DOTALL)
RULE = re.compile(r"[^{}/]+\{[^{}]*\}")  # Those of a media query, one by one.


def copied() -> set[str]:
    """The files of the server's page that the build of the browser's copies."""
    build = (BROWSERS / "build.mjs").read_text(encoding="utf-8")
    return set(re.findall(r'"([\w.]+)": SERVERS_PAGE', build))


def found(pattern: re.Pattern[str], files: Iterable[Path]) -> set[str]:
    """What the pattern matches in the files, whatever its white space."""
    texts = [file.read_text(encoding="utf-8") for file in files]
    return {" ".join(match.split()) for text in texts for match in pattern.findall(text)}


def functions(folder: Path) -> set[str]:
    """The functions of a page's scripts, but for those of a single statement."""
    return {text for text in found(FUNCTION, folder.glob("*.js")) if text.count(";") > 1}


def test_what_is_shared_stands_in_the_package_alone():
    assert copied() == {"elements.js", "speed.js", "style.css"}
    assert copied() <= {name for name, _ in FILES.values()}
    assert copied().isdisjoint(path.name for path in BROWSERS.iterdir())


def test_the_server_sends_every_file_of_its_page():
    there = {path.name for path in SERVERS.iterdir() if path.suffix in (".css", ".html", ".js")}
    assert {name for name, _ in FILES.values()} == there


def test_no_function_stands_in_both_pages():
    ours, theirs = functions(SERVERS), functions(BROWSERS)
    assert len(ours) > 30
    assert len(theirs) > 30
    assert ours & theirs == set()


def test_no_rule_of_style_stands_in_both_pages():
    ours, theirs = (found(RULE, folder.glob("*.css")) for folder in (SERVERS, BROWSERS))
    assert len(ours) > 60
    assert len(theirs) > 15
    assert ours & theirs == set()

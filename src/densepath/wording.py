"""Words and figures as a person reads them, formed alike by every verb, report and picture."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from densepath.names import readable

# What Markdown, GitHub's formulas in it included, would read as more than a character.
MARKDOWN = re.compile(r"[\\`*\[\]|$~#]|(?<![^\W_])_|_(?![^\W_])")
# Invisible, and part of how Persian and Hindi words are written.
JOINERS = "\u200c\u200d"
# Behind an Arabic name: what follows in the line is not drawn in its direction.
LEFT_TO_RIGHT = "\u200e"
ELLIPSIS = "…"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """`1 image`, `2,000 images`, `3 classes`."""
    if number == 1:
        return f"1 {singular}"
    ending = "es" if singular.endswith("s") else "s"
    return f"{number:,} {plural or singular + ending}"


def are(number: int, singular: str) -> str:
    """`1 class is`, `3 classes are`."""
    return f"{counted(number, singular)} {'is' if number == 1 else 'are'}"


def have(number: int, singular: str) -> str:
    """`1 image has`, `3 images have`."""
    return f"{counted(number, singular)} {'has' if number == 1 else 'have'}"


def percent(share: float, digits: int | None = 1) -> str:
    """`12.3 %` for the share 0.123; without `digits` as many as it needs, at most three: `10 %`."""
    return f"{share * 100:.3g} %" if digits is None else f"{share * 100:.{digits}f} %"


def first_of(names: Sequence[object], most: int = 3) -> str:
    """The first names, and how many more there are: `ant, bee, cat and 7 more`."""
    left = len(names) - most
    shown = ", ".join(readable(str(name)) for name in names[:most])
    return f"{shown} and {left:,} more" if left > 0 else shown


def printable(text: str) -> str:
    """The text with control characters and stray bytes escaped: one line, valid UTF-8."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in readable(text)
    )


def shorten(text: str, width: int) -> str:
    """The text in at most `width` characters, with an ellipsis where something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def in_markdown(text: str) -> str:
    """The text for a line or a table's cell of Markdown, where it reads as it stands here."""
    shown = printable(text) if text.strip() else f'"{printable(text)}"'
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return MARKDOWN.sub(lambda found: f"\\{found[0]}", shown)


def literal(text: str, width: int | None = None) -> str:
    """The text as a picture shows it: one line, what cannot be seen escaped, nothing missing.

    With `width` it is at most so many columns wide (a Chinese character takes two), with an
    ellipsis in the middle: names differ as often at their ends as at their beginnings.
    """
    if not text.strip():
        return f'"{printable(text)}"'
    shown = "".join(c if c in JOINERS else printable(c) for c in text)
    if width is not None and columns(shown) > width:
        left, right = (width - 1) - (width - 1) // 3, (width - 1) // 3
        shown = fitting(shown, left) + ELLIPSIS + fitting(shown[::-1], right)[::-1]
    return shown + LEFT_TO_RIGHT if any(map(_runs_left, shown)) else shown


def _runs_left(character: str) -> bool:
    """Whether it is of Arabic, Hebrew or their like."""
    return unicodedata.bidirectional(character) in ("R", "AL")


def columns(text: str) -> int:
    """The width of the text in columns."""
    return sum(_columns_of(c) for c in text)


def _columns_of(character: str) -> int:
    """2 of a wide character, 0 of a mark that stands on the one before, and of what joins two."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitting(text: str, width: int) -> str:
    """The beginning of the text that is at most so wide."""
    used = 0
    for place, character in enumerate(text):
        used += _columns_of(character)
        if used > width:
            return text[:place]
    return text

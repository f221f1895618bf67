"""Which installed fonts have the characters of a picture; matplotlib's own has no Chinese.

On the line: `picture.py` asks before it writes. Fonts that were installed after matplotlib last
listed them are found, too; what no font has is said once, with the package that brings one.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from densepath.notes import say_once

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = "DejaVu Sans"  # comes with matplotlib
# Fonts that have a glyph for everything, or pictures where matplotlib needs outlines.
USELESS = ("last resort", "lastresort", "coloremoji", "color emoji", "nonunicode")
REGULAR = range(300, 501)
SHOWN = 8


class Script(NamedTuple):
    """Characters that a font either has or lacks together.

    Attributes:
        name: for people.
        words: that the Unicode names of its characters begin with.
        families: fonts that are known to be good at it, the best first.
        package: of Debian and Ubuntu, that brings one.
    """

    name: str
    words: tuple[str, ...]
    families: tuple[str, ...]
    package: str


SCRIPTS = (
    Script(
        "Japanese",
        ("HIRAGANA", "KATAKANA"),
        ("Noto Sans CJK JP", "IPAexGothic", "IPAGothic", "TakaoGothic", "VL Gothic", "Yu Gothic"),
        "fonts-noto-cjk",
    ),
    Script(
        "Korean",
        ("HANGUL",),
        ("Noto Sans CJK KR", "NanumGothic", "UnDotum", "Malgun Gothic", "Apple SD Gothic Neo"),
        "fonts-noto-cjk",
    ),
    Script(
        "Chinese",
        ("CJK", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH", "KANGXI", "BOPOMOFO"),
        ("Noto Sans CJK SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Microsoft YaHei"),
        "fonts-noto-cjk",
    ),
)
SYMBOLS = Script("symbols", (), ("Symbola", "Noto Emoji", "Segoe UI Symbol"), "fonts-symbola")
OTHER_PACKAGE = "fonts-noto-core"


def use_fonts(figure: Figure) -> None:
    """Set for every text of the figure fonts that have its characters, where there are any.

    What no installed font has is drawn as boxes, and said once a process.
    """
    from matplotlib.text import Text

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # makes them
    texts = figure.findobj(Text)
    families = families_for("".join(text.get_text() for text in texts))
    for text in texts:
        text.set_fontfamily(families)


def families_for(text: str) -> list[str]:
    """Font families that have the characters of `text` between them, matplotlib's own first."""
    missing = frozenset(map(ord, text)) - _glyphs(*_base_font())
    missing = frozenset(code for code in missing if chr(code).isprintable())
    families, lacking = _search(missing) if missing else ((), frozenset[int]())
    _tell(lacking)
    return [BASE, *families]


def _tell(lacking: Iterable[int]) -> None:
    """Name the characters that will be boxes, once for each package that brings their fonts."""
    by_package: dict[str, dict[Script, set[int]]] = {}
    for script, codes in _by_script(lacking).items():
        by_package.setdefault(script.package, {})[script] = codes
    for package, scripts in by_package.items():
        letters = sorted(c for codes in scripts.values() for c in map(chr, codes))
        shown = " ".join([c for c in letters if not unicodedata.combining(c)][:SHOWN])
        more = f" and {len(letters) - SHOWN} more" if len(letters) > SHOWN else ""
        names = ", ".join(script.name for script in scripts)
        say_once(
            f"pictures show boxes in place of {shown}{more}: no font on this machine has these "
            f"characters ({names}). On Debian and Ubuntu: apt install {package}",
            key=("font", package),
        )


@functools.lru_cache(64)
def _search(missing: frozenset[int]) -> tuple[tuple[str, ...], frozenset[int]]:
    """Families for these characters, and the characters that none of them has."""
    families: list[str] = []
    wanted = _wanted_families(missing)
    for entries in (_listed(wanted), _new_ones()):
        for entry in entries:
            if not missing:
                break
            found = missing & _glyphs(entry.fname, getattr(entry, "index", 0))
            if found and entry.name not in families:
                families.append(entry.name)
            missing -= found
    return tuple(families), missing


def _wanted_families(missing: frozenset[int]) -> list[str]:
    """Fonts to try first."""
    scripts = _by_script(missing)
    named = [name for script in SCRIPTS if script in scripts for name in script.families]
    return [*named, *(name for script in scripts for name in script.families)]


def _by_script(codes: Iterable[int]) -> dict[Script, set[int]]:
    """The characters by their script."""
    found: dict[Script, set[int]] = {}
    for code in sorted(codes):
        found.setdefault(_script_of(chr(code)), set()).add(code)
    return found


def _script_of(character: str) -> Script:
    """The script of a character, from its Unicode name."""
    word = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    for script in SCRIPTS:
        if word in script.words:
            return script
    if unicodedata.category(character).startswith("S"):
        return SYMBOLS
    name = word.capitalize()
    return Script(name, (word,), (f"Noto Sans {name}", f"Noto Serif {name}"), OTHER_PACKAGE)


def _listed(first: list[str]) -> list[Any]:
    """The upright fonts of usual weight that matplotlib knows of, those of `first` first."""
    from matplotlib import font_manager

    rank = {name: place for place, name in reversed(list(enumerate(first)))}
    fonts = [entry for entry in font_manager.fontManager.ttflist if _is_usual(entry)]
    return sorted(fonts, key=lambda entry: (rank.get(entry.name, len(rank)), entry.name))


def _new_ones() -> Iterator[Any]:
    """Fonts that are on the machine and not in matplotlib's list, which is kept for months."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        before = len(manager.ttflist)
        try:
            manager.addfont(path)
        except Exception:  # a damaged file, or one that FreeType cannot read
            continue
        yield from [entry for entry in manager.ttflist[before:] if _is_usual(entry)]


def _is_usual(entry: Any) -> bool:
    """Whether names can be written with this font."""
    described = f"{entry.name} {Path(entry.fname).stem}".lower()
    weight = entry.weight if isinstance(entry.weight, int) else 400
    return (
        entry.style == "normal"
        and weight in REGULAR
        and not any(word in described for word in USELESS)
    )


def _base_font() -> tuple[str, int]:
    """The file of matplotlib's own font, and its place in it."""
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 0


@functools.lru_cache(512)
def _glyphs(path: str, index: int) -> frozenset[int]:
    """The code points that a font has; none of a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        try:
            font = FT2Font(path, face_index=index)
        except TypeError:  # before matplotlib 3.11, the first of a collection's fonts
            font = FT2Font(path)
        return frozenset(font.get_charmap())
    except Exception:
        return frozenset()

"""Pictures: text as it stands, fonts that have it, and no failure that ends the work around it."""

from __future__ import annotations

import logging
import os
import re
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from densepath import notes
from densepath.drawing import fonts
from densepath.drawing.picture import new_figure, plain_matplotlib, save_picture, text_panel
from densepath.wording import columns, in_markdown, literal

SOURCE = Path(__file__).parents[2] / "src" / "densepath"
HOSTILE = [
    "$x^$",
    "$x^",
    "$",
    "a\\b",
    r"$\frac{1}$",
    "_under_",
    "{%}#&~",
    "tab\there",
    "new\nline",
    "\x1b[31mred\x07",
    "",
    "   ",
    "\udcff\udcfe",
    "\u202egnp.exe",
    "قطة سوداء",
    "می\u200cخواهم",
    "日本語の犬",
    "한국어",
    "हिन्दी",
    "😀🐱",
    "x" * 400,
    "日" * 100,
    "[bold]x[/]",
    "|`<b>&amp;",
]


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch):
    monkeypatch.setattr(notes, "_said", set())


def bars(names):
    """A function that draws a bar under each name, which is its title, too."""

    def draw():
        figure = new_figure(5, 4, literal(names[0], 60), *(literal(name, 60) for name in names))
        axes = figure.subplots()
        axes.bar(range(len(names)), range(len(names)))
        axes.set_xticks(range(len(names)), [literal(name, 20) for name in names])
        return figure

    return draw


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_any_name_is_drawn_as_it_stands(name, tmp_path):
    assert save_picture(tmp_path / "p.png", bars([name, "ant"]), dpi=50) is None
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.format == "PNG"
    panel = text_panel([(0, 0, 20, "#000000", literal(name))], 200, 40)
    assert panel.shape == (40, 200, 3)
    assert panel.min() < 255


def test_no_text_of_a_figure_is_read_as_a_formula():
    from matplotlib.text import Text

    with plain_matplotlib():
        figure = bars(["$x$", "a\\$b"])()
        texts = [text for text in figure.findobj(Text) if "$" in text.get_text()]
    assert len(texts) >= 3
    assert not any(text.get_parse_math() for text in texts)
    assert {text.get_text() for text in texts} >= {"$x$", "a\\$b"}


def test_the_settings_of_a_user_neither_change_pictures_nor_are_changed(tmp_path):
    import matplotlib

    save_picture(tmp_path / "plain.png", bars(["ant"]), dpi=50)
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "black", "font.size": 30}):
        assert save_picture(tmp_path / "own.png", bars(["ant"]), dpi=50) is None
        assert matplotlib.rcParams["text.usetex"]
        assert matplotlib.rcParams["text.parse_math"]
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "own.png").read_bytes()


def write_font(path, family, characters):
    """A TrueType font in which each of these characters is a black square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(point)
    pen.closePath()
    square, empty = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap(dict.fromkeys(map(ord, characters), "square"))
    builder.setupGlyf({".notdef": empty, "square": square})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "square": (900, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def no_other_fonts(monkeypatch):
    """As on a machine that has matplotlib's own fonts alone; gives a list of paths to add."""
    from matplotlib import font_manager

    own = [e for e in font_manager.fontManager.ttflist if "mpl-data" in e.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    installed: list[str] = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(installed))
    search = fonts._search
    search.cache_clear()
    yield installed
    search.cache_clear()


def test_a_font_installed_after_matplotlib_listed_them_is_found(no_other_fonts, tmp_path, caplog):
    write_font(tmp_path / "squares.ttf", "Squares", "犬猫")
    no_other_fonts.append(str(tmp_path / "squares.ttf"))
    assert fonts.families_for("犬 dog 猫") == [fonts.BASE, "Squares"]
    assert caplog.records == []
    drawn = text_panel([(0, 0, 40, "#000000", "猫")], 60, 60)
    inner = drawn[15:30, 8:25]
    assert (inner == 0).all(), "the square of our own font, not a box"


def test_fonts_share_the_characters_of_a_text_between_them(no_other_fonts, tmp_path, caplog):
    write_font(tmp_path / "one.ttf", "One", "犬")
    write_font(tmp_path / "two.ttf", "Two", "ไ")
    no_other_fonts += [str(tmp_path / "one.ttf"), str(tmp_path / "two.ttf")]
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    no_other_fonts.insert(0, str(tmp_path / "broken.ttf"))
    assert set(fonts.families_for("犬ไ")) == {fonts.BASE, "One", "Two"}
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "package", "script"),
    [
        ("猫は", "fonts-noto-cjk", "Chinese"),
        ("한국", "fonts-noto-cjk", "Korean"),
        ("हिन्दी", "fonts-noto-core", "Devanagari"),
        ("ไทย", "fonts-noto-core", "Thai"),
        ("\U0001f9ff", "fonts-symbola", "symbols"),
    ],
)
def test_characters_that_no_font_has_are_said_once_with_the_package_that_brings_one(
    no_other_fonts, text, package, script, tmp_path, caplog
):
    for number in range(3):
        assert save_picture(tmp_path / f"{number}.png", bars([text]), dpi=40) is None
    [record] = caplog.records
    message = record.getMessage()
    assert f"apt install {package}" in message
    assert script in message
    assert text[0] in message


def test_what_matplotlibs_own_font_has_asks_for_no_other(no_other_fonts, monkeypatch, caplog):
    monkeypatch.setattr(fonts, "_search", lambda missing: pytest.fail("looked for fonts"))
    assert fonts.families_for("Überraschung, ваза, قطة, עברית, ⚙ 50 %") == [fonts.BASE]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("NaN is no height\nsecond line"),
        MemoryError(),
        RuntimeError("FT2Font"),
        OSError(28, "x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_picture_that_fails_is_a_note_on_one_line_and_leaves_nothing(error, tmp_path, caplog):
    def draw():
        raise error

    said = save_picture(tmp_path / "p.png", draw)
    assert said is not None
    assert "\n" not in said
    assert str(tmp_path / "p.png") in said
    assert [record.getMessage() for record in caplog.records] == [said]
    assert list(tmp_path.iterdir()) == []


@contextmanager
def files_no_larger_than(size_bytes):
    """As on a full disk: writing more fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_the_older_picture_stays_and_the_note_says_so(tmp_path, caplog):
    assert save_picture(tmp_path / "p.png", bars(["ant"]), dpi=50) is None
    before = (tmp_path / "p.png").read_bytes()
    with files_no_larger_than(1000):
        said = save_picture(tmp_path / "p.png", bars(["bee"]), dpi=50)
    assert said is not None
    assert "File too large" in said
    assert "older" in said
    assert (tmp_path / "p.png").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_a_note(tmp_path):
    (tmp_path / "file").write_text("x")
    said = save_picture(tmp_path / "file" / "p.png", bars(["ant"]))
    assert said is not None
    assert "Not a directory" in said


def test_interrupting_still_interrupts(tmp_path):
    def draw():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_picture(tmp_path / "p.png", draw)


@pytest.mark.parametrize("variable", ["HOME", "MPLCONFIGDIR", "XDG_CONFIG_HOME"])
def test_folders_that_cannot_be_written_are_no_concern_of_the_user(variable, tmp_path):
    code = (
        "from densepath.drawing.picture import new_figure, save_picture\n"
        "from densepath.predict.pictures import lay_over\n"
        "print(save_picture('p.png', lambda: new_figure(3, 3, 'ant')))"
    )
    (tmp_path / "file").write_text("x")
    environment = {k: v for k, v in os.environ.items() if k not in ("MPLCONFIGDIR",)}
    environment[variable] = str(tmp_path / "file" / "below")
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ran.stdout == "None\n"
    assert ran.stderr == ""


def test_in_a_program_without_logging_a_note_is_a_plain_line(tmp_path):
    code = "from densepath.notes import say_once as say; say('no picture'); say('no picture')"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stderr == "no picture\n"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("short", 10, "short"),
        ("a photograph of a cat.jpg", 15, "a photogra….jpg"),
        ("日本語の犬の写真", 9, "日本語…真"),
        ("a\tb", 10, "a\\tb"),
        ("", 5, '""'),
        ("  ", 5, '"  "'),
        ("می\u200cخواهم", 20, "می\u200cخواهم\u200e"),
    ],
)
def test_a_name_is_one_line_of_at_most_so_many_columns(text, width, shown):
    assert literal(text, width) == shown
    assert columns(literal(text, width)) <= width


def test_markdown_shows_names_as_they_stand():
    assert in_markdown("densenet_bc_22_12") == "densenet_bc_22_12"
    assert in_markdown("_a_ *b* `c` |") == r"\_a\_ \*b\* \`c\` \|"
    assert in_markdown("<script>&") == "&lt;script&gt;&amp;"
    assert in_markdown("$x$ a\\b") == r"\$x\$ a\\b"
    assert "\n" not in in_markdown("two\nlines")
    assert in_markdown("") == '""'


def test_all_pictures_are_written_in_one_place_without_global_state():
    saving = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"import .*pyplot|plt\.", text), path
        if re.search(r"savefig|import matplotlib$", text, re.MULTILINE):
            saving.add(path.parent.name)
    assert saving == {"drawing"}


def test_a_level_that_the_user_has_set_comes_back(tmp_path):
    logger = logging.getLogger("matplotlib")
    before = logger.level
    save_picture(tmp_path / "p.png", bars(["ant"]), dpi=40)
    assert logger.level == before

"""Text files as people's programs write them: with or without a byte-order mark, any line ends."""

from __future__ import annotations

import codecs
import unicodedata
from pathlib import Path

from densepath.errors import DatasetError
from densepath.names import readable

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 with a byte-order mark; the mark is left out.

    Raises:
        DatasetError: it is neither, or cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return data.decode("utf-16" if data.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} cannot be read as UTF-8 or UTF-16 text: {error}. Save it as UTF-8."
        ) from error


def read_lines(path: Path) -> list[str]:
    r"""The lines of a text file without blanks at their ends; they end in \n, \r\n or \r.

    Raises:
        DatasetError: it is not text, or cannot be read.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    return [line.strip() for line in text.split("\n")]


def normal_form(name: str) -> str:
    """A class name as text in Unicode's form NFC: macOS writes `é` as two characters.

    A folder's name may hold bytes that are no text; they are escaped, as everywhere.
    """
    return unicodedata.normalize("NFC", readable(name))

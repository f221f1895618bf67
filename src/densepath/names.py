"""Names that are no text: a file may be called any bytes, and Python holds them as surrogates.

Whatever leaves the program, on a terminal or in a file, is UTF-8: there a byte that is none stands
as `\\xe9`, as a shell shows it. `os.fsencode` of the name that Python holds gives the bytes back.
"""

from __future__ import annotations

import codecs
import json
import re
from os import PathLike, fspath
from typing import Any

from densepath.errors import UsageError

READABLE = "densepath.readable"
STRAY = range(0xDC80, 0xDD00)  # bytes 0x80 to 0xff, PEP 383
SURROGATES = re.compile("[\ud800-\udfff]")


def escape(character: str) -> str:
    """`\\xe9` for the stray byte 0xe9, `\\u00e9` for any other character."""
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if code in STRAY else f"\\u{code:04x}"


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """The error handler `READABLE`: what the encoding lacks, escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(escape, error.object[error.start : error.end])), error.end


codecs.register_error(READABLE, _escape_unencodable)


def readable(name: str) -> str:
    """The name with its stray bytes escaped: text that every encoding of Unicode can hold."""
    return SURROGATES.sub(lambda found: escape(found[0]), name)


def check_network_path(path: str | PathLike[str]) -> None:
    """Raise UsageError unless the path is UTF-8, which the libraries that read networks need.

    Images, folders of them, lists and reports may have any name.
    """
    name = fspath(path)
    if readable(name) != name:
        raise UsageError(
            f"{readable(name)} is no UTF-8 name, and the libraries that read and write networks "
            "need one. Rename it; or change into that folder and name what is in it."
        )


def several(named: object) -> list[Any]:
    """A list of names or paths; one that was given alone is not taken letter by letter."""
    return [named] if isinstance(named, str | PathLike) else list(named)  # type: ignore[call-overload]


def to_json(value: Any, **options: Any) -> str:
    """`json.dumps` without ASCII escapes, and with `readable` names, which strict readers want."""
    text = json.dumps(value, ensure_ascii=False, **options)
    return SURROGATES.sub(lambda found: f"\\{escape(found[0])}", text)

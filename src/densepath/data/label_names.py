"""The one reader of label files: a name a line, or `number name` a line as PaddleClas has it."""

from __future__ import annotations

import re
from pathlib import Path

from densepath.errors import DatasetError
from densepath.text import normal_form, read_lines

NUMBERED = re.compile(r"([0-9]+)(?:[ \t]*[,:\t][ \t]*|[ \t]+)(\S.*)")


def read_label_names(path: Path) -> list[str]:
    """The class names of a label file, in the order of the class numbers.

    The lines are numbered when one of them reads `0 name`, or all of them `number name`; they may
    then come in any order. Blank lines at the end are passed over, as are all of a numbered file.

    Raises:
        DatasetError: it cannot be read, has no names, a blank line among them, a name or a
            number twice, or numbers that are not 0, 1, 2 and so on.
    """
    lines = read_lines(path)
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DatasetError(f"{path} has no class names. A label file has one a line.")
    if lines[0][0:1] in ("{", "["):
        raise DatasetError(f"{path} looks like JSON. A label file is plain text, one name a line.")
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    filled = [match for match, line in zip(numbered, lines, strict=True) if line]
    if all(filled) or any(match and int(match[1]) == 0 for match in filled):
        names = _by_number(path, lines)
    else:
        names = dict(enumerate(lines))
    _check_names(path, names)
    return [normal_form(names[number]) for number in range(len(names))]


def _by_number(path: Path, lines: list[str]) -> dict[int, str]:
    """Number → name.

    Raises:
        DatasetError: a line that is not `number name`, or a number twice or left out.
    """
    names: dict[int, str] = {}
    for place, line in enumerate(lines, start=1):
        if not line:
            continue
        match = NUMBERED.fullmatch(line)
        if match is None:
            raise DatasetError(
                f"{path}, line {place}: {line!r} is not `number name`, as other lines are. Number "
                "all lines or none."
            )
        number = int(match[1])
        if number in names:
            raise DatasetError(
                f"{path}, line {place}: the number {number} is given twice, to {names[number]!r} "
                f"and {match[2]!r}."
            )
        names[number] = match[2]
    missing = next((number for number in range(len(names)) if number not in names), None)
    if missing is not None:
        raise DatasetError(
            f"{path} has no name for class {missing}: its numbers go from {min(names)} to "
            f"{max(names)}, and {len(names)} classes are numbered from 0 to {len(names) - 1}. "
            f"(Where the numbers belong to the names, write `0 {min(names)} {names[min(names)]}`.)"
        )
    return names


def _check_names(path: Path, names: dict[int, str]) -> None:
    """Raise unless every class has a name of its own.

    Raises:
        DatasetError: a name is blank, or two are alike.
    """
    first: dict[str, int] = {}
    for number, name in sorted(names.items()):
        if not name:
            raise DatasetError(
                f"{path}, line {number + 1} is blank: class {number} would have no name."
            )
        other = first.setdefault(normal_form(name), number)
        if other != number:
            raise DatasetError(
                f"{path}: the classes {other} and {number} are both called {name!r}; an answer "
                "could not say which. Give each a name of its own."
            )

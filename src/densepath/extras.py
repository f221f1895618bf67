"""What the extras of densepath stand for, from the metadata of the installed package.

`pip install 'densepath[onnx]'` works only where an index has densepath. The packages that an extra
brings can be named anywhere, and the metadata knows them: no second list that could drift.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from densepath.notes import say

DISTRIBUTION = "densepath"


def packages_of(extra: str) -> list[str]:
    """The requirements that `extra` adds on this machine, sorted, as `["onnx", "onnxruntime"]`.

    Empty where densepath runs without being installed, or has no such extra.
    """
    from importlib import metadata

    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    from packaging.requirements import Requirement

    found: set[str] = set()
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            continue  # densepath needs it anyway
        if not marker.evaluate({"extra": extra}):
            continue
        if requirement.name == DISTRIBUTION:  # an extra that is made of others
            for inner in requirement.extras:
                found.update(packages_of(inner))
            continue
        requirement.marker = None
        found.add(str(requirement))
    return sorted(found)


def command_for(missing: Mapping[str, str]) -> str:
    """The one command that brings these packages, and all else that the extra of each stands for.

    Args:
        missing: packages, as `onnx`, and the extra that brings each.
    """
    wanted: dict[str, None] = {}
    for package, extra in missing.items():
        wanted.update(dict.fromkeys(packages_of(extra) or [package]))
    return shlex.join(["pip", "install", *wanted])


def note_left_out(
    made: str, chosen: Iterable[str], left_out: Iterable[str], missing: Mapping[str, str]
) -> None:
    """Note which formats a verb leaves out for want of packages, and what brings those.

    Args:
        made: what the verb has done with the others, as `written`.
        chosen: the formats that it makes.
        left_out: those that it does not.
        missing: the packages that these need, and the extra that brings each.
    """
    say(
        f"{made} as {', '.join(chosen)} only: packages for {' and '.join(left_out)} are not "
        f"installed. They come with: {command_for(missing)}"
    )


def find_missing(packages: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Those of these packages that are not installed, each with the extra that brings it.

    Args:
        packages: the name that each is imported by, and its extra.
    """
    return {package: extra for package, extra in packages if not _is_installed(package)}


def _is_installed(package: str) -> bool:
    """Whether it could be imported; it is not imported."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even what it is a part of
        return False

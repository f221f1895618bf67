"""What the extras of densepath stand for, from the metadata of the installed package.

`pip install 'densepath[onnx]'` works only where an index has densepath. The packages that an extra
brings can be named anywhere, and the metadata knows them: no second list that could drift.
"""

from __future__ import annotations

import shlex

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


def install_command(package: str, extra: str) -> str:
    """The command that brings `package` and all else that `extra` stands for."""
    packages = packages_of(extra)
    return shlex.join(["pip", "install", *(packages if packages else [package])])

"""Which bundle a model is: the folder that its path led to, and the hash of the manifest there.

A path may be a link, or lead through some (`current -> v2`). It is followed once for each load, so
that a link that changes meanwhile never mixes two bundles. Several workers hold the same bundles by
these two: whoever takes a dead one's place opens what the others hold, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from densepath.bundle.bundle import Bundle
from densepath.bundle.manifest import MANIFEST
from densepath.errors import BundleError
from densepath.serving.core.settings import ModelSource

# Of a volume of Kubernetes (a ConfigMap, a projected one): the files are links into what it leads
# to, which is changed as a whole.
KUBERNETES = "..data"
A_PATH = "(a path of the server)"


@dataclass(frozen=True)
class Held:
    """A bundle: its folder without links, and the sha256 of its manifest, which is what counts."""

    folder: Path = field(compare=False)
    sha256: str


@dataclass(frozen=True)
class Absent:
    """Why nothing answers under a name and version; `is_lost` where nobody had unloaded it."""

    reason: str
    is_lost: bool = False


Key: TypeAlias = tuple[str, str]
# By name and version, what every worker holds.
Holdings: TypeAlias = Mapping[Key, Held | Absent]


def find_bundle(source: ModelSource) -> Held:
    """The bundle that the source's path leads to now.

    Raises:
        BundleError: there is none, or its manifest was changed.
    """
    folder = follow(source.path)
    if folder != source.path and not folder.exists():
        raise BundleError(
            f"{source.path} is a link to {folder}, which is not there; have it lead to a bundle."
        )
    return Held(folder, Bundle.open(folder).sha256)


def find_again(source: ModelSource, held: Held) -> Held:
    """The same bundle, where it was or where the source's path leads now.

    Raises:
        BundleError: neither has it any more.
    """
    with suppress(BundleError):
        if Bundle.open(held.folder).sha256 == held.sha256:
            return held
    found = find_bundle(source)
    if found.sha256 != held.sha256:
        raise BundleError(
            f"{source.path} has another bundle now (sha256 {found.sha256[:12]}) than was loaded "
            f"({held.sha256[:12]})."
        )
    return found


def open_held(held: Held) -> Bundle:
    """The bundle, once it is the one that is meant.

    Raises:
        BundleError: another one stands there, or none.
    """
    bundle = Bundle.open(held.folder)
    if bundle.sha256 != held.sha256:
        raise BundleError(f"{held.folder} was replaced while it was loaded; load it again.")
    return bundle


def follow(path: Path) -> Path:
    """The folder that the path leads to, without links."""
    volume = path / KUBERNETES
    try:
        is_volume = (path / MANIFEST).is_symlink() and (volume / MANIFEST).is_file()
        return (volume if is_volume else path).resolve()
    except (OSError, RuntimeError):  # links that lead to themselves; a folder that is not ours
        return path


def without_path(said: object, source: ModelSource, held: Held | None = None) -> str:
    """The message for clients: the model's name in place of its folder, and of where that led.

    Other paths beside it, which a hint may name, are left out.
    """
    folders = {source.path, held.folder if held else follow(source.path)}
    text = str(said)
    for folder in sorted(map(str, folders), key=len, reverse=True):
        text = text.replace(folder, f"model {source.name}")
    for above in {"/".join(folder.parts[:2])[1:] for folder in folders}:
        text = re.sub(rf"{re.escape(above)}/\S*[^\s.,:;?]", A_PATH, text)
    return text

"""Where a predictor comes from: enough to open it again, in a forked child or another process.

A bundle is opened again from its folder; a checkpoint in a child from the memory that it shares
with its parent, and in another process from its file or by its name. What stands there must be what
was opened: a predictor that is sent somewhere gives the same answers there, or an error.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densepath.bundle.bundle import Bundle
from densepath.bundle.other_formats import INT8
from densepath.choices import TestAugmentation
from densepath.errors import BundleError, CheckpointError

if TYPE_CHECKING:
    from densepath.engines.choose import Choice
    from densepath.engines.request import EngineRequest
    from densepath.predict.predictor import Predictor
    from densepath.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Source:
    """What `densepath.load` was asked for.

    Attributes:
        held: what was opened.
        name: the checkpoint's file, or the name of published weights; None for a bundle, and for a
            checkpoint that was handed in.
        request: what was asked of the engine.
        crop_share: as it was asked for.
        choice: the engine that was chosen; the same one is opened again.
        tta: the test-time augmentation around it.
    """

    held: Bundle | Checkpoint
    name: str | None
    request: EngineRequest
    crop_share: float | None
    choice: Choice
    tta: TestAugmentation = "none"

    def open(self) -> Predictor:
        """The predictor, once more, in this process.

        Raises:
            BundleError: the bundle is another one by now, or was changed.
            DensepathError: what `densepath.load` raises.
        """
        from densepath.engines.choose import choose
        from densepath.predict.load import open_source

        held = self.held
        if isinstance(held, Bundle):
            held = _unchanged_bundle(held.folder, fingerprint(held))
        request = replace(self.request, engine=self.choice.engine)
        if self.choice.precision != INT8:  # which is no request: it is stored in the bundle
            request = replace(request, precision=self.choice.precision)
        bundle = held if isinstance(held, Bundle) else None
        choose(request, bundle)  # this process may lack something
        return open_source(replace(self, held=held))

    def to_state(self) -> dict[str, Any]:
        """What another process opens it from: names and fingerprints, in place of weights.

        A checkpoint that was handed in has no name; it goes along whole.
        """
        by_value = self.name is None and not isinstance(self.held, Bundle)
        return {
            "folder": self.held.folder if isinstance(self.held, Bundle) else None,
            "name": self.name,
            "held": self.held if by_value else None,
            "fingerprint": None if by_value else fingerprint(self.held),
            "request": self.request,
            "crop_share": self.crop_share,
            "choice": self.choice,
            "tta": self.tta,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Source:
        """The source that `to_state` described.

        Raises:
            BundleError, CheckpointError: something else stands there by now.
            DensepathError: nothing does.
        """
        values = dict(state)
        folder, found = values.pop("folder"), values.pop("fingerprint")
        if folder is not None:
            values["held"] = _unchanged_bundle(folder, found)
        elif values["held"] is None:
            values["held"] = _unchanged_checkpoint(values["name"], found)
        return cls(**values)


def fingerprint(held: Bundle | Checkpoint) -> str:
    """SHA-256 of all that answers depend on; a bundle's manifest has the hashes of its files."""
    if isinstance(held, Bundle):
        return hashlib.sha256(held.manifest.to_text().encode()).hexdigest()
    described = [held.spec.to_dict(), held.preprocess.to_dict(), held.labels, held.multi_label]
    described += [held.in_channels, held.thresholds, held.temperature]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(held.tensors.items()):
        array = tensor.contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def name_of_checkpoint(subject: str | Path) -> str:
    """What names a checkpoint from any folder: its file, or the published name.

    Raises:
        DensepathError: what `locate` raises.
    """
    from densepath.weights.subject import SHIPPED, locate

    found = locate(subject)
    if isinstance(found, Path) and SHIPPED not in found.parents:
        return str(found.resolve())
    return str(subject)


def _unchanged_bundle(folder: Path, wanted: str) -> Bundle:
    """The bundle of the folder.

    Raises:
        BundleError: there is none, or another one.
    """
    bundle = Bundle.open(folder)
    if fingerprint(bundle) != wanted:
        raise BundleError(f"{folder} {_REPLACED}")
    return bundle


def _unchanged_checkpoint(name: str, wanted: str) -> Checkpoint:
    """The checkpoint of that name.

    Raises:
        CheckpointError: it is another one.
        DensepathError: what `open_checkpoint` raises.
    """
    from densepath.weights.subject import open_checkpoint

    checkpoint = open_checkpoint(name)
    if fingerprint(checkpoint) != wanted:
        raise CheckpointError(f"{name} {_REPLACED}")
    return checkpoint


_REPLACED = (
    "is not what the predictor was opened from: it was replaced since. Open it anew, by "
    "densepath.load, and send that."
)

"""The Checkpoint: everything that an answer needs, in one safetensors file.

On the line: training writes it, `subject.py` opens it, engines and export start from it. The
file holds the tensors under the names of `build_model`'s network, and in its metadata one JSON
document under the key `densepath`, and of a training a second one on its images (`trained_on.py`)
under a key of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from densepath.bundle import fields
from densepath.errors import CheckpointError, OutputError, UsageError
from densepath.files import write_atomically
from densepath.images.preprocess import Preprocess
from densepath.models.build import Model, build_model
from densepath.models.spec import ModelSpec
from densepath.names import check_network_path, to_json
from densepath.weights.checkpoint_file import FORMAT, METADATA_KEY, read_checkpoint
from densepath.weights.labels import known_labels
from densepath.weights.match import check_tensors, is_weight
from densepath.weights.trained_on import METADATA_KEY as TRAINED_ON_KEY
from densepath.weights.trained_on import TrainedOn
from densepath.wording import first_of


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """The safetensors file `path` holds `tensors`; it is never seen half written.

    Equal contents make equal bytes.

    Raises:
        OutputError: it cannot be written.
        UsageError: its name is no UTF-8.
    """
    check_network_path(path)
    try:
        with write_atomically(path) as temporary:
            save_file(tensors, str(temporary), metadata=metadata)
            _sort_metadata(temporary)
    except SafetensorError as error:  # a full disk, for one
        raise OutputError(f"cannot write {path}: {error}") from error


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order; the library writes them in any.

    Source: the format of https://github.com/huggingface/safetensors: eight bytes of length,
    little-endian, a JSON header of that length, the tensors.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:  # longer only where there were no metadata at all
            file.seek(8)
            file.write(text.ljust(size))


@dataclass(frozen=True)
class Checkpoint:
    """A network's description and tensors, with all that is needed to use it.

    Attributes:
        spec: the architecture.
        preprocess: the way from an image to the network's input.
        labels: the name of each class, in the order of the logits.
        tensors: parameters and running statistics by the names of `build_model`'s network;
            BatchNorm's `num_batches_tracked` is not among them.
        in_channels: the channels of the images.
        multi_label: every class is a yes or no of its own (sigmoid), not one of many (softmax).
        provenance: where the weights come from; free for the writer, JSON values only.
        trained_on: which images densepath trained them on; None where it did not.
        thresholds: of a multi-label network, what each class's score must be above for a yes, 0
            to 1; None where nothing was chosen.
        temperature: what logits are divided by before they become scores; None: nothing.
    """

    spec: ModelSpec
    preprocess: Preprocess
    labels: list[str]
    tensors: dict[str, Tensor]
    in_channels: int = 3
    multi_label: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    trained_on: TrainedOn | None = field(default=None, repr=False)
    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        """Raise unless thresholds and temperature can be.

        Raises:
            UsageError: not one threshold a class, of a network that is not multi-label, or a number
                out of range.
        """
        try:
            chosen = None if self.thresholds is None else list(self.thresholds)
            fields.thresholds(chosen, "thresholds")
            fields.temperature(self.temperature, "temperature")
            fields.check_decisions(self.thresholds, self.num_classes, multi_label=self.multi_label)
        except fields.WrongFieldError as error:
            raise UsageError(f"{error}.") from error

    def __repr__(self) -> str:
        """The network, its classes and its images in one line, without the tensors."""
        parameters = sum(tensor.numel() for tensor in self.tensors.values()) / 1e6
        height, width = self.preprocess.size
        return (
            f"<Checkpoint: {self.spec.name}, {self.num_classes:,} classes: "
            f"{first_of(self.labels)}; images of {height} × {width} × {self.in_channels}; "
            f"{parameters:.2f} M values>"
        )

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        return len(self.labels)

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        preprocess: Preprocess,
        labels: Sequence[str] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        multi_label: bool = False,
        provenance: dict[str, Any] | None = None,
        trained_on: TrainedOn | None = None,
    ) -> Checkpoint:
        """The checkpoint of a network as it is now; its tensors are copies on the CPU.

        Args:
            model: the network.
            preprocess: the way from an image to its input.
            labels: the class names; by default ImageNet-1k's for 1,000 classes, else numbers.
            tensors: taken instead of the network's own, as for an average of weights.
            multi_label, provenance, trained_on: as in the class.

        Raises:
            UsageError: not one label for each class, or a preprocessing of other channels.
        """
        names = known_labels(model.num_classes) if labels is None else list(labels)
        if len(names) != model.num_classes:
            raise UsageError(f"{len(names)} labels for a network of {model.num_classes} classes.")
        if preprocess.channels != model.in_channels:
            raise UsageError(
                f"the preprocessing makes {preprocess.channels} channels; "
                f"the network takes {model.in_channels}."
            )
        held = model.state_dict() if tensors is None else tensors
        copies = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in held.items()
            if is_weight(name)
        }
        return cls(
            model.spec,
            preprocess,
            names,
            copies,
            model.in_channels,
            multi_label,
            dict(provenance or {}),
            trained_on,
        )

    def in_float32(self) -> Checkpoint:
        """The same with weights of other precisions in float32, as every runtime reads them."""
        tensors = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in self.tensors.items()
        }
        return replace(self, tensors=tensors)

    def in_float16(self) -> Checkpoint:
        """The same in half the bytes: kernels rounded to float16, BatchNorm's numbers as they are.

        It is read and computed with as one in float32.

        Raises:
            UsageError: a weight is too large for float16; the message names its tensor.
        """
        tensors = dict(self.tensors)
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point() and tensor.dim() > 1:
                tensors[name] = tensor.half()
                if not bool(torch.isfinite(tensors[name]).all()):
                    raise UsageError(
                        f"{name} has weights up to {float(tensor.abs().max()):.3g}, and float16 "
                        "ends at 65,504. Keep this checkpoint in float32."
                    )
        return replace(self, tensors=tensors)

    def to_model(self) -> Model:
        """The network with these tensors, in evaluation mode, on the CPU, in float32.

        Raises:
            KeyMismatchError: the tensors are not this network's.
        """
        check_tensors(self.tensors, self.spec, self.num_classes, self.in_channels, "checkpoint")
        with torch.device("meta"):
            model = build_model(
                self.spec, num_classes=self.num_classes, in_channels=self.in_channels
            )
        state = {
            name: self.tensors[name].to(torch.float32, copy=True)
            if is_weight(name)
            else torch.zeros((), dtype=torch.int64)
            for name in model.state_dict()
        }
        model.load_state_dict(state, assign=True)
        return model.eval()

    def save(self, path: str | Path) -> None:
        """The file `path` holds this checkpoint; it is never seen half written.

        Raises:
            OutputError: it cannot be written.
        """
        text = to_json(self._describe(), sort_keys=True)
        metadata = {METADATA_KEY: text}
        if self.trained_on is not None:
            metadata[TRAINED_ON_KEY] = self.trained_on.to_text()
        write_tensors(path, self.tensors, metadata)

    def _describe(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON values; what was not chosen is not there."""
        values = {
            "format": FORMAT,
            "spec": self.spec.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "labels": self.labels,
            "in_channels": self.in_channels,
            "multi_label": self.multi_label,
            "provenance": self.provenance,
        }
        chosen = {"thresholds": self.thresholds, "temperature": self.temperature}
        return values | {name: value for name, value in chosen.items() if value is not None}

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """The checkpoint in the file `path`.

        Raises:
            CheckpointError: no such file, not a checkpoint of densepath, or damaged.
            UsageError: its name is no UTF-8.
        """
        file = read_checkpoint(path, framework="pt")
        trained_on = file.metadata.get(TRAINED_ON_KEY)
        try:
            known = None if trained_on is None else TrainedOn.from_text(trained_on)
        except ValueError as error:
            raise CheckpointError(f"{path}: a damaged checkpoint: {error}") from error
        return cls(
            file.spec,
            file.preprocess,
            file.labels,
            file.tensors,
            file.in_channels,
            file.multi_label,
            file.provenance,
            known,
            file.thresholds,
            file.temperature,
        )

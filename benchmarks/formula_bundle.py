"""Checkpoints and Bundles whose parameters are the formula's: what the benchmarks run.

Run: .venv/bin/python benchmarks/formula_bundle.py MODEL FOLDER [FORMAT,FORMAT]   a Bundle in FOLDER
     with --photos IMAGES.zip its report is of them, which `auto` takes a precision by; with
     --int8 IMAGES.zip NUMBER it is in INT8, calibrated with as many of the images
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densepath.engines.choose import Choice
    from densepath.weights.checkpoint import Checkpoint

FORMATS = "onnx,openvino,torch"


def formula_checkpoint(model: str, **switches: Any) -> Checkpoint:
    """A Checkpoint of the catalogue's model, with timm's preprocessing of densenet121.ra_in1k.

    `switches` are those of `build_model`.
    """
    import torch

    from densepath.images.preprocess import Preprocess
    from densepath.models.build import build_model
    from densepath.weights.checkpoint import Checkpoint
    from densepath.weights.formula import formula_tensor

    network = build_model(model, **switches)
    tensors = {
        name: torch.from_numpy(formula_tensor(name, tuple(tensor.shape)))
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    preprocess = Preprocess((224, 224), 256, "bicubic")
    return Checkpoint.of(network, preprocess=preprocess, tensors=tensors)


@contextmanager
def formula_bundle(
    model: str, kept: Path | None, formats: str = FORMATS, photos: Path | None = None
) -> Iterator[Path]:
    """A Bundle of the model; a process of its own made it, whose memory is free.

    Args:
        model: a name of the catalogue.
        kept: the folder in which it stays for the next time, under the model's name; without one
            it is removed.
        formats: of the bundle, commas between.
        photos: a folder or zip of those that the export measures it on, as it does by default
            (the name ends with `-measured` then); without them it takes two, to be quick.

    Raises:
        SystemExit: the export failed.
    """
    name, words = (f"{model}-measured", ["--photos", str(photos)]) if photos else (model, [])
    with _made(name, kept, model, [formats, *words]) as folder:
        yield folder


@contextmanager
def int8_bundle(
    model: str, kept: Path | None, images: Path, number: int, formats: str
) -> Iterator[Path]:
    """As `formula_bundle` in INT8, calibrated with `number` of the images.

    It is kept under the model's name and `-int8`.

    Raises:
        SystemExit: the quantisation failed.
    """
    words = [formats, "--int8", str(images), str(number)]
    with _made(f"{model}-int8", kept, model, words) as folder:
        yield folder


def choice_of(bundle: Path, precision: str, threads: int) -> Choice:
    """What `densepath.load(bundle, precision=...)` takes by itself."""
    from densepath.bundle.bundle import Bundle
    from densepath.engines.choose import choose
    from densepath.engines.request import EngineRequest

    request = EngineRequest(precision=precision, threads=threads, device="cpu")  # type: ignore[arg-type]
    return choose(request, Bundle.open(bundle))


@contextmanager
def _made(name: str, kept: Path | None, model: str, words: list[str]) -> Iterator[Path]:
    """The folder that this script makes of the model with `words`, or has made before."""
    with TemporaryDirectory() as scratch:
        folder = (kept or Path(scratch)).resolve() / name
        if not folder.exists():
            command = [sys.executable, __file__, model, str(folder), *words]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                sys.exit(f"{name} cannot be made:\n{run.stderr[-2000:]}")
        yield folder


def main() -> None:
    """Makes one Bundle."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("formats", nargs="?", default=FORMATS)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--int8", nargs=2, metavar=("IMAGES", "NUMBER"))
    options = parser.parse_args()
    wanted: Any = options.formats.split(",")
    if options.int8:
        from densepath.quantize.quantize import quantize

        images, number = options.int8
        quantize(
            formula_checkpoint(options.model),
            options.folder,
            data=images,
            num_images=int(number),
            num_held_out=16,
            to=wanted,
            method="minmax",
        )
    else:
        from densepath.exporting.export import export

        checkpoint = formula_checkpoint(options.model)
        quick: Any = {"num_images": 2, "batch_sizes": (1,)}
        how = {"images": [options.photos]} if options.photos else quick
        export(checkpoint, options.folder, to=wanted, **how)


if __name__ == "__main__":
    main()

"""`simulate`: an image through the program's integers, byte for byte as on the NPU.

Vela keeps the arithmetic of the INT8 network that it compiles: so that network is run, by our own
executor of its integers, in a process of its own. LiteRT's reference kernels are an independent
executor of the same program: `differing_layers` holds one against the other.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densepath.choices import TOP_K
from densepath.errors import DataError, EngineError, MissingPackageError
from densepath.files import write_atomically, write_text
from densepath.images.decode import open_picture
from densepath.images.preprocess import Preprocess
from densepath.npu.program import Program
from densepath.predict.answers import Prediction, answer

# The most that is told of why it failed.
REASON = 300
Kernels = Literal["densepath", "litert", "tflm"]
# What the kernels of others come in: the module, and the package that brings it.
PACKAGES = {
    "densepath": ("ai_edge_litert", "ai-edge-litert"),
    "litert": ("ai_edge_litert", "ai-edge-litert"),
    "tflm": ("tflite_micro", "tflite-micro"),
}
SECONDS = 600
RAW = ".bin"
FLOAT_BYTES = 4


@dataclass(frozen=True)
class OperatorOutput:
    """A tensor that an operator made.

    Attributes:
        name: as the file calls it.
        values: of its integers, [1, H, W, C] or [1, classes].
        scale, zero_point: value = scale · (integer − zero point).
    """

    name: str
    values: NDArray[Any]
    scale: float
    zero_point: int

    def reals(self) -> NDArray[np.float32]:
        """The numbers that the integers stand for."""
        return (self.scale * (self.values.astype(np.float32) - self.zero_point)).astype(np.float32)


@dataclass(frozen=True)
class Simulation:
    """What a program answers to one image.

    Attributes:
        prediction: the answer.
        logits: its integers, int8 [classes].
        layers: what every operator made, in order.
        seconds: that the simulation took.
        kernels: that made them.
    """

    prediction: Prediction
    logits: NDArray[np.int8]
    layers: list[OperatorOutput]
    seconds: float
    kernels: Kernels = "densepath"


def simulate(
    program: Program, source: str | Path, *, top_k: int = TOP_K, kernels: Kernels = "densepath"
) -> Simulation:
    """The answer to an image file, or to a `.bin` file of the input's bytes.

    Args:
        program: compiled.
        source: an image, which is resized; or raw uint8 [H, W, C], not normalised.
        top_k: the classes in the answer.
        kernels: our own executor, LiteRT's reference kernels, or those of TensorFlow Lite Micro,
            which give the same bytes; the latter's of the last layer alone.

    Raises:
        DataError: the file cannot be read, or has another number of bytes.
        MissingPackageError: what reads the program is not installed.
        EngineError: the simulator fails.
    """
    pixels = read_pixels(Path(source), program.preprocess)
    start = time.monotonic()
    layers, output = _run(program.model, pixels, kernels)
    seconds = time.monotonic() - start
    last = layers[output]
    (prediction,) = answer(
        last.reals(),
        [str(source)],
        program.labels,
        top_k=top_k,
        multi_label=program.multi_label,
        thresholds=program.description.thresholds,
        temperature=program.description.temperature,
    )
    return Simulation(prediction, last.values.reshape(-1), list(layers.values()), seconds, kernels)


def simulate_batch(program: Program, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits [N, classes] of images uint8 [N, H, W, C], not normalised.

    Raises:
        MissingPackageError: LiteRT is not installed.
        EngineError: the simulator fails.
    """
    return simulate_integers(program, pixels).reals()


def simulate_integers(
    program: Program, pixels: NDArray[np.uint8], *, kernels: Kernels = "densepath"
) -> OperatorOutput:
    """The last layer, [N, classes], of images uint8 [N, H, W, C], not normalised.

    Raises:
        MissingPackageError: what runs the program is not installed.
        EngineError: the simulator fails.
    """
    layers, output = _run(program.model, pixels, kernels)
    return layers[output]


def differing_layers(one: Simulation, other: Simulation) -> list[str]:
    """The names of the layers whose bytes are not the same in both.

    The logits of LiteRT's kernels may be off by a step: its fully connected layers round once,
    those of an NPU and of TensorFlow Lite Micro twice.
    """
    pairs = list(zip(one.layers, other.layers, strict=True))
    differing = [
        mine.name for mine, theirs in pairs if mine.values.tobytes() != theirs.values.tobytes()
    ]
    mine, theirs = (layer.values for layer in pairs[-1])
    if "litert" in (one.kernels, other.kernels) and mine.dtype == theirs.dtype == np.int8:
        near = np.abs(mine.astype(np.int16) - theirs).max(initial=0) <= 1
        differing = differing[:-1] if near and differing[-1:] == [pairs[-1][0].name] else differing
    return differing


def read_pixels(path: Path, preprocess: Preprocess) -> NDArray[np.uint8]:
    """uint8 [1, H, W, C] of an image file, or of a `.bin` file that holds just these bytes.

    Raises:
        DataError: it cannot be read, or has another number of bytes.
    """
    shape = (1, *preprocess.size, preprocess.channels)
    if path.suffix.lower() != RAW:
        return preprocess.fit(open_picture(path, channels=preprocess.channels))[None]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    wanted = int(np.prod(shape))
    if len(data) != wanted:
        height, width, channels = shape[1:]
        guess = (
            " It looks like float32; the program takes the pixels as they are, not normalised."
            if len(data) == FLOAT_BYTES * wanted
            else ""
        )
        raise DataError(
            f"{path} has {len(data):,} bytes; the program takes {wanted:,}: uint8, {height} rows "
            f"of {width} pixels of {channels} channels.{guess}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def dump_layers(simulation: Simulation, folder: Path) -> None:
    """`folder` has each layer's integers (.npy) and `layers.csv`, which lists them.

    Raises:
        OutputError: it cannot be written.
    """
    lines = ["file,name,type,shape,scale,zero_point"]
    for number, layer in enumerate(simulation.layers):
        name = f"{number:03d}.npy"
        with write_atomically(folder / name) as temporary, temporary.open("wb") as file:
            np.save(file, layer.values)
        shape = "x".join(map(str, layer.values.shape))
        quoted = layer.name.replace('"', "'")
        lines.append(
            f'{name},"{quoted}",{layer.values.dtype},{shape},{layer.scale!r},{layer.zero_point}'
        )
    write_text(folder / "layers.csv", "\n".join(lines) + "\n")


def _run(
    model: Path, pixels: NDArray[np.uint8], kernels: Kernels = "densepath"
) -> tuple[dict[int, OperatorOutput], int]:
    """The tensors by their numbers, in the order they are made, and the number of the logits.

    Raises:
        MissingPackageError: what runs or reads the program is not installed.
        EngineError: the child process fails.
    """
    for module, package in (PACKAGES["litert"], PACKAGES[kernels]):
        if find_spec(module) is None:
            raise MissingPackageError(package, "npu")
    with tempfile.TemporaryDirectory(prefix="densepath-") as folder:
        source, target = Path(folder) / "input.npy", Path(folder) / "output.npz"
        np.save(source, pixels)
        command = [sys.executable, "-m", "densepath.npu.simulator"]
        try:
            done = subprocess.run(
                [*command, kernels, str(model), str(source), str(target)],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EngineError(f"the simulator did not end in {SECONDS} s.") from None
        if done.returncode or not target.is_file():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            why = said[-1][:REASON] if said else f"it ended with the code {done.returncode}"
            raise EngineError(f"the simulator failed on {model.name}: {why}")
        with np.load(target) as made:
            layers = {
                int(index): OperatorOutput(
                    str(made[f"name_{index}"]),
                    made[f"tensor_{index}"],
                    float(made[f"scale_{index}"][0]),
                    int(made[f"scale_{index}"][1]),
                )
                for index in made["order"]
            }
            return layers, int(made["output"])

"""A Paddle inference model on an NPU, step by step: `make demo-npu`.

Quantises `X.pdmodel` and `X.pdiparams` on calibration images, compiles the result for an Arm
Ethos-U, writes one image as the bytes of the input (`model_input.bin`), runs them in the simulator,
and profiles the program. Each step is a command that you can type yourself.

Without arguments the model is a narrow DenseNet of PaddleClas's layers that comes with the tests,
with weights that were never trained: the walk is whole, its answers mean nothing. With your own:

    make demo-npu MODEL=DenseNet121.pdmodel DATA=imagenet/val
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMALL = ROOT / "tests" / "parity" / "files" / "paddle_inference" / "densenet" / "inference.pdmodel"
PACKAGES = ("ethosu", "ai_edge_litert", "litert_torch")
TARGET = "ethos-u65-512"
OUTPUT = Path("demo-npu-output")
CALIBRATION = 200
SUFFIXES = (".jpg", ".jpeg", ".png")
CROPS = 13  # a side, of each of two photographs: 338


def main() -> None:
    """Runs the commands one after another; stops with an error when one fails."""
    given = _arguments()
    started = time.monotonic()
    output = given.output
    if output == OUTPUT:
        shutil.rmtree(output, ignore_errors=True)
    if output.exists():
        sys.exit(f"error: {output} is there already; name a new folder.")
    output.mkdir(parents=True)
    data = given.data or _photographs(output / "photographs")
    bundle, program, vectors = (output / name for name in ("int8", "program", "vectors"))
    tensors = f"--weights {shlex.quote(str(given.weights))} " if given.weights else ""
    draws = given.sensitivity or given.model == SMALL
    densepath(
        f"quantize {_quoted(given.model)} {tensors}--data {_quoted(data)} --images {given.images} "
        f"--for npu{' --sensitivity' if draws else ''} -o {_quoted(bundle)}"
    )
    densepath(f"npu compile {_quoted(bundle)} --target {given.target} -o {_quoted(program)}")
    photograph = given.image or _one_image(Path(data), output)
    densepath(
        f"npu vectors {_quoted(program)} {_quoted(photograph)} --num-images 1 -o {_quoted(vectors)}"
    )
    model_input = output / "model_input.bin"
    shutil.copy(vectors / "0000_input.bin", model_input)
    print(f"\n$ cp {vectors / '0000_input.bin'} {model_input}", flush=True)
    densepath(f"npu simulate {_quoted(program)} --input {_quoted(model_input)} --check")
    picture, table = output / "profile.png", output / "layers.csv"
    densepath(f"npu profile {_quoted(program)} --csv {_quoted(table)} --picture {_quoted(picture)}")
    print(f"\nThe walk took {time.monotonic() - started:.0f} s. Now look at:")
    shown = [
        (picture, "where the NPU's time and memory go, layer by layer"),
        (bundle / "quantization.md", "what 8 bits change of the answers"),
        (bundle / "sensitivity.png", "what 8 bits do to each layer"),
        (program / "README.md", "how a firmware engineer builds the program"),
        (vectors, "the bytes that go in and must come out on a board"),
    ]
    for place, what in shown:
        if place.exists():
            print(f"  {place!s:<38}{what}")


def _arguments() -> argparse.Namespace:
    """What the command line says; what is missing of this machine ends it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", type=Path, nargs="?", default=SMALL, help="a .pdmodel or .json file, or its folder"
    )
    parser.add_argument(
        "--weights", "-w", type=Path, help="its .pdiparams file, where it is not called alike"
    )
    parser.add_argument(
        "--data", "-d", help="images like those to come; by default scikit-learn's two photographs"
    )
    parser.add_argument("--images", "-i", type=int, default=CALIBRATION, help="to calibrate on")
    parser.add_argument("--image", help="the one that is simulated; by default the first of DATA")
    parser.add_argument("--target", default=TARGET, help="as `densepath npu targets` lists them")
    parser.add_argument("--sensitivity", action="store_true", help="draw it; slow, if large")
    parser.add_argument("--output", "-o", type=Path, default=OUTPUT)
    given = parser.parse_args()
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        sys.exit(f"error: {', '.join(missing)} missing; `make install-npu` brings them.")
    return given


def _quoted(path: object) -> str:
    """The path as a shell takes it."""
    return shlex.quote(str(path))


def _photographs(folder: Path) -> Path:
    """The folder holds crops of scikit-learn's two photographs, for a walk without images."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    folder.mkdir()
    for number, picture in enumerate(load_sample_images().images):
        whole = Image.fromarray(picture)
        side = min(whole.size) // 2
        for place in range(CROPS**2):
            left = (whole.width - side) * (place % CROPS) // (CROPS - 1)
            top = (whole.height - side) * (place // CROPS) // (CROPS - 1)
            crop = whole.crop((left, top, left + side, top + side))
            crop.save(folder / f"{number}-{place:03d}.png")
    return folder


def _one_image(data: Path, folder: Path) -> Path:
    """An image of the calibration images: the first of a zip archive, or what a folder has."""
    if not data.exists():
        sys.exit(f"error: {data} is no file or folder; name an image to simulate by --image.")
    if not zipfile.is_zipfile(data):
        return data
    with zipfile.ZipFile(data) as archive:
        names = sorted(one for one in archive.namelist() if Path(one).suffix.lower() in SUFFIXES)
        if not names:
            sys.exit(f"error: {data} has no JPEG or PNG; name an image to simulate by --image.")
        place = folder / Path(names[0]).name
        place.write_bytes(archive.read(names[0]))
    return place


def densepath(arguments: str) -> None:
    """Prints and runs one `densepath` command."""
    print(f"\n$ densepath {arguments}", flush=True)
    command = [sys.executable, "-m", "densepath", *shlex.split(arguments)]
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()

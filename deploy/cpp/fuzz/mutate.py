"""Damages thousands of image files and gives them to the C++ decoder.

    python deploy/cpp/fuzz/mutate.py BUILD/densepath-decode --count 20000 --photos FOLDER

JPEG and PNG; with `--intensity percentiles:1,99` the kinds that are read for their values: 16-bit
PNG, TIFF, DICOM, `.npy`.

Build with `-DDENSEPATH_FUZZ=ON -DDENSEPATH_SANITIZE=ON`: then any memory error or undefined
behaviour ends the program, and the file that did it is kept. Every answer is compared with
`densepath.images.decode`; what differs is counted and the first of each kind is shown.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import numpy as np
from seeds import chunk, seeds
from value_seeds import value_seeds

from densepath.errors import ImageError
from densepath.images.decode import open_image
from densepath.images.intensity import Intensity
from densepath.images.read_as import AS_PHOTOS, ReadAs

BATCH = 200
# That Python reads beside JPEG and PNG, as it lists them.
MORE_KINDS = ", GIF, WEBP, BMP, TIFF, PPM, AVIF, HEIF"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIME_LIMIT_S = 120
SHOWN = 3


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, removed, repeated or cut off."""
    changed = bytearray(data)
    # Damage near the start meets the headers, elsewhere the pixels.
    reach = len(changed) if rng.random() < 0.6 else min(len(changed), 200)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(max(reach, 1)))
        length = int(rng.integers(1, 9))
        match int(rng.integers(6)):
            case 0 | 1:
                changed[place : place + 1] = rng.bytes(1)
            case 2:
                changed[place : place + 1] = bytes([int(rng.choice([0, 1, 127, 128, 255]))])
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = changed[place : place + length]
            case _:
                if rng.random() < 0.3:
                    del changed[place:]
    return with_checksums(bytes(changed)) if rng.random() < 0.7 else bytes(changed)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have right checksums again, so that the damage is not stopped there."""
    if not data.startswith(SIGNATURE):
        return data
    parts, at = [SIGNATURE], len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if at + 12 + length > len(data):
            break
        parts.append(chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts) + data[at:]


def in_python(path: Path, read_as: ReadAs = AS_PHOTOS) -> str:
    """The line that the C++ program should print."""
    try:
        image = open_image(path, channels=read_as.channels, intensity=read_as.intensity)
    except ImageError as error:
        return f"refused {error.reason}".replace(MORE_KINDS, "")
    shape = " ".join(map(str, image.shape))
    return f"pixels {shape} {hashlib.sha256(image.tobytes()).hexdigest()}"


def verdict(ours: str, python: str) -> str:
    """How two lines agree."""
    if ours == python:
        return "equal pixels" if ours.startswith("pixels") else "refused with the same words"
    kinds = tuple(line.split()[0] for line in (ours, python))
    return {
        ("refused", "refused"): "refused with other words",
        ("pixels", "pixels"): "DIFFERENT PIXELS",
        ("pixels", "refused"): "READ, BUT PYTHON REFUSES",
        ("refused", "pixels"): "REFUSED, BUT PYTHON READS",
    }[kinds]


def command(program: str, read_as: ReadAs) -> list[str]:
    """The program and how it is to read files."""
    intensity = read_as.intensity
    said = [] if intensity is None else [intensity.kind, *map(str, intensity.values)]
    return [program, str(read_as.channels), *said]


def decode(words: list[str], paths: list[Path]) -> list[str]:
    """The program's line for each file. Ends the run when the program crashes or hangs."""
    names = "".join(f"{path}\n" for path in paths).encode()
    try:
        run = subprocess.run(words, input=names, capture_output=True, timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired as hung:
        keep(paths, hung.stdout or b"", f"more than {TIME_LIMIT_S} s")
    lines = run.stdout.decode().splitlines()
    if run.returncode != 0 or len(lines) != len(paths):
        keep(paths, run.stdout, run.stderr.decode()[-4000:])
    return lines


def keep(paths: list[Path], printed: bytes, why: str) -> NoReturn:
    """Ends the run; the file that no line was printed for is kept."""
    path = paths[printed.count(b"\n")]
    kept = Path(f"kept-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.img")
    kept.write_bytes(path.read_bytes())
    sys.exit(f"{why}\nthe file is now {kept.resolve()}")


def main() -> None:
    """Prints how many files agreed, and shows some that did not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", type=Path, help="a folder of more files to damage")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--intensity", type=Intensity.parse, help="as file or window:40,400")
    options = parser.parse_args()
    read_as = ReadAs(options.channels, options.intensity)
    rng = np.random.default_rng(options.seed)
    whole = list((value_seeds() if read_as.by_value else seeds()).values())
    if options.photos:
        whole += [path.read_bytes() for path in sorted(options.photos.rglob("*.*"))[:20]]
    counts: Counter[str] = Counter()
    start = time.monotonic()
    with TemporaryDirectory() as folder:
        for done in range(0, options.count, BATCH):
            paths = [Path(folder) / f"{i}.img" for i in range(min(BATCH, options.count - done))]
            for path in paths:
                path.write_bytes(mutate(whole[rng.integers(len(whole))], rng))
            for path, ours in zip(
                paths, decode(command(options.program, read_as), paths), strict=True
            ):
                python = in_python(path, read_as)
                found = verdict(ours, python)
                counts[found] += 1
                if not found.startswith(("equal", "refused with the")) and counts[found] <= SHOWN:
                    print(f"{found}\n  python: {python[:160]}\n  c++:    {ours[:160]}")
    print(f"{options.count:,} files in {time.monotonic() - start:.0f} s: no crash")
    for found, count in counts.most_common():
        print(f"{count:8,} {found}")


if __name__ == "__main__":
    main()

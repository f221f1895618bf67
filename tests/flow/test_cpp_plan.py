"""The C++ program's plan of a network is the one of `models/plan.py`, for any numbers."""

from __future__ import annotations

import json
import random
import subprocess

import pytest

from densepath.models.catalogue import CATALOGUE
from densepath.models.plan import serialise
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from densepath.weights.checkpoint_file import FORMAT

pytestmark = pytest.mark.slow

NUM_DRAWN = 300


def drawn_arch(rng: random.Random):
    """Numbers that the papers' tables do not have."""
    blocks = tuple(rng.randint(1, 4) for _ in range(rng.randint(1, 5)))
    stem = {"stem": rng.choice(["imagenet", "small"]), "stem_pool": rng.choice(["pad1", "same"])}
    if rng.random() < 0.5:
        compression = rng.choice([1.0, 0.5, 0.29, 0.7, rng.uniform(0.1, 1)])
        sizes = {"bottleneck": rng.randint(0, 5), "compression": compression}
        return DenseNetArch(rng.randint(1, 50), blocks, rng.randint(30, 99), **sizes, **stem)
    groups = rng.randint(1, 40)
    return DPNArch(
        stem_width=rng.randint(1, 99),
        stem_kernel=rng.choice([3, 5, 7]),
        k_r=groups * rng.randint(1, 9),
        groups=groups,
        blocks=blocks,
        dense_increment=tuple(rng.randint(1, 130) for _ in blocks),
        base_factor=rng.randint(1, 4),
        **stem,
    )


def write_description(spec: ModelSpec, path) -> None:
    """A checkpoint file without tensors."""
    description = json.dumps({"format": FORMAT, "spec": spec.to_dict(), "in_channels": 3})
    header = json.dumps({"__metadata__": {"densepath": description}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def plans_in_cpp(cpp, paths) -> list[str]:
    """What the C++ program reads of each file."""
    program = cpp.decoder.with_name("densepath-plan")
    names = "".join(f"{path}\n" for path in paths)
    return subprocess.run(
        [program], input=names, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_the_plan_is_python_s_for_the_catalogue_and_for_drawn_numbers(cpp, tmp_path):
    rng = random.Random(7)
    specs = list(CATALOGUE.values())
    specs += [ModelSpec(f"drawn {i}", drawn_arch(rng), 64, "none") for i in range(NUM_DRAWN)]
    paths = [tmp_path / f"{i}.safetensors" for i in range(len(specs))]
    for spec, path in zip(specs, paths, strict=True):
        write_description(spec, path)
    for spec, line in zip(specs, plans_in_cpp(cpp, paths), strict=True):
        least, *words = line.split(" ")
        names, numbers = serialise(spec)
        layers = [words[i : i + 15] for i in range(0, len(words), 15)]
        assert int(least) == spec.least_side, spec
        found = [name if name != "-" else "" for layer in layers for name in layer[:3]]
        assert found == names, spec
        assert [int(word) for layer in layers for word in layer[3:]] == numbers, spec

"""The catalogue: every variant as a row of numbers, like the tables of the papers.

Sources: arXiv:1608.06993 tables 1 and 2; arXiv:1707.01629 table 1; PaddleClas 2.6
`ppcls/arch/backbone/model_zoo/densenet.py` and `dpn.py` (DenseNet-264, DPN-68, DPN-107);
the seeds' figures: PaddleClas `docs/zh_CN/models/ImageNet1k/DenseNet.md` and `DPN.md`.
"""

from __future__ import annotations

from densepath.errors import UnknownNameError
from densepath.models.spec import (
    DENSENET_PAPER,
    DPN_PAPER,
    DenseNetArch,
    DPNArch,
    ModelSpec,
    SeedFigures,
)

_TYPO = "the seed's 33.37 M is a misprint: its own formula gives 33.34 M"
_GROUPED = (
    "the seed's counter divides a grouped convolution by its groups twice, "
    "so the 3×3 convolutions are all but missing from it"
)

# fmt: off
# name          stem   k   layers of each block    seed: top-1, top-5, GFLOPs, M params, remark
_DENSENET = (
    ("densenet121", 64, 32, (6, 12, 24, 16), SeedFigures(0.757, 0.926,  5.69,  7.98)),
    ("densenet161", 96, 48, (6, 12, 36, 24), SeedFigures(0.786, 0.941, 15.49, 28.68)),
    ("densenet169", 64, 32, (6, 12, 32, 32), SeedFigures(0.768, 0.933,  6.74, 14.15)),
    ("densenet201", 64, 32, (6, 12, 48, 32), SeedFigures(0.776, 0.937,  8.61, 20.01)),
    ("densenet264", 64, 32, (6, 12, 64, 48), SeedFigures(0.780, 0.939, 11.54, 33.37, _TYPO)),
)

# name                  layers  k   B  θ    the paper's row (3 blocks of `layers` each)
_SMALL_DENSENET = (
    ("densenet_40_12",      12, 12, 0, 1.0, "table 2: DenseNet, depth 40, k = 12"),
    ("densenet_100_12",     32, 12, 0, 1.0, "table 2: DenseNet, depth 100, k = 12"),
    ("densenet_100_24",     32, 24, 0, 1.0, "table 2: DenseNet, depth 100, k = 24"),
    ("densenet_bc_22_12",    3, 12, 4, 0.5, "not in the paper: depth 22, for demonstrations"),
    ("densenet_bc_40_12",    6, 12, 4, 0.5, "not in table 2: depth 40 with BC"),
    ("densenet_bc_100_12",  16, 12, 4, 0.5, "table 2: DenseNet-BC, depth 100, k = 12"),
    ("densenet_bc_190_40",  31, 40, 4, 0.5, "table 2: DenseNet-BC, depth 190, k = 40"),
    ("densenet_bc_250_24",  41, 24, 4, 0.5, "table 2: DenseNet-BC, depth 250, k = 24"),
)

# name            stem kernel k_r groups  blocks         increments      f
_DPN: tuple[tuple[str, DPNArch, SeedFigures | None], ...] = (
    ("dpn68",  DPNArch( 10, 3, 128, 32, (3, 4, 12, 3), (16, 32, 32,  64), 1),
     SeedFigures(0.768, 0.934,  4.03, 10.78, _GROUPED)),
    ("dpn92",  DPNArch( 64, 7,  96, 32, (3, 4, 20, 3), (16, 32, 24, 128), 4),
     SeedFigures(0.799, 0.948, 12.54, 36.29, _GROUPED)),
    ("dpn98",  DPNArch( 96, 7, 160, 40, (3, 6, 20, 3), (16, 32, 32, 128), 4),
     SeedFigures(0.806, 0.951, 22.22, 58.46, _GROUPED)),
    ("dpn107", DPNArch(128, 7, 200, 50, (4, 8, 20, 3), (20, 64, 64, 128), 4),
     SeedFigures(0.809, 0.953, 35.06, 82.97, _GROUPED)),
    ("dpn131", DPNArch(128, 7, 160, 40, (4, 8, 28, 3), (16, 32, 32, 128), 4),
     SeedFigures(0.807, 0.951, 30.51, 75.36, _GROUPED)),
    # The same function as dpn68: "b" only stores the last 1×1 convolution in two parts, and
    # timm publishes better weights under this name.
    ("dpn68b", DPNArch( 10, 3, 128, 32, (3, 4, 12, 3), (16, 32, 32,  64), 1), None),
)
# fmt: on


def _rows() -> list[ModelSpec]:
    """All rows: ImageNet DenseNets, DPNs, then the small-image DenseNets."""
    densenets = [
        ModelSpec(name, DenseNetArch(k, blocks, stem), 224, DENSENET_PAPER, seed)
        for name, stem, k, blocks, seed in _DENSENET
    ]
    dpns = [ModelSpec(name, arch, 224, DPN_PAPER, seed) for name, arch, seed in _DPN]
    # Section 4.2: 16 channels before the first block, 2k for DenseNet-BC.
    small = [
        ModelSpec(
            name,
            DenseNetArch(k, (layers,) * 3, 2 * k if b else 16, b, theta, stem="small"),
            32,
            f"{DENSENET_PAPER}, {row}",
        )
        for name, layers, k, b, theta, row in _SMALL_DENSENET
    ]
    return [*densenets, *dpns, *small]


CATALOGUE: dict[str, ModelSpec] = {spec.name: spec for spec in _rows()}


def find_spec(name: str) -> ModelSpec:
    """The catalogue's row of that name; letter case and hyphens do not matter.

    Raises:
        UnknownNameError: no model has that name.
    """
    spec = CATALOGUE.get(name.lower().replace("-", "_")) or CATALOGUE.get(
        name.lower().replace("-", "")
    )
    if spec is None:
        raise UnknownNameError("model", name, CATALOGUE)
    return spec

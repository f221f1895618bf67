"""The networks of PyTorch's libraries, filled by formula, in the files that people share.

Each case is a library's own network under its own class, what of it is saved and how, and what it
answers to the formula's images: logits, or of a network without a classifier of ours its last
features before the ReLU.

Run: benchmarks/peers/install.sh torchfam
     benchmarks/peers/torchfam/.venv/bin/python benchmarks/peers/torchfam/networks.py FOLDER [CASE…]
     (--samples: the small files of tests/parity/torch_files/)
"""

from __future__ import annotations

import re
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "timm"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import operators  # noqa: F401  before torchvision

# isort: split
import fastai.vision.all as fastai
import lightning
import monai.networks.nets as monai_nets
import pretrainedmodels
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
import torchxrayvision as xrv
from formula_logits import formula_images, formula_tensor
from torch import nn
from torch.optim.swa_utils import AveragedModel

SIZE = 224
SAMPLES = Path(__file__).resolve().parents[3] / "tests" / "parity" / "torch_files"
SMALL_SIZE = 64
PACKAGES = {
    "torchxrayvision": "torchxrayvision", "torchvision": "torchvision", "timm": "timm",
    "monai": "monai", "pretrainedmodels": "pretrainedmodels", "fastai": "fastai",
    "smp": "segmentation_models_pytorch", "lightning": "lightning", "torch": "torch",
}  # fmt: skip
# As a network that was trained on some of the findings has them.
THRESHOLDS = [0.05 + 0.03 * number for number in range(14)] + [float("nan")] * 4


@dataclass(frozen=True)
class Case:
    """A network in a file.

    Attributes:
        build: makes the network.
        save: writes it to a path.
        answer: the part of it that answers, or the features.
        ending: of the file's name.
        channels: of its images.
    """

    build: Callable[[], nn.Module]
    save: Callable[[nn.Module, Path], None]
    answer: Callable[[nn.Module], nn.Module] = lambda network: network
    ending: str = ".pth"
    channels: int = 3


def state(network: nn.Module, path: Path) -> None:
    """The state dict."""
    torch.save(network.state_dict(), path)


def whole(network: nn.Module, path: Path) -> None:
    """The whole pickled module."""
    torch.save(network, path)


def whole_legacy(network: nn.Module, path: Path) -> None:
    """The whole pickled module, as torch saved before 1.6."""
    torch.save(network, path, _use_new_zipfile_serialization=False)


def traced(network: nn.Module, path: Path, side: int) -> None:
    """A TorchScript program by tracing."""
    torch.jit.trace(network, torch.zeros(1, 3, side, side)).save(str(path))


def scripted(network: nn.Module, path: Path) -> None:
    """A TorchScript program of the code."""
    torch.jit.script(network).save(str(path))


def program(network: nn.Module, path: Path, side: int) -> None:
    """A program of torch.export."""
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, side, side),)), path)


def compiled(network: nn.Module, path: Path) -> None:
    """The whole module that torch.compile gives."""
    torch.save(torch.compile(network), path)


def parallel(network: nn.Module, path: Path) -> None:
    """A training program's table, of a network in DataParallel."""
    torch.save({"epoch": 3, "state_dict": nn.DataParallel(network).state_dict()}, path)


def wrapped(network: nn.Module, path: Path) -> None:
    """A table with the network whole and its average whole, as Ultralytics' trainer saves it."""
    average = AveragedModel(network)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(1)
    torch.save({"epoch": -1, "model": network, "ema": average, "train_args": {"lr0": 0.01}}, path)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.sub_(1)


def fastai_saved(network: nn.Module, path: Path) -> None:
    """What `learn.save` writes."""
    torch.save({"model": network.state_dict(), "opt": {"state": [], "hypers": []}}, path)


class Classifier(lightning.LightningModule):
    """A network in Lightning's module, with a loss that has a tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.save_hyperparameters({"lr": 0.1, "loss": nn.BCEWithLogitsLoss()})
        self.network = network
        self.criterion = nn.BCEWithLogitsLoss(pos_weight=torch.ones(3))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return self.network(batch[0]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def lightning_checkpoint(network: nn.Module, path: Path) -> None:
    """What Lightning's trainer saves, with its optimiser and hyper-parameters."""
    trainer = lightning.Trainer(
        max_steps=0, logger=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, default_root_dir=path.parent,
    )  # fmt: skip
    data = torch.utils.data.TensorDataset(torch.zeros(2, 3, 64, 64))
    trainer.fit(Classifier(network), torch.utils.data.DataLoader(data, batch_size=2))
    trainer.save_checkpoint(path)
    network.eval()


class Pooled(nn.Module):
    """The user's own program: features of torchvision, a head of another name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.encoder = network.features
        self.fc = network.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.encoder(images)).mean((2, 3)))


def with_head(network: nn.Module, *, before: list[nn.Module], behind: list[nn.Module]) -> nn.Module:
    """The classifier in a Sequential."""
    network.classifier = nn.Sequential(*before, network.classifier, *behind)
    return network


def without_last(network: nn.Module) -> nn.Module:
    """The answers before the last layer, a sigmoid."""
    return nn.Sequential(network.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         network.classifier[0])  # fmt: skip


class XrayLogits(nn.Module):
    """torchxrayvision's logits of the findings that it was trained on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.network.classifier(self.network.features2(images))
        points = self.network.op_threshs
        return logits if points is None else logits[:, ~torch.isnan(points)]


def xray(model: str = "densenet121", *, some: bool = False, **numbers: object) -> nn.Module:
    """torchxrayvision's network as its training saves it, of all findings or of some."""
    points = torch.tensor(THRESHOLDS) if some else None
    numbers = numbers or xrv.models.get_densenet_params(model)
    network = xrv.models.DenseNet(op_threshs=points, **numbers)
    if some:
        network.pathologies = [*network.targets[:14], "", "", "", ""]
    return network


class LastMap(nn.Module):
    """The last map of an encoder that gives several."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.encoder(images)[-1]


def fastai_learner(build: Callable[[], nn.Module]) -> nn.Module:
    """fastai's body and head of a network."""
    network = build()
    body = fastai.create_body(network, cut=-1)
    return nn.Sequential(body, fastai.create_head(network.classifier.in_features, 5))


_TV = torchvision.models.get_model
_DENSENETS = ("densenet121", "densenet161", "densenet169", "densenet201")
_DPNS = ("dpn68", "dpn68b", "dpn92", "dpn98", "dpn107", "dpn131")


def cases() -> dict[str, Case]:
    """Every case, by `library/model form`."""
    made: dict[str, Case] = {}
    for model in _DENSENETS:
        build = partial(_TV, model)
        made[f"torchvision/{model} whole"] = Case(build, whole, ending=".pt")
        made[f"torchxrayvision/{model} whole"] = Case(
            partial(xray, model), whole, XrayLogits, ".pt", 1
        )
        made[f"pretrainedmodels/{model} state"] = Case(
            partial(pretrainedmodels.__dict__[model], pretrained=None), state
        )
        made[f"smp/{model} encoder"] = Case(
            partial(smp.encoders.get_encoder, model, weights=None), state, LastMap
        )
        made[f"timm/{model} whole"] = Case(partial(timm.create_model, model), whole, ending=".pt")
    for model in ("DenseNet121", "DenseNet169", "DenseNet201", "DenseNet264"):
        build = partial(getattr(monai_nets, model), 2, 1, 7)
        made[f"monai/{model} state"] = Case(build, state, channels=1)
    for model in _DPNS:
        made[f"timm/{model} whole"] = Case(partial(timm.create_model, model), whole, ending=".pt")
        made[f"pretrainedmodels/{model} state"] = Case(
            partial(pretrainedmodels.__dict__[model], pretrained=None), state
        )
        made[f"smp/{model} encoder"] = Case(
            partial(smp.encoders.get_encoder, model, weights=None), state, LastMap
        )
    made |= _forms(partial(_TV, "densenet121", num_classes=5), xray, SIZE)
    for model in ("densenet264d", "densenetblur121d", "dpn48b"):
        made[f"timm/{model} refused"] = Case(partial(timm.create_model, model), state)
    volumes = partial(monai_nets.DenseNet121, 3, 1, 7)
    made["monai/DenseNet121 3-D refused"] = Case(volumes, state, channels=1)
    return made


def _forms(
    build: Callable[[], nn.Module], build_xray: Callable[..., nn.Module], side: int
) -> dict[str, Case]:
    """One network in every form of file, and with every kind of head."""
    head = partial(with_head, before=[], behind=[])
    return {
        "torch/densenet121 traced": Case(build, partial(traced, side=side), ending=".pt"),
        "torch/densenet121 scripted": Case(build, scripted, ending=".pt"),
        "torch/densenet121 program": Case(build, partial(program, side=side), ending=".pt2"),
        "torch/densenet121 compiled": Case(build, compiled, ending=".pt"),
        "torch/densenet121 legacy": Case(build, whole_legacy, ending=".pt"),
        "torch/densenet121 parallel": Case(build, parallel),
        "torch/densenet121 wrapped": Case(build, wrapped, ending=".pt"),
        "torch/densenet121 mine": Case(lambda: Pooled(build()), whole, ending=".pt"),
        "torch/densenet121 dropout": Case(
            lambda: head(build(), before=[nn.Dropout(0.2)]), state
        ),
        "torch/densenet121 sigmoid": Case(
            lambda: head(build(), behind=[nn.Sigmoid()]), whole, without_last, ".pt"
        ),
        "torch/densenet121 numbered": Case(
            lambda: nn.Sequential(*build().features.children()), state
        ),
        "lightning/densenet121 checkpoint": Case(build, lightning_checkpoint, ending=".ckpt"),
        "fastai/densenet121 saved": Case(
            lambda: fastai_learner(build), fastai_saved, lambda net: net[0]
        ),
        "torchxrayvision/densenet121 some": Case(
            partial(build_xray, some=True), whole, XrayLogits, ".pt", 1
        ),
        "torchxrayvision/densenet121 legacy": Case(
            partial(build_xray, some=True), whole_legacy, XrayLogits, ".pt", 1
        ),
        "torchxrayvision/densenet121 state": Case(
            partial(build_xray, some=True), state, XrayLogits, ".pt", 1
        ),
    }  # fmt: skip


def samples() -> dict[str, Case]:
    """The forms with a narrow network, and narrow networks of the libraries."""
    numbers = {"growth_rate": 4, "block_config": (2, 1, 1), "num_init_features": 8}
    build = partial(torchvision.models.densenet.DenseNet, num_classes=5, **numbers)
    made = _forms(build, lambda **options: xray(**options, **numbers), SMALL_SIZE)
    made["monai/densenet state"] = Case(
        partial(monai_nets.DenseNet, 2, 1, 7, init_features=8, growth_rate=4,
                block_config=(2, 1, 1)), state, channels=1)  # fmt: skip
    made["monai/densenet 3-D refused"] = Case(
        partial(monai_nets.DenseNet, 3, 1, 7, init_features=8, growth_rate=4, block_config=(1,)),
        state, channels=1)  # fmt: skip
    made["timm/densenet whole"] = Case(
        partial(timm.create_model, "densenet121", num_classes=5, growth_rate=4,
                block_config=(2, 1, 1)), whole, ending=".pt")  # fmt: skip
    made["timm/densenetd refused"] = Case(
        partial(timm.create_model, "densenetblur121d", num_classes=5, growth_rate=4,
                block_config=(1, 1)), state)  # fmt: skip
    return made


def our_name(key: str) -> str:
    """Our name of a library's tensor, by what stands in its own source."""
    name = key.replace(".layers.", ".").replace("features_", "features.")
    name = re.sub(r"\.c1x1_w_s[12]\.", ".c1x1_w.", name)
    name = re.sub(r"^(?:0\.0|encoder)\.(?=conv|norm|dense|trans)", "features.", name)
    name = re.sub(r"^(?:module|network|encoder)\.", "", name)
    return re.sub(r"^(?:class_layers\.out|last_linear|fc|classifier\.[01])\.", "classifier.", name)


_NUMBERS = {
    "0": "conv0", "1": "norm0", "4": "denseblock1", "5": "transition1", "6": "denseblock2",
    "7": "transition2", "8": "denseblock3", "9": "transition3", "10": "denseblock4", "11": "norm5",
}  # fmt: skip


def fill(network: nn.Module, numbered: bool) -> nn.Module:
    """The network with the formula's parameters, in evaluation mode."""
    tensors = network.state_dict()
    names = dict(_NUMBERS)
    if numbered and len(network) < len(names):  # three blocks
        names |= {str(len(network) - 1): "norm5"}
    for key, tensor in tensors.items():
        if key.endswith(("num_batches_tracked", "op_threshs")):
            continue
        name = our_name(key)
        if numbered:
            first, _, rest = key.partition(".")
            name = f"features.{names[first]}.{rest}"
        half = re.match(r"(.*\.c1x1_c)([12])\.weight$", name)
        if half:
            first, second = (tensors[re.sub(r"[12]\.weight$", f"{n}.weight", key)] for n in "12")
            rows, shape = len(first), (len(first) + len(second), *first.shape[1:])
            values = formula_tensor(f"{half[1]}.conv.weight", shape)
            values = values[:rows] if half[2] == "1" else values[rows:]
        elif name == "classifier.weight":
            values = formula_tensor(name, tuple(tensor.shape[:2])).reshape(tuple(tensor.shape))
        else:
            values = formula_tensor(name, tuple(tensor.shape))
        tensor.copy_(torch.from_numpy(values))
    return network.eval()


def write(name: str, case: Case, folder: Path, side: int) -> Path:
    """The case's file, and beside it what it answers."""
    stem = folder / re.sub(r"[ /]", "_", name)
    network = fill(case.build(), "numbered" in name)
    if "refused" not in name:
        answer, arrays = case.answer(network).eval(), {}
        for height, width in ((side, side),):
            images = torch.from_numpy(formula_images(1, height, width, case.channels))
            with torch.inference_mode():
                arrays[f"{height}x{width}"] = answer(images)[0].numpy().astype(np.float32)
        np.savez_compressed(f"{stem}.npz", **arrays)
    path = Path(f"{stem}{case.ending}")
    case.save(network, path)
    print(name, flush=True)
    return path


def without_folders(content: bytes) -> bytes:
    """Bytes of the same length, with letters for this environment's and repository's folders."""
    for folder in (sys.prefix, str(SAMPLES.parents[2])):
        content = content.replace(folder.encode(), b"x" * len(folder))
    return content


def forget_paths(path: Path) -> None:
    """Take out of a sample where the machine that wrote it has its packages.

    TorchScript's debugging tables go; in texts, letters take the place of the folders'.
    """
    if not zipfile.is_zipfile(path):
        path.write_bytes(without_folders(path.read_bytes()))
        return
    with zipfile.ZipFile(path) as old:
        members = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members:
            if not name.endswith(".debug_pkl") and "/sample_inputs/" not in name:
                new.writestr(zipfile.ZipInfo(name), without_folders(content))


def versions() -> dict[str, str]:
    """The libraries' versions by the names that the cases have them under."""
    return {name: version(package) for name, package in PACKAGES.items()}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    if sys.argv[1] == "--samples":
        SAMPLES.mkdir(exist_ok=True)
        for name, case in samples().items():
            forget_paths(write(name, case, SAMPLES, SMALL_SIZE))
    else:
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "versions.txt").write_text(
            "".join(f"{name} {number}\n" for name, number in versions().items())
        )
        chosen = sys.argv[2:]
        for name, case in cases().items():
            if not chosen or any(part in name for part in chosen):
                write(name, case, folder, SIZE)

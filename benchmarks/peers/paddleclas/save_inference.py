"""Saves PaddleClas's networks, filled by formula, as inference models, as `export_model.py` does.

Paddle 3 writes a program as PIR in JSON, or with FLAGS_enable_pir_api=0 as Paddle 2's protobuf; the
flag is read once, so that each form is a run of its own.

Run: cd benchmarks/peers/paddleclas
     for form in json pdmodel; do .venv/bin/python save_inference.py $form FOLDER [MODEL ...]; done

With --samples in place of FOLDER it writes narrow networks of PaddleClas's own layers, and their
logits, as the small files of `tests/parity/files/paddle_inference/`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FORM = sys.argv[1]
os.environ["FLAGS_enable_pir_api"] = str(int(FORM == "json"))  # noqa: SIM112

import numpy as np  # noqa: E402
import paddle  # noqa: E402
from logits import MODELS, build  # noqa: E402
from paddle import nn  # noqa: E402
from paddle.base.proto import framework_pb2  # noqa: E402
from paddleclas.ppcls.arch.backbone.model_zoo import densenet, dpn  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import fill, formula_images  # noqa: E402

from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec  # noqa: E402
from densepath.weights.paddle import TRANSPOSED, key_map  # noqa: E402

SAMPLES = Path(__file__).resolve().parents[3] / "tests" / "parity" / "files" / "paddle_inference"
CLASSES, SIDE = 5, 64
DENSENET = DenseNetArch(growth_rate=4, blocks=(2, 1), stem_width=6, bottleneck=2)
DPN = DPNArch(5, 3, 8, 2, (2, 1), (4, 3), base_factor=1, bn_eps=1e-5)


class NarrowDenseNet(nn.Layer):
    """A DenseNet of other numbers, of PaddleClas's own layers."""

    def __init__(self, arch: DenseNetArch, dropout: float) -> None:
        super().__init__()
        width, growth = arch.stem_width, arch.growth_rate
        self.conv1_func = densenet.ConvBNLayer(3, width, 7, stride=2, pad=3, name="conv1")
        self.pool2d_max = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        self.steps = []
        for stage, layers in enumerate(arch.blocks, start=2):
            name = f"conv{stage}"
            block = densenet.DenseBlock(width, layers, arch.bottleneck, growth, dropout, name)
            self.steps.append(self.add_sublayer(f"db_conv_{stage}", block))
            width += layers * growth
            if stage < len(arch.blocks) + 1:
                down = densenet.TransitionLayer(width, width // 2, f"{name}_blk")
                self.steps.append(self.add_sublayer(f"tr_conv{stage}_blk", down))
                width //= 2
        self.batch_norm = nn.BatchNorm(width, act="relu")
        self.pool2d_avg = nn.AdaptiveAvgPool2D(1)
        self.out = nn.Linear(width, CLASSES)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Images → logits."""
        x = self.pool2d_max(self.conv1_func(images))
        for step in self.steps:
            x = step(x)
        x = self.pool2d_avg(self.batch_norm(x))
        return self.out(paddle.flatten(x, start_axis=1, stop_axis=-1))


class NarrowDPN(nn.Layer):
    """A DPN of other numbers, of PaddleClas's own layers."""

    def __init__(self, arch: DPNArch) -> None:
        super().__init__()
        stem = arch.stem_kernel
        self.conv1_x_1_func = dpn.ConvBNLayer(
            3, arch.stem_width, stem, stride=2, pad=stem // 2, name="conv1"
        )
        self.pool2d_max = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        width, number, self.steps = arch.stem_width, 0, []
        for stage, (blocks, inc) in enumerate(zip(arch.blocks, arch.dense_increment, strict=True)):
            middle, base = arch.k_r * 2**stage, 64 * arch.base_factor * 2**stage
            for block in range(blocks):
                number += 1
                kind = "normal" if block else "down" if stage else "proj"
                layer = dpn.DualPathFactory(
                    width, middle, middle, base, inc, arch.groups, kind, f"dpn{number}"
                )
                self.steps.append(self.add_sublayer(f"dpn{number}", layer))
                width = [base, 3 * inc if not block else width[1] + inc]
        self.conv5_x_x_bn = nn.BatchNorm(sum(width), act="relu")
        self.pool2d_avg = nn.AdaptiveAvgPool2D(1)
        self.out = nn.Linear(sum(width), CLASSES)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Images → logits."""
        x = self.pool2d_max(self.conv1_x_1_func(images))
        for step in self.steps:
            x = step(x)
        x = self.pool2d_avg(self.conv5_x_x_bn(paddle.concat(x, axis=1)))
        return self.out(paddle.flatten(x, start_axis=1, stop_axis=-1))


@dataclass(frozen=True)
class Sample:
    """A small inference model.

    Attributes:
        spec: its numbers.
        make: the network.
        end: what PaddleClas's export puts behind the logits.
        config: the text of its `inference.yml`; empty for none.
        forms: those that it is saved in; Paddle 3.3 cannot trace sigmoid for its old form.
        folded: it is saved once more as Paddle Inference optimises it, BatchNorms folded.
    """

    spec: ModelSpec
    make: Callable[[], nn.Layer]
    end: nn.Layer | None = None
    config: str = ""
    forms: tuple[str, ...] = ("json", "pdmodel")
    folded: bool = False


MULTI_LABEL = """\
PreProcess:
  transform_ops:
  - ResizeImage: {size: [64, 64], interpolation: bicubic, backend: pil}
  - NormalizeImage: {scale: 1.0/255.0, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25], order: ''}
  - ToCHWImage: null
PostProcess:
  main_indicator: MultiLabelThreshOutput
  MultiLabelThreshOutput:
    threshold: 0.4
    class_id_map_file: ../ppcls/utils/labels.txt
"""
ONE_LABEL = """\
Global: {model_name: DPN}
PreProcess:
  transform_ops:
  - ResizeImage: {resize_short: 72}
  - CropImage: {size: 64}
  - NormalizeImage:
      scale: 0.00392157
      mean: [0.485, 0.456, 0.406]
      std: [0.229, 0.224, 0.225]
      order: ''
      channel_num: 3
  - ToCHWImage: null
PostProcess:
  Topk: {topk: 5, label_list: [ant, bee, cat, dog, elk]}
"""
_DENSENET = ModelSpec("narrow densenet", DENSENET, SIDE, "")
_DPN = ModelSpec("narrow dpn", DPN, SIDE, "")
NARROW = {
    "densenet": Sample(_DENSENET, lambda: NarrowDenseNet(DENSENET, 0.0), folded=True),
    "dpn": Sample(_DPN, lambda: NarrowDPN(DPN), nn.Softmax(), ONE_LABEL, folded=True),
    "multi_label": Sample(
        _DENSENET, lambda: NarrowDenseNet(DENSENET, 0.2), nn.Sigmoid(), MULTI_LABEL, ("json",)
    ),
}


def save(network: nn.Layer, side: int, folder: Path) -> None:
    """Write a network as `export_model.py` of PaddleClas does."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = [paddle.static.InputSpec([None, 3, side, side], "float32", "x")]
    program = paddle.jit.to_static(network, input_spec=spec, full_graph=True)
    paddle.jit.save(program, str(folder / "inference"))
    (folder / "inference.pdiparams.info").unlink(missing_ok=True)


def save_samples() -> None:
    """The narrow networks in this form, and, with the first, their logits."""
    arrays = {}
    for name, sample in NARROW.items():
        with paddle.utils.unique_name.guard():
            network = sample.make()
        shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
        values = fill(key_map(sample.spec), shapes, TRANSPOSED)
        missing, unexpected = network.set_state_dict(values)
        assert not missing, missing
        assert not unexpected, unexpected
        network.eval()
        images = paddle.to_tensor(formula_images(2, SIDE, SIDE))
        with paddle.no_grad():
            arrays[name] = network(images).numpy()
        if FORM not in sample.forms:
            continue
        whole = network if sample.end is None else nn.Sequential(network, sample.end)
        whole.eval()
        folder = SAMPLES / name
        save(whole, SIDE, folder)
        if sample.config:
            (folder / "inference.yml").write_text(sample.config)
        if sample.folded and FORM == "pdmodel":
            fold(folder, SAMPLES / f"{name}_folded")
        forget_places(folder)
    np.savez_compressed(SAMPLES / "logits.npz", **arrays)


def fold(folder: Path, target: Path) -> None:
    """Write what Paddle Inference makes of a model on its CPU: BatchNorms folded, layers fused."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    config = paddle.inference.Config(
        str(folder / "inference.pdmodel"), str(folder / "inference.pdiparams")
    )
    config.disable_gpu()
    config.disable_mkldnn()
    config.switch_ir_optim(True)
    config.enable_save_optim_model(True)
    config.set_optim_cache_dir(str(target))
    paddle.inference.create_predictor(config)
    (target / "_optimized.pdmodel").rename(target / "inference.pdmodel")
    (target / "_optimized.pdiparams").rename(target / "inference.pdiparams")
    forget_places(target)


def forget_places(folder: Path) -> None:
    """Take the lines of this machine's sources out of a protobuf program."""
    path = folder / "inference.pdmodel"
    if not path.is_file():
        return
    program = framework_pb2.ProgramDesc()
    program.ParseFromString(path.read_bytes())
    for block in program.blocks:
        for operator in block.ops:
            kept = [one for one in operator.attrs if one.name != "op_callstack"]
            del operator.attrs[:]
            operator.attrs.extend(kept)
    path.write_bytes(program.SerializeToString())


if __name__ == "__main__":
    if sys.argv[2] == "--samples":
        save_samples()
    else:
        for model in sys.argv[3:] or MODELS:
            save(build(model), 224, Path(sys.argv[2]) / FORM / model)
            print(FORM, model, flush=True)

"""MXNet's own networks, filled by formula: Gluon's DenseNets, and the DPN authors' symbols.

The authors' symbols (github.com/cypw/DPNs, `settings/`) are Python 2; here they are written anew
from their facts: the names, the numbers, BatchNorm with MXNet's own ε (1e-3) and `fix_gamma` off,
bias in the last layer only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.gluon.model_zoo.vision import densenet as zoo

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import fill

from densepath.models.catalogue import find_spec
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from densepath.weights import mxnet_names

DENSENETS = tuple(f"densenet{depth}" for depth in (121, 161, 169, 201))
# The numbers of the authors' files; of dpn68b the last 1×1 convolution of a block is two.
DPNS = ("dpn68", "dpn68b", "dpn92", "dpn98", "dpn107", "dpn131")
# Networks of the same structure that are small enough to be committed.
SMALL = {
    "gluon": ModelSpec("gluon", DenseNetArch(4, (2, 2, 2, 2), 8), 224, "a test's"),
    "authors": ModelSpec("authors", DPNArch(6, 3, 8, 4, (2, 2), (2, 3), 1), 224, ""),
}


def normed(data: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    """BatchNorm and ReLU, named as the authors name them."""
    norm = mx.sym.BatchNorm(data, fix_gamma=False, momentum=0.9, name=f"{name}__bn")
    return mx.sym.Activation(norm, act_type="relu", name=f"{name}__relu")


def convolved(
    data: mx.sym.Symbol, name: str, outputs: int, side: int = 1, stride: int = 1, groups: int = 1
) -> mx.sym.Symbol:
    """A convolution without bias, padded by half its side."""
    return mx.sym.Convolution(
        data,
        num_filter=outputs,
        kernel=(side, side),
        stride=(stride, stride),
        pad=(side // 2, side // 2),
        num_group=groups,
        no_bias=True,
        name=f"{name}__conv",
    )


def layer(data: mx.sym.Symbol, name: str, *numbers: int) -> mx.sym.Symbol:
    """BatchNorm, ReLU and a convolution."""
    return convolved(normed(data, f"{name}__bn"), name, *numbers)


def sliced(data: mx.sym.Symbol, begin: int, end: int) -> mx.sym.Symbol:
    """Some of the channels."""
    return mx.sym.slice_axis(data, axis=1, begin=begin, end=end)


def dpn_symbol(spec: ModelSpec, split: bool, classes: int, classifier: str) -> mx.sym.Symbol:
    """The authors' network up to its logits; `split` as in their `symbol_dpn_b.py`."""
    arch = spec.arch
    data = convolved(mx.sym.Variable("data"), "conv1_x_1", arch.stem_width, arch.stem_kernel, 2)
    data = normed(data, "conv1_x_1__relu-sp")
    whole = mx.sym.Pooling(data, pool_type="max", kernel=(3, 3), stride=(2, 2), pad=(1, 1))
    added = dense = None
    for place, (count, increment) in enumerate(zip(arch.blocks, arch.dense_increment, strict=True)):
        base, middle = 64 * arch.base_factor * 2**place, arch.k_r * 2**place
        for number in range(1, count + 1):
            name = f"conv{place + 2}_x__{number}"
            stride = 2 if number == 1 and place else 1
            if number == 1:
                shortcut = f"{name}_c1x1-w(s/{stride})"
                both = layer(whole, shortcut, base + 2 * increment, 1, stride)
                added = sliced(both, 0, base)
                dense = sliced(both, base, base + 2 * increment)
            inner = layer(whole, f"{name}_c1x1-a", middle)
            inner = layer(inner, f"{name}_c3x3-b", middle, 3, stride, arch.groups)
            if split:
                inner = normed(inner, f"{name}_c1x1-c")
                first = convolved(inner, f"{name}_c1x1-c1", base)
                second = convolved(inner, f"{name}_c1x1-c2", increment)
            else:
                inner = layer(inner, f"{name}_c1x1-c", base + increment)
                first = sliced(inner, 0, base)
                second = sliced(inner, base, base + increment)
            added, dense = added + first, mx.sym.concat(dense, second, dim=1)
            whole = mx.sym.concat(added, dense, dim=1)
    whole = normed(whole, "conv5_x_x__relu-sp")
    pooled = mx.sym.Pooling(whole, pool_type="avg", global_pool=True, kernel=(7, 7))
    return mx.sym.FullyConnected(mx.sym.flatten(pooled), num_hidden=classes, name=classifier)


class Authors:
    """A DPN of the authors', filled by formula.

    Args:
        spec: its numbers.
        split: whether it is one of `symbol_dpn_b.py`.
        classes: the logits.
        classifier: `fc6`, or `fc6-1k`.
    """

    def __init__(
        self, spec: ModelSpec, *, split: bool, classes: int = 1000, classifier: str = "fc6"
    ) -> None:
        self.symbol = dpn_symbol(spec, split, classes, classifier)
        arguments, _, auxiliary = self.symbol.infer_shape(data=(1, 3, 224, 224))
        shapes = dict(zip(self.symbol.list_arguments(), arguments, strict=True))
        shapes.pop("data")
        self._auxiliary = self.symbol.list_auxiliary_states()
        shapes.update(zip(self._auxiliary, auxiliary, strict=True))
        names = mxnet_names.authors_key_map(spec, split=split, classifier=classifier)
        self.values = {name: mx.nd.array(value) for name, value in fill(names, shapes).items()}

    def save(self, prefix: str) -> None:
        """Write `PREFIX-symbol.json` and `PREFIX-0000.params`, as the authors did."""
        states = {name: self.values[name] for name in self._auxiliary}
        weights = {name: value for name, value in self.values.items() if name not in states}
        softmax = mx.sym.SoftmaxOutput(self.symbol, name="softmax")
        mx.model.save_checkpoint(prefix, 0, softmax, weights, states)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Images → logits."""
        values = {**self.values, "data": mx.nd.array(images)}
        states = {name: values.pop(name) for name in self._auxiliary}
        bound = self.symbol.bind(mx.cpu(), args=values, aux_states=states, grad_req="null")
        return bound.forward(is_train=False)[0].asnumpy()


class Gluon:
    """A DenseNet of Gluon's model zoo, filled by formula."""

    def __init__(self, spec: ModelSpec, classes: int = 1000) -> None:
        arch = spec.arch
        self.network = zoo.DenseNet(
            arch.stem_width, arch.growth_rate, list(arch.blocks), classes=classes
        )
        self.network.initialize()
        self.network(mx.nd.zeros((1, 3, 224, 224)))
        held = self.network._collect_params_with_prefix()
        shapes = {name: parameter.shape for name, parameter in held.items()}
        for name, value in fill(mxnet_names.places_key_map(spec), shapes).items():
            held[name].set_data(mx.nd.array(value))

    def save(self, prefix: str) -> None:
        """Write the arrays named after their places, their scopes, and scopes with the graph."""
        self.network.save_parameters(f"{prefix}.places.params")
        self.network.collect_params().save(f"{prefix}.scopes.params")
        self.network.hybridize()
        self.network(mx.nd.zeros((1, 3, 224, 224)))
        self.network.export(prefix)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Images of any size → logits; the published input is 224 × 224 for its 7 × 7 average."""
        features = mx.nd.array(images)
        for layer in self.network.features[:-2]:
            features = layer(features)
        pooled = mx.gluon.nn.GlobalAvgPool2D()(features)
        return self.network.output(pooled).asnumpy()


def build(model: str) -> Authors | Gluon:
    """A network of the catalogue's names, with 1,000 classes."""
    if model.startswith("densenet"):
        return Gluon(find_spec(model))
    classifier = "fc6-1k" if model == "dpn68b" else "fc6"
    return Authors(find_spec(model), split=model.endswith("b"), classifier=classifier)


def build_small(kind: str, classes: int = 5) -> Authors | Gluon:
    """A small network of a kind."""
    if kind == "gluon":
        return Gluon(SMALL["gluon"], classes)
    return Authors(SMALL["authors"], split=kind == "authors-b", classes=classes)

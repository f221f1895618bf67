"""A DenseNet or DPN as Caffe has it, filled by formula: `.prototxt` and `.caffemodel`.

Caffe itself is installed nowhere any more, and OpenCV only reads its files: the layers are those of
shicai's DenseNet-Caffe (Convolution, BatchNorm and Scale, ReLU, Concat; pools that round down), the
field numbers those of BVLC's caffe.proto.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from formula_logits import formula_tensor

from densepath.models.plan import Layer, parts, tensor_shapes
from densepath.models.spec import ModelSpec

CHANNELS = 3
# The number of each message of parameters in LayerParameter, and of its fields.
MESSAGES = {
    "convolution_param": 106, "batch_norm_param": 139, "scale_param": 142, "pooling_param": 121,
    "slice_param": 126, "inner_product_param": 117, "input_param": 143,
}  # fmt: skip
FIELDS = {
    "convolution_param": {"num_output": 1, "bias_term": 2, "pad": 3, "kernel_size": 4, "group": 5,
                          "stride": 6},
    "batch_norm_param": {"use_global_stats": 1, "eps": 3},
    "scale_param": {"bias_term": 4},
    "pooling_param": {"pool": 1, "kernel_size": 2, "stride": 3, "pad": 4, "global_pooling": 12,
                      "ceil_mode": 13},
    "slice_param": {"slice_point": 2},
    "inner_product_param": {"num_output": 1},
}  # fmt: skip
POOLS = {"MAX": 0, "AVE": 1}


@dataclass
class CaffeNet:
    """A network under construction: its text, and its bytes."""

    text: list[str] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)
    count: int = 0

    def layer(
        self,
        kind: str,
        bottoms: list[str],
        name: str = "",
        blobs: tuple[np.ndarray, ...] = (),
        tops: tuple[str, ...] = (),
        **parameters: dict[str, object],
    ) -> str:
        """Write one layer; its first top, which is called like it."""
        self.count += 1
        name = name or f"{kind.lower()}{self.count}"
        tops = tops or (name,)
        lines = [f'name: "{name}"', f'type: "{kind}"']
        lines += [f'bottom: "{bottom}"' for bottom in bottoms] + [f'top: "{top}"' for top in tops]
        body = text_field(1, name) + text_field(2, kind)
        body += b"".join(text_field(3, bottom) for bottom in bottoms)
        body += b"".join(text_field(4, top) for top in tops)
        body += b"".join(bytes_field(7, blob_message(blob)) for blob in blobs)
        for message, values in parameters.items():
            inner = " ".join(f"{key}: {word(value)}" for key, value in values.items())
            lines.append(f"{message} {{ {inner} }}")
            numbers = FIELDS[message]
            content = b"".join(number_field(numbers[key], one) for key, one in values.items())
            body += bytes_field(MESSAGES[message], content)
        self.text.append("layer { " + " ".join(lines) + " }")
        self.content += bytes_field(100, body)
        return tops[0]


def save_caffe(spec: ModelSpec, num_classes: int, side: int, stem: Path) -> None:
    """Write the network as `stem.prototxt` and `stem.caffemodel`."""
    net, shapes = CaffeNet(), tensor_shapes(spec, num_classes, CHANNELS)
    values = {name: formula_tensor(name, shape) for name, shape in shapes.items()}
    head = f'name: "{spec.name}"\ninput: "data"\n'
    head += "".join(f"input_dim: {number}\n" for number in (1, CHANNELS, side, side))
    net.content += text_field(1, spec.name) + text_field(3, "data")
    net.content += b"".join(number_field(4, number) for number in (1, CHANNELS, side, side))
    _Builder(net, values, spec.arch.bn_eps, num_classes).build(spec)
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".prototxt").write_text(head + "\n".join(net.text) + "\n")
    stem.with_suffix(".caffemodel").write_bytes(bytes(net.content))


@dataclass
class _Builder:
    """What walks the plan and writes layers."""

    net: CaffeNet
    values: dict[str, np.ndarray]
    eps: float
    num_classes: int

    def build(self, spec: ModelSpec) -> None:
        """All layers, in the order of the plan."""
        state = made = "data"
        for layers in parts(spec):
            found = state
            for layer in layers:
                if layer.kind == "classifier":
                    self._head(layer, state)
                    return
                source = {"images": "data", "state": found, "layer": made}[layer.reads]
                if layer.before:
                    source = self._norm_relu(layer.before, source)
                made = self._convolution(layer, source)
                if layer.behind:
                    made = self._norm_relu(layer.behind, made)
                if layer.pool:
                    made = self._pool(
                        made, {"pool": "MAX", "kernel_size": 3, "stride": 2, "pad": 1}
                    )
                if layer.averaged:
                    made = self._pool(made, {"pool": "AVE", "kernel_size": 2, "stride": 2})
                if layer.writes == "opens":
                    state = made
                elif layer.writes == "appends":
                    state = self.net.layer("Concat", [found, made])
                elif layer.writes == "adds":
                    state = self._add(layer, state, made)

    def _pool(self, source: str, settings: dict[str, object]) -> str:
        """One pool, which rounds down."""
        return self.net.layer("Pooling", [source], pooling_param=settings | {"ceil_mode": False})

    def _add(self, layer: Layer, state: str, made: str) -> str:
        """A DPN block's end: two slices, a sum, and all in one map again."""
        point = {"slice_point": layer.base}
        first = self.net.layer(
            "Slice", [state], tops=(f"{layer.name}/r", f"{layer.name}/d"), slice_param=point
        )
        second = self.net.layer(
            "Slice", [made], tops=(f"{layer.name}/nr", f"{layer.name}/nd"), slice_param=point
        )
        total = self.net.layer("Eltwise", [first, second])
        return self.net.layer("Concat", [total, f"{layer.name}/d", f"{layer.name}/nd"])

    def _convolution(self, layer: Layer, source: str) -> str:
        """One convolution."""
        settings = {"num_output": layer.outputs, "bias_term": False, "pad": layer.kernel // 2}
        settings |= {"kernel_size": layer.kernel, "group": layer.groups, "stride": layer.stride}
        weight = self.values[f"{layer.name}.weight"]
        return self.net.layer(
            "Convolution", [source], layer.name, (weight,), convolution_param=settings
        )

    def _norm_relu(self, name: str, source: str) -> str:
        """BatchNorm with its statistics, Scale with gamma and beta, ReLU; the last two in place."""
        get = self.values
        statistics = (
            get[f"{name}.running_mean"],
            get[f"{name}.running_var"],
            np.ones(1, np.float32),
        )
        top = self.net.layer(
            "BatchNorm",
            [source],
            name,
            statistics,
            batch_norm_param={"use_global_stats": True, "eps": self.eps},
        )
        scales = (get[f"{name}.weight"], get[f"{name}.bias"])
        self.net.layer(
            "Scale", [top], f"{name}/scale", scales, (top,), scale_param={"bias_term": True}
        )
        return self.net.layer("ReLU", [top], f"{name}/relu", (), (top,))

    def _head(self, layer: Layer, state: str) -> None:
        """The last BatchNorm, the mean, and the classifier as a 1 × 1 convolution, as shicai's."""
        source = self._norm_relu(layer.before, state)
        mean = self.net.layer(
            "Pooling", [source], pooling_param={"pool": "AVE", "global_pooling": True}
        )
        weight = self.values["classifier.weight"][:, :, None, None]
        self.net.layer(
            "Convolution",
            [mean],
            "fc6",
            (weight, self.values["classifier.bias"]),
            convolution_param={"num_output": self.num_classes, "kernel_size": 1},
        )


def varint(number: int) -> bytes:
    """A number in groups of 7 bits."""
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def bytes_field(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def text_field(number: int, text: str) -> bytes:
    """A field of text."""
    return bytes_field(number, text.encode())


def number_field(number: int, value: object) -> bytes:
    """A field of a number, a yes or no, or the name of a pool."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(POOLS[value] if isinstance(value, str) else int(value))  # type: ignore[call-overload]


def blob_message(values: np.ndarray) -> bytes:
    """A BlobProto: shape, and packed float32 values."""
    shape = bytes_field(1, b"".join(varint(side) for side in values.shape))
    return bytes_field(7, shape) + bytes_field(5, values.astype("<f4").tobytes())


def word(value: object) -> str:
    """A value in the text form."""
    return str(value).lower() if isinstance(value, bool) else str(value)

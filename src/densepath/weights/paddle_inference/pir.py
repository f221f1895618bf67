"""`.json` files, Paddle 3's programs (PIR), read without Paddle: other names for the same.

Inputs stand in a row, lists and numbers are values of their own (`full`, `combine`); here they
become the named inputs and attributes of Paddle 2's vocabulary.

Source: Paddle 3.3 `paddle/fluid/pir/serialize_deserialize/include/schema.h` for the keys, and
`paddle/phi/ops/yaml/ops.yaml` for the order of inputs. `p` is a parameter, with its name in `A`;
`%` the number of a value, `TT` its type, `AT` an attribute, `0.` and `1.` the dialects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from densepath.errors import WeightsError
from densepath.weights.paddle_inference.pdmodel import MOST_OPERATORS
from densepath.weights.paddle_inference.program import PaddleOperator, PaddleProgram

_ONEDNN = "onednn_op"
_ABSENT = "%0"  # an input that an operator may have, and has not
_MAGIC = b'"pir"'


@dataclass(frozen=True)
class _Form:
    """Paddle 2's form of an operator.

    Attributes:
        kind: its name.
        inputs: the parameter of each input, in their order; `@name` becomes an attribute.
        outputs: the parameter of each result; the first is the only one that is kept.
        renamed: attributes that are called otherwise.
    """

    kind: str
    inputs: tuple[str, ...] = ("X",)
    output: str = "Out"
    renamed: Mapping[str, str] = field(default_factory=dict)


_CONV = ("Input", "Filter")
_NORM = ("X", "Mean", "Variance", "Scale", "Bias")
_MATMUL = {"transpose_x": "trans_x", "transpose_y": "trans_y"}
_FORMS: dict[str, _Form] = {
    "conv2d": _Form("conv2d", _CONV, "Output"),
    "depthwise_conv2d": _Form("depthwise_conv2d", _CONV, "Output"),
    "fused_conv2d_add_act": _Form(
        "fused_conv2d_add_act", (*_CONV, "Bias", "ResidualData"), "Output"
    ),
    "batch_norm": _Form("batch_norm", _NORM, "Y"),
    "sync_batch_norm": _Form("batch_norm", _NORM, "Y"),
    "relu": _Form("relu"),
    "pool2d": _Form("pool2d", ("X", "@ksize")),
    "concat": _Form("concat", ("X", "@axis")),
    "split": _Form("split", ("X", "@sections", "@axis")),
    "split_with_num": _Form("split", ("X", "@axis")),
    "slice": _Form("slice", ("Input", "@starts", "@ends")),
    "add": _Form("elementwise_add", ("X", "Y")),
    "multiply": _Form("elementwise_mul", ("X", "Y")),
    "flatten": _Form("flatten_contiguous_range"),
    "reshape": _Form("reshape2", ("X", "@shape")),
    "squeeze": _Form("squeeze2", ("X", "@axes")),
    "matmul": _Form("matmul_v2", ("X", "Y"), renamed=_MATMUL),
    "fc": _Form("fc", ("Input", "W", "Bias")),
    "softmax": _Form("softmax"),
    "sigmoid": _Form("sigmoid"),
    "scale": _Form("scale", ("X", "@scale")),
    "dropout": _Form(
        "dropout",
        ("X", "Seed", "@dropout_prob"),
        renamed={"p": "dropout_prob", "mode": "dropout_implementation"},
    ),
    "assign": _Form("assign"),
    "share_data": _Form("assign"),
    "cast": _Form("cast"),
}
_CONSTANTS = {"full": "value", "full_int_array": "value"}
_FEEDS, _FETCHES = ("data", "feed"), ("fetch", "shadow_output", "shadow_feed")


def is_pir(start: bytes) -> bool:
    """Whether a file begins as a PIR program in JSON does."""
    return start.lstrip()[:1] == b"{" and b'"base_code"' in start and _MAGIC in start


def read_program(content: bytes) -> PaddleProgram:
    """The program of a `.json` file.

    Raises:
        WeightsError: it is damaged, or no such program.
    """
    try:
        operators = _operators_of(json.loads(content))
        return _Reader().read(operators)
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        RecursionError,
        AttributeError,
        OverflowError,  # the number of a value is Infinity
    ) as error:
        raise WeightsError(f"its program is damaged ({error!r:.120})") from error


def _operators_of(document: Any) -> list[dict[str, Any]]:
    """The operators of the one block of a program.

    Raises:
        WeightsError: there are several.
    """
    regions = document["program"]["regions"]
    blocks = [block for region in regions for block in region["blocks"]]
    if len(blocks) != 1:
        raise WeightsError(f"it has {len(blocks)} blocks; a network here is one, without branches")
    operators: list[dict[str, Any]] = blocks[0]["ops"]
    if len(operators) > MOST_OPERATORS:
        raise WeightsError(f"it has more than {MOST_OPERATORS:,} operators")
    return operators


def _name(number: Any) -> str:
    """The name of a value, which PIR numbers."""
    return f"%{int(number)}"


class _Reader:
    """What is known on the way along the operators."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}  # of parameters, by their value
        self.parameters: dict[str, tuple[int, ...]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.constants: dict[str, Any] = {}
        self.lists: dict[str, list[str]] = {}
        self.parts: dict[str, list[str]] = {}  # what a list of results is taken apart into
        self.feeds: list[str] = []
        self.fetches: list[str] = []

    def read(self, operators: Sequence[Mapping[str, Any]]) -> PaddleProgram:
        """The program of these operators."""
        for operator in operators:  # a list of results is named before it is taken apart
            if operator["#"] in ("0.split", "builtin.split"):
                results = [_name(one["%"]) for one in operator["O"]]
                self.parts[_name(operator["I"][0]["%"])] = results
        kept = [one for operator in operators if (one := self._operator(operator)) is not None]
        return PaddleProgram(kept, self.parameters, self.shapes, self.feeds, self.fetches)

    def _operator(self, operator: Mapping[str, Any]) -> PaddleOperator | None:
        """An operator of Paddle 2's vocabulary; None where it is kept in another way."""
        dialect, _, word = str(operator["#"]).rpartition(".")
        if dialect == _ONEDNN:
            raise WeightsError(
                f"Paddle Inference has optimised it for one kind of processor ({operator['#']}); "
                "name the model that export_model.py wrote"
            )
        outputs = operator["O"] if isinstance(operator["O"], list) else [operator["O"]]
        for result in outputs:
            self._remember(result)
        if operator["#"] == "p" or word == "parameter":
            self._parameter(operator, outputs[0])
            return None
        inputs = [_name(one["%"]) for one in operator["I"]]
        results = [_name(one["%"]) for one in outputs]
        if dialect in ("0", "builtin"):
            return self._builtin(word, inputs, results)
        attributes = {one["N"]: _plain(one["AT"]) for one in operator["A"]}
        word = word.removesuffix("_")  # in place
        if word in _FEEDS:
            self.feeds += results
        elif word in _FETCHES:
            self.fetches += [self._value(one) for one in inputs]
        elif word in _CONSTANTS:
            self.constants[results[0]] = attributes[_CONSTANTS[word]]
        else:
            return self._named(word, inputs, results, attributes)
        return None

    def _builtin(self, word: str, inputs: list[str], results: list[str]) -> PaddleOperator | None:
        """What PIR itself adds: lists of values, made and taken apart, and results."""
        if word == "combine":
            self.lists[results[0]] = [self._value(one) for one in inputs]
        elif word == "shadow_output":
            self.fetches += [self._value(one) for one in inputs]
        elif word not in ("split", "constant"):
            return PaddleOperator(word, {"X": inputs}, {"Out": results})
        return None

    def _named(
        self, word: str, inputs: list[str], results: list[str], attributes: dict[str, Any]
    ) -> PaddleOperator:
        """An operator with named inputs; one that is unknown keeps its word."""
        form = _FORMS.get(word)
        if form is None:
            given = [self._value(one) for one in inputs]
            return PaddleOperator(word, {"X": given}, {"Out": results}, attributes)
        named: dict[str, list[str]] = {}
        values = {form.renamed.get(name, name): value for name, value in attributes.items()}
        for parameter, value in zip(form.inputs, inputs, strict=False):
            if value == _ABSENT:
                continue
            if parameter.startswith("@"):
                values[parameter[1:]] = self.constants.get(value)
            else:
                named[parameter] = self.lists.get(value) or [self._value(value)]
        outputs = self.parts.get(results[0], results[:1])
        return PaddleOperator(form.kind, named, {form.output: outputs}, values)

    def _value(self, value: str) -> str:
        """The name of a value, of a parameter its own."""
        return self.names.get(value, value)

    def _parameter(self, operator: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Note a parameter, whose name is the last of `A`."""
        name, value = str(operator["A"][-1]), _name(result["%"])
        self.names[value] = name
        self.parameters[name] = self.shapes[name] = self.shapes.get(value, ())

    def _remember(self, result: Mapping[str, Any]) -> None:
        """Note the shape of a value; a list of values has none."""
        description = result["TT"].get("D") if isinstance(result.get("TT"), dict) else None
        if isinstance(description, list) and len(description) > 1:
            sides = description[1]
            if isinstance(sides, list) and all(isinstance(side, int) for side in sides):
                self.shapes[_name(result["%"])] = tuple(sides)


def _plain(attribute: Mapping[str, Any]) -> Any:
    """An attribute's value: a number, a text, or a list of them."""
    value = attribute.get("D")
    if isinstance(value, list):
        return [_plain(one) if isinstance(one, dict) else one for one in value]
    return value

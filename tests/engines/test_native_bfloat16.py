"""Our kernels in bfloat16 give what PyTorch gives in double, of operands that it has rounded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from densepath.engines import native
from densepath.engines.native import NativeEngine
from densepath.errors import EngineError, UnknownNameError, UsageError
from densepath.exporting.rewrite import rewrite
from densepath.images.preprocess import Preprocess
from densepath.models.spec import DenseNetArch, DPNArch
from fixtures.on_kernels import SPECS, network, open_engine, tensors_of

# Maps from this side on, and up to so many channels: their 3×3 convolutions stay float32.
WINOGRAD_SIDE, WINOGRAD_CHANNELS = 24, 256
# Odd numbers of inputs, which have no pair; more columns than are laid out at a time, odd and even.
ODD = {
    "dense, odd widths": DenseNetArch(7, (3, 2), 25, bottleneck=3, stem="small"),
    "dense, plain odd layers": DenseNetArch(
        5, (2, 2), 33, bottleneck=0, compression=1, stem="small"
    ),
    "dense, 700 inputs": DenseNetArch(149, (1, 1), 701, bottleneck=2, stem="small"),
    "dual, odd steps": DPNArch(12, 3, 36, 4, (2, 1), (7, 9), 1, stem="small"),
    "dual, 5 channels a group": DPNArch(12, 3, 35, 7, (2, 1), (8, 8), 1, stem="small"),
    "dual, 13 channels a group": DPNArch(12, 3, 26, 2, (1, 1), (8, 8), 1, stem="small"),
    "dual, 4 channels a group": DPNArch(12, 3, 40, 10, (1, 1, 1), (8, 8, 8), 1, stem="small"),
}


def rounded(tensor):
    return tensor.float().to(torch.bfloat16).to(tensor.dtype)


def is_rounded(conv, image):
    """Of a convolution and its input: whether the kernels compute it in bfloat16."""
    if conv.in_channels == 3:
        return False  # the stem
    if conv.kernel_size == (1, 1):
        return True
    winograd = min(image.shape[2:]) >= WINOGRAD_SIDE and conv.in_channels <= WINOGRAD_CHANNELS
    return conv.groups > 1 or native.has_amx() or not winograd


def reference(model, images):
    """The logits in double, with both operands of every bfloat16 product rounded to it.

    In the rewritten form, as in the kernels, a BatchNorm behind a convolution is in its weights,
    and a transition averages first.
    """
    rewritten = rewrite(model.double())

    def round_operands(conv, inputs):
        if not is_rounded(conv, inputs[0]):
            return None
        if not hasattr(conv, "whole"):
            conv.whole = conv.weight.data
            conv.weight.data = rounded(conv.whole)
        return (rounded(inputs[0]),)

    for module in rewritten.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(round_operands)
    with torch.inference_mode():
        return rewritten(torch.from_numpy(images).double()).numpy()


@pytest.mark.parametrize("size", [(40, 40), (97, 110)], ids=str)
@pytest.mark.parametrize("arch", (SPECS | ODD).values(), ids=SPECS | ODD)
def test_every_kind_of_network_gives_the_logits_of_rounded_operands(arch, size):
    images = batch(3, size)
    with torch.inference_mode():
        whole = network(arch)(torch.from_numpy(images)).numpy()
    wanted = reference(network(arch), images)
    engine = open_engine(network(arch), size=size, threads=2, precision="bfloat16")
    found = engine.run_tensor(images)
    assert engine.info.precision == "bfloat16"
    # A sum in float32 may round a feature to the other neighbour: a few do.
    largest, rounding = np.abs(whole).max(), np.median(np.abs(whole - wanted))
    assert rounding > 1e-4 * largest
    assert np.median(np.abs(found - wanted)) < 0.1 * rounding
    np.testing.assert_allclose(found, wanted, atol=5e-4 * largest)


def batch(count, size=(64, 64), seed=2):
    random = np.random.default_rng(seed)
    return random.standard_normal((count, 3, *size)).astype(np.float32)


def test_any_number_of_threads_gives_the_same_bits():
    model = network(SPECS["dense, ImageNet stem"])
    answers = [
        open_engine(model, threads=threads, precision="bfloat16").run_tensor(batch(3, (80, 80)))
        for threads in (1, 2, 3, 7)
    ]
    assert all(np.array_equal(answers[0], other) for other in answers[1:])


def test_a_value_that_is_not_a_number_stays_one_and_spoils_no_other_image():
    engine = open_engine(network(ODD["dense, odd widths"]), precision="bfloat16")
    images = batch(3)
    wanted = engine.run_tensor(images)
    images[1, 1, 30, 30] = np.nan
    found = engine.run_tensor(images)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], wanted[[0, 2]])


def test_float32_is_not_touched_by_a_network_in_bfloat16_beside_it():
    model = network(SPECS["dense, wide"])
    alone = open_engine(model).run_tensor(batch(2))
    other = open_engine(model, precision="bfloat16").run_tensor(batch(2))
    assert np.array_equal(open_engine(model).run_tensor(batch(2)), alone)
    assert not np.array_equal(other, alone)


def test_the_library_has_the_instructions_that_the_processor_has():
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert native.has_bfloat16() == ("avx512_bf16" in flags)
    assert native.bfloat16_is_right()


def test_a_processor_whose_product_is_wrong_is_refused_with_the_cure(monkeypatch):
    class Wrong:
        """The library on a processor that fails its check."""

        def __init__(self, library):
            self.library = library

        def __getattr__(self, name):
            return getattr(self.library, name)

        def densepath_open(self, *values):
            return None if values[-1] else self.library.densepath_open(*values)

        def densepath_bfloat16_is_right(self):
            return 0

    wrong = Wrong(native.load_library())
    monkeypatch.setattr(native, "load_library", lambda: wrong)
    model = network(SPECS["dense, small stem"])
    with pytest.raises(EngineError, match=r"instructions do not give.*--precision float32"):
        open_engine(model, precision="bfloat16")
    assert np.isfinite(open_engine(model).run_tensor(batch(1))).all()


def test_int8_tensors_in_bfloat16_are_refused():
    model = network(SPECS["dense, small stem"])
    tensors = tensors_of(model)
    tensors["classifier.weight"] = tensors["classifier.weight"].astype(np.int8)
    with pytest.raises(UsageError, match="quantised to int8; leave the precision out"):
        NativeEngine(
            model.spec,
            tensors,
            Preprocess((64, 64)),
            num_classes=21,
            in_channels=3,
            precision="bfloat16",
        )
    with pytest.raises(EngineError, match="classifier is quantised: its network has no bfloat16"):
        native._Network(
            native.load_library(),
            model.spec,
            tensors,
            in_channels=3,
            size=(64, 64),
            precision="bfloat16",
        )


def test_another_precision_is_refused_with_the_choices():
    with pytest.raises(UnknownNameError, match="unknown precision 'bfloat'"):
        open_engine(network(SPECS["dense, small stem"]), precision="bfloat")

"""Quantisation-aware training: its arithmetic, where it rounds, and what a run leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode

from densepath import Checkpoint, train
from densepath.errors import RecipeError
from densepath.models.build import build_model
from densepath.training.ema import Ema
from densepath.training.recipe_file import make_recipe
from densepath.training.recipe_sections import QuantizationSection
from densepath.training.resolve import resolve
from densepath.training.run_folder import read_run_recipe
from densepath.training.state import Position, StateParts, read_state, write_state
from densepath.training.steps.fake_quantised import FakeQuantised
from densepath.training.steps.qat_points import find_points
from densepath.training.steps.qat_ranges import Ranges, fake_quantize, fake_quantize_weight
from densepath.training.steps.quantised import QuantisedStep, Teacher, batch_norms
from densepath.weights.subject import open_checkpoint

NETWORKS = {
    "densenet_bc_22_12": 32,
    "densenet_40_12": 32,
    "densenet121": 64,
    "dpn68": 64,
}


def make(name="densenet_bc_22_12", **section):
    """A network with some statistics, and the wrapper; both in training mode, BatchNorm frozen."""
    torch.manual_seed(0)
    network = build_model(name, num_classes=5)
    images = torch.randn(4, 3, NETWORKS[name], NETWORKS[name])
    network(images)
    quantised = FakeQuantised(network, QuantizationSection(target="int8", **section))
    quantised.calibrate(images)
    quantised.train()
    for norm in batch_norms(network):
        norm.eval()
    return network, quantised, images


def make_step(network, **section) -> QuantisedStep:
    return QuantisedStep(
        network,
        QuantizationSection(target="int8", **section),
        multi_label=False,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 63)])
def test_weights_are_rounded_as_numpy_rounds_them(bits, largest):
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    array = weight.numpy()
    scale = np.abs(array).reshape(6, -1).max(1)[:, None, None, None] / np.float32(largest)
    # np.rint and torch both round halves to even.
    expected = np.rint(array / scale) * scale
    assert fake_quantize_weight(weight, bits).numpy() == pytest.approx(expected, abs=1e-6)


def test_activations_are_rounded_as_numpy_rounds_them():
    ranges = Ranges([0])
    ranges.update([torch.tensor([-0.5, 2.0])])
    (scale,), (zero_point,) = ranges.grids()
    assert scale.item() == pytest.approx(2.5 / 255)
    assert zero_point.item() == 51
    x = torch.linspace(-1, 3, 1001)
    integers = np.clip(np.rint(x.numpy() / scale.item()) + 51, 0, 255)
    expected = (integers - 51) * scale.item()
    assert fake_quantize(x, scale, zero_point).numpy() == pytest.approx(expected, abs=1e-6)


def test_the_gradient_passes_within_the_range_and_ends_outside():
    ranges = Ranges([0])
    ranges.update([torch.tensor([0.0, 1.0])])
    (scale,), (zero_point,) = ranges.grids()
    x = torch.tensor([-0.5, 0.1, 0.777, 1.5], requires_grad=True)
    fake_quantize(x, scale, zero_point).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]
    weight = torch.randn(2, 3, 1, 1, requires_grad=True)
    fake_quantize_weight(weight, 8).sum().backward()
    assert weight.grad.eq(1).all()


def test_a_channel_of_zeros_stays_zero():
    assert fake_quantize_weight(torch.zeros(2, 3, 1, 1), 8).eq(0).all()


def test_ranges_are_the_mean_of_batches():
    ranges = Ranges([0])
    for high in (1.0, 2.0, 6.0):
        ranges.update([torch.tensor([-high, high])])
    assert ranges.highs.tolist() == pytest.approx([3.0])
    assert ranges.lows.tolist() == pytest.approx([-3.0])


def test_tensors_of_one_grid_are_covered_together_and_zero_is_always_on_it():
    ranges = Ranges([0, 1, 0])
    ranges.update([torch.tensor(r) for r in ([1.0, 2.0], [-8.0, -4.0], [-1.0, 1.0])])
    scales, zero_points = ranges.grids()
    assert scales.tolist() == pytest.approx([3 / 255, 8 / 255])
    assert zero_points.tolist() == [85, 255]


def test_a_percentile_leaves_out_what_is_rare():
    values = torch.linspace(0, 1, 40_000).reshape(1, 4, 100, 100).clone()
    values[0, 0, 0, 0] = 1000.0
    low, high = Ranges([0], percentile=99.0).measure(values).tolist()
    assert (low, high) == pytest.approx((0.01, 0.99), abs=0.002)
    assert Ranges([0]).measure(values)[1] == 1000.0


def test_a_percentile_of_a_large_tensor_sees_every_channel():
    values = torch.zeros(4, 64, 64, 64).to(memory_format=torch.channels_last)
    values[:, 5] = 1.0
    assert Ranges([0], percentile=99.0).measure(values)[1] == 1.0


def test_folding_a_batch_norm_and_rounding_a_weight_commute():
    """So the weights may be rounded before the BatchNorm that deployment folds into them."""
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(4, 6, 3, bias=False), torch.nn.BatchNorm2d(6).eval()
    torch.nn.init.normal_(norm.weight)
    norm.running_var.uniform_(0.1, 4)
    folded_then_rounded = fake_quantize_weight(fuse_conv_bn_eval(conv.eval(), norm).weight, 8)
    conv.weight.data = fake_quantize_weight(conv.weight.data, 8)
    rounded_then_folded = fuse_conv_bn_eval(conv, norm).weight
    assert torch.allclose(folded_then_rounded, rounded_then_folded, atol=1e-6)


class DistinctValues(TorchDispatchMode):
    """Counts the distinct values of what each convolution and matrix product takes."""

    def __init__(self):
        super().__init__()
        self.inputs, self.weights = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.inputs.append(args[0].unique().numel())
            self.weights.append(max(row.unique().numel() for row in args[1]))
        elif func is torch.ops.aten.addmm.default:
            self.inputs.append(args[1].unique().numel())
            self.weights.append(max(row.unique().numel() for row in args[2].t()))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_convolution_and_the_classifier_take_at_most_256_values(name):
    network, quantised, images = make(name)
    with torch.no_grad(), DistinctValues() as seen:
        quantised.eval()(images)
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    assert len(seen.inputs) == sum(isinstance(m, kinds) for m in network.modules())
    assert max(seen.inputs) <= 256
    assert max(seen.weights) <= 255


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rounded_network_is_near_the_float_one_and_leaves_it_as_it_was(name):
    network, quantised, images = make(name)
    quantised.eval()
    before = network(images)
    rounded = quantised(images)
    assert torch.equal(network(images), before)
    assert not torch.equal(rounded, before)
    error = (rounded - before).square().mean().sqrt() / before.std()
    assert error < 0.25


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient_near_that_of_the_float_network(name):
    network, quantised, images = make(name)
    quantised(images).square().sum().backward()
    rounded = {key: p.grad.clone() for key, p in network.named_parameters()}
    network.zero_grad()
    network(images).square().sum().backward()
    mine = torch.cat([rounded[key].flatten() for key, _ in network.named_parameters()])
    exact = torch.cat([p.grad.flatten() for p in network.parameters()])
    assert torch.cosine_similarity(mine, exact, dim=0) > 0.8


def test_what_a_block_concatenates_is_on_one_grid():
    for name, blocks in (("densenet_bc_22_12", 3), ("dpn68", 4)):
        grids = [point.grid for point in find_points(build_model(name, num_classes=2))]
        shared = {grid for grid in grids if grids.count(grid) > 1}
        assert len(shared) == blocks


def test_ranges_follow_only_while_the_network_trains_and_observes():
    _, quantised, images = make()
    seen = quantised.ranges.num_batches.item()
    quantised(images)
    assert quantised.ranges.num_batches == seen + 1
    quantised.observing = False
    quantised(images)
    quantised.observing = True
    quantised.eval()(images)
    assert quantised.ranges.num_batches == seen + 1


def test_the_average_is_rounded_with_the_same_ranges():
    network, quantised, images = make()
    ema = Ema(network, 0.9)
    average = quantised.of(ema.model)
    assert average.ranges is quantised.ranges
    assert torch.equal(average.eval()(images), quantised.eval()(images))


def test_the_teacher_gives_scores_and_a_share_of_the_labels():
    network, _, images = make()
    labels = torch.tensor([0, 1, 2, 4])
    scores = network.eval()(images).softmax(1)
    for share in (0.25, 1.0):
        targets = Teacher(network, share, multi_label=False).targets(images, labels)
        expected = share * scores + (1 - share) * torch.eye(5)[labels]
        assert torch.allclose(targets, expected, atol=1e-6)
    several = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0]]).expand(4, 5)
    targets = Teacher(network, 1.0, multi_label=True).targets(images, several)
    assert torch.allclose(targets, network(images).sigmoid(), atol=1e-6)


def test_the_layout_of_memory_is_kept():
    network, quantised, images = make()
    network.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    with torch.no_grad():
        quantised.eval()
        last, first = quantised(images), quantised(images.contiguous())
    assert torch.allclose(last, first, atol=0.2)
    quantised(images).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad.stride() == parameter.stride(), key


def test_bfloat16_autocast_computes():
    _, quantised, images = make()
    with torch.autocast("cpu", torch.bfloat16):
        logits = quantised(images)
    logits.float().square().sum().backward()
    assert torch.isfinite(logits).all()


def test_ranges_and_teacher_are_part_of_the_state(tmp_path):
    network, _, images = make()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    step = make_step(network)
    step.calibrate(images)
    parts = StateParts(network, optimizer, step=step.state)
    write_state(tmp_path / "state", Position(), parts)
    fresh = make_step(build_model("densenet_bc_22_12", num_classes=5))
    read_state(tmp_path / "state", StateParts(network, optimizer, step=fresh.state))
    for name, tensor in network.state_dict().items():
        assert torch.equal(fresh.teacher.network.state_dict()[name], tensor), name
    assert torch.equal(fresh.module.ranges.highs, step.module.ranges.highs)
    assert torch.equal(fresh.module.ranges.num_batches, step.module.ranges.num_batches)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"quantization": {"target": "int8"}}, "--qat SUBJECT"),
        ({"quantization": {"target": "int4"}}, "'none' or 'int8'"),
        ({"quantization": {"observe": 0.1}}, "quantization.observe is 0.1"),
        ({"quantization": {"weight_bits": 4}}, "7 or 8"),
        ({"quantization": {"bits": 8}}, "weight_bits"),
    ],
)
def test_a_wrong_section_says_what_is_right(settings, part):
    with pytest.raises(RecipeError) as caught:
        make_recipe(settings)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("section", "field", "part"),
    [
        ("compute", {"compile": True}, "compute.compile=false"),
        ("distributed", {"sync_bn": True}, "norm_statistics=moving"),
        ("quantization", {"target": "int8", "percentile": 99.0}, "belongs to percentile"),
    ],
)
def test_options_that_would_be_ignored_are_refused(section, field, part):
    values = {"model": {"weights": "x"}, "quantization": {"target": "int8"}}
    with pytest.raises(RecipeError) as caught:
        make_recipe(values, {section: field})
    assert part in str(caught.value)


def test_photographs_are_cropped_mildly_unless_the_recipe_says_how():
    checkpoint = Checkpoint.of(
        build_model("densenet121", num_classes=2),
        preprocess=open_checkpoint("cifar10/densenet_bc_22_12").preprocess.at_size((224, 224)),
        labels=["a", "b"],
    )
    values = {"model": {"weights": "x"}, "quantization": {"target": "int8"}}
    assert resolve(make_recipe(values), checkpoint).augment.scale == (0.5, 1.0)
    given = make_recipe(values, {"augment": {"scale": [0.2, 1.0]}})
    assert resolve(given, checkpoint).augment.scale == (0.2, 1.0)


SMALL = {"data.batch_size": 256, "augment.padding": 1}


def test_a_run_is_that_of_a_plain_training_and_says_what_it_is(digits_run, tmp_path):
    result = train(
        qat=digits_run,
        data="digits",
        epochs=1,
        output=tmp_path / "qat",
        settings=SMALL | {"ema.decay": 0.5},
        device="cpu",
        progress="none",
    )
    assert result.finished
    before, after = open_checkpoint(digits_run), open_checkpoint(tmp_path / "qat")
    assert {n: t.shape for n, t in after.tensors.items()} == {
        n: t.shape for n, t in before.tensors.items()
    }
    assert (after.labels, after.preprocess) == (before.labels, before.preprocess)
    for name, tensor in after.tensors.items():
        frozen = "running_" in name
        assert torch.equal(tensor, before.tensors[name]) == frozen, name
    said = after.provenance["quantization"]
    assert (said["aware_of"], said["weight_bits"]) == ("int8", 8)
    assert after.provenance["start"] == str(digits_run)
    readme = (tmp_path / "qat" / "README.md").read_text()
    assert "Quantisation-aware, for INT8" in readme
    assert "float_top1" in (tmp_path / "qat" / "metrics.csv").read_text().splitlines()[0]
    assert read_run_recipe(tmp_path / "qat").quantization.target == "int8"
    assert "quantization" not in before.provenance


# 6 steps an epoch; a state every 2, and ranges that follow for a part of the training.
TRAINING = """
import os, signal, sys
from densepath import train
from densepath.training import loop

subject, folder, die_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
step = loop.take_step

def step_and_die(training, batch, share):
    step(training, batch, share)
    if training.position.epoch * 6 + training.position.step + 1 == die_at:
        os.kill(os.getpid(), signal.SIGKILL)

loop.take_step = step_and_die
train(
    qat=subject, data="digits", epochs=2, output=folder, resume=True, device="cpu",
    progress="none",
    settings={
        "data.batch_size": 256, "augment.padding": 1, "ema.decay": 0.9, "model.drop_rate": 0.1,
        "checkpoint.every_steps": 2, "quantization.observe": 0.7,
        "quantization.norm_statistics": "moving",
    },
)
"""


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_bits(digits_run, tmp_path):
    def train_until(folder, die_at=0):
        command = [sys.executable, "-c", TRAINING, str(digits_run), str(folder), str(die_at)]
        return subprocess.run(command, check=False, timeout=300).returncode

    assert train_until(tmp_path / "straight") == 0
    assert train_until(tmp_path / "killed", 4) == -signal.SIGKILL
    assert train_until(tmp_path / "killed") == 0
    for name in ("last.safetensors", "best.safetensors"):
        straight, killed = (tmp_path / run / name for run in ("straight", "killed"))
        assert straight.read_bytes() == killed.read_bytes(), name


def test_the_state_of_a_plain_training_has_no_ranges_and_no_start_scores(digits_run):
    from safetensors import safe_open

    with safe_open(str(digits_run / "state/state.safetensors"), framework="pt") as file:
        assert not [name for name in file.keys() if name.startswith("quantised.")]  # noqa: SIM118
        assert json.loads(file.metadata()["densepath_state"])["position"]["start"] == {}


def test_a_range_that_begins_or_ends_at_zero_keeps_all_of_its_numbers():
    """0 is then the first or the last of the 256, and no number lies on its other side."""
    ranges = Ranges([0, 1, 2])
    ranges.update([torch.tensor(r) for r in ([0.0, 5.1], [-5.1, 0.0], [0.5, 2.55])])
    scales, zero_points = ranges.grids()
    assert zero_points.tolist() == [0, 255, 0]
    assert scales.tolist() == pytest.approx([5.1 / 255, 5.1 / 255, 2.55 / 255])

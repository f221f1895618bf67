"""training/steps/: what every step does, and that a new one needs no line of the loop."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from densepath import Checkpoint, train
from densepath.models.build import build_model
from densepath.training import assemble
from densepath.training.epochs import EpochRow
from densepath.training.recipe_sections import QuantizationSection
from densepath.training.state import Position, StartScores
from densepath.training.steps.plain import PlainStep
from densepath.training.steps.quantised import QuantisedStep

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 4])
ROW = EpochRow(
    epoch=1,
    lr=0.1,
    train_loss=1.0,
    train_accuracy=0.5,
    loss=1.0,
    top1=0.5,
    top5=1.0,
    train_skipped=0,
    count=4,
    skipped=0,
    seconds=1.0,
    float_top1=0.75,
)


def plain(network):
    return PlainStep(network)


def quantised(network, **section):
    section = QuantizationSection(target="int8", calibration_batches=1, **section)
    return QuantisedStep(network, section, multi_label=False, device=torch.device("cpu"))


def quantised_without_teacher(network):
    return quantised(network, teacher=0.0, norm_statistics="moving")


STEPS = [plain, quantised, quantised_without_teacher]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_model("densenet_bc_22_12", num_classes=5)


@pytest.mark.parametrize("make", STEPS)
def test_a_step_computes_and_learns_with_the_network_s_own_parameters(make, network):
    step = make(network)
    if step.batches_to_calibrate:
        step.calibrate(IMAGES)
    assert not step.batches_to_calibrate
    step.begin(0.0)
    step.module.train()
    for module in step.frozen:
        module.eval()
    logits = step.module(IMAGES)
    assert logits.shape == (4, 5)
    assert {id(p) for p in step.module.parameters()} == {id(p) for p in network.parameters()}
    logits.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("make", STEPS)
def test_targets_stay_distributions_over_the_classes(make, network):
    targets = make(network).targets(IMAGES, LABELS)
    if targets.is_floating_point():
        assert targets.shape == (4, 5)
        assert targets.sum(1).tolist() == pytest.approx([1.0] * 4)
    else:
        assert torch.equal(targets, LABELS)


@pytest.mark.parametrize("make", STEPS)
def test_statistics_that_are_paused_stay_in_a_pass(make, network):
    step = make(network)
    step.calibrate(IMAGES)
    step.begin(0.0)
    step.module.train()
    network.eval()
    step.pause_statistics()
    before = {name: tensor.clone() for name, tensor in step.module.state_dict().items()}
    step.module(IMAGES)
    for name, tensor in step.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("make", STEPS)
def test_what_a_state_keeps_and_what_processes_share_are_tensors_of_the_step(make, network):
    step = make(network)
    kept = {} if step.state is None else step.state.state_dict()
    pointers = {tensor.data_ptr() for tensor in kept.values()}
    saved = [tensor for tensor in step.calibrated if tensor.data_ptr() in pointers]
    assert bool(step.calibrated) == bool(step.state)
    assert len(saved) >= len(step.calibrated) - 1  # the grids' members are not kept


@pytest.mark.parametrize("make", STEPS)
def test_what_a_step_says_is_json_and_markdown(make, network):
    step, position = make(network), Position(start=StartScores(0.25, 0.5))
    position.end_epoch(ROW, is_best=True)
    assert json.loads(json.dumps(step.provenance(ROW))) == step.provenance(ROW)
    said = step.describe(position)
    assert isinstance(said, str)
    assert ("25.00 %" in said) == (step.judged(network) is not network)


def test_the_plain_step_is_the_network_and_nothing_more(network):
    step = PlainStep(network)
    assert step.module is step.judged(network) is network
    assert step.targets(IMAGES, LABELS) is LABELS
    assert (list(step.frozen), step.state, list(step.calibrated)) == ([], None, [])
    assert (step.provenance(ROW), step.describe(Position())) == ({}, "")


class Counting(PlainStep):
    """A made-up step: it counts, keeps that in the state, and halves what it computes."""

    def __init__(self, network):
        super().__init__(network)
        self.state = nn.Module()
        self.state.register_buffer("begun", torch.zeros((), dtype=torch.int64))

    def begin(self, share_done):
        self.state.begun += 1

    def provenance(self, row):
        return {"counted": int(self.state.begun)}

    def describe(self, position):
        return f"\nSteps counted: {int(self.state.begun)}.\n"


def test_a_third_step_is_trained_kept_and_resumed_without_a_line_of_the_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(
        assemble, "choose_step", lambda recipe, network, **besides: Counting(network)
    )
    settings = {"data.channels": 1, "data.batch_size": 512, "preprocess.size": 8}
    settings |= {"augment.padding": 1, "schedule.name": "constant", "optimizer.lr": 0.01}
    common = {"device": "cpu", "progress": "none"}
    train(
        "densenet_bc_22_12",
        data="digits",
        epochs=1,
        output=tmp_path / "run",
        settings=settings,
        **common,
    )
    train(tmp_path / "run", epochs=2, **common)
    with safe_open(str(tmp_path / "run/state/state.safetensors"), framework="pt") as file:
        begun = file.get_tensor("quantised.begun").item()
    assert begun == Checkpoint.load(tmp_path / "run/last.safetensors").provenance["counted"]
    assert begun % 2 == 0
    assert begun > 2
    assert f"Steps counted: {begun}." in (tmp_path / "run/README.md").read_text()

"""The pieces of a training by themselves, in milliseconds: none of them runs an epoch."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
from PIL import Image
from torch import nn

from densepath import train
from densepath.errors import DatasetError, DivergedError, RecipeError, TrainingError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.metrics.accuracy import Summary
from densepath.models.build import build_model
from densepath.training import assemble, judging, loop
from densepath.training.board import NoBoard
from densepath.training.curves import draw_curves
from densepath.training.distributed import Exchange, PeerError, Ranks, pick_device, said_by_leader
from densepath.training.ema import Ema
from densepath.training.epochs import EpochRow, RunningSums
from densepath.training.images import RunImages, open_images
from densepath.training.judging import Judgement
from densepath.training.loss import Loss
from densepath.training.more_epochs import command_from_weights
from densepath.training.network import build_network, open_weights
from densepath.training.parts import Training
from densepath.training.planning import _name_or_weights
from densepath.training.progress import BarProgress, LineProgress, NoProgress, make_progress
from densepath.training.recipe_file import make_recipe
from densepath.training.recipe_sections import DataSection, ModelSection, QuantizationSection
from densepath.training.resolve import absolute_places, is_resolved, resolve
from densepath.training.run_readme import _judged, _text
from densepath.training.shares import count_least_images, share_step
from densepath.training.signals import OTHERS_SIGNAL, StoppedNow, StopRequest
from densepath.training.state import Position
from densepath.training.step import take_step
from densepath.training.steps.fake_quantised import FakeQuantised
from densepath.training.steps.plain import PlainStep
from densepath.training.steps.quantised import QuantisedStep, Teacher
from densepath.training.sync_bn import synchronise
from densepath.training.train import _answer_signals
from densepath.weights.checkpoint import Checkpoint

SMALL = "densenet_bc_22_12"
ROW = EpochRow(
    epoch=1,
    lr=0.1,
    train_loss=2.0,
    train_accuracy=0.4,
    loss=1.0,
    top1=0.5,
    top5=0.9,
    train_skipped=0,
    count=20,
    skipped=0,
    seconds=9.0,
)


def recipe_of(**sections):
    return make_recipe({"model": {"name": SMALL}} | sections)


def quantised_step(**section):
    network = build_model(SMALL, num_classes=2)
    section = QuantizationSection(target="int8", teacher=0.0, **section)
    return QuantisedStep(network, section, multi_label=False, device=torch.device("cpu"))


# Several processes.


def test_a_mistake_is_said_by_the_leader_and_all_end_with_its_code():
    with pytest.raises(UsageError, match="wrong"), said_by_leader(Ranks(0, 2)):
        raise UsageError("wrong")
    with pytest.raises(PeerError) as caught, said_by_leader(Ranks(1, 2)):
        raise UsageError("wrong")
    assert caught.value.exit_code == UsageError.exit_code
    assert PeerError("gone").exit_code == TrainingError.exit_code


def test_what_processes_tell_each_other_lies_on_the_device_of_the_training():
    devices = []

    class Spy(Ranks):
        def sum(self, tensor):
            devices.append(tensor.device.type)
            return torch.zeros(tensor.shape)

    with Spy(0, 2).together(torch.device("meta")):
        pass
    assert devices == ["meta"]


def test_tensors_are_those_of_the_leading_process(monkeypatch):
    sources = []
    monkeypatch.setattr(torch.distributed, "broadcast", lambda _, src: sources.append(src))
    Ranks(1, 2).take_leaders([torch.zeros(1), torch.zeros(2)])
    Ranks(0, 1).take_leaders([torch.zeros(1)])
    assert sources == [0, 0]


def test_a_gpu_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="this PyTorch sees no GPU"):
        pick_device("cuda", Ranks())


@pytest.mark.parametrize(("name", "index"), [("cuda", 1), ("cuda:0", 0), ("auto", 1)])
def test_each_process_of_a_machine_takes_a_gpu_of_its_own(name, index, monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    device = torch.device("cuda", index)
    assert pick_device(name, Ranks(5, 8, local_rank=5, local_size=8)) == device
    assert taken == [device]


@pytest.mark.parametrize(("device", "ids"), [("cuda:3", [3]), ("cpu", None)])
def test_a_network_that_is_spread_over_processes_is_told_its_gpu(device, ids, monkeypatch):
    given = {}
    monkeypatch.setattr(assemble, "DistributedDataParallel", lambda _, **words: given.update(words))
    place = assemble.Placement(Ranks(0, 2), torch.device(device), 0)
    assemble._wrap(nn.Linear(1, 1), recipe_of(), place)
    assert given == {"device_ids": ids}


# Recipes.


@pytest.mark.parametrize(("side", "crop"), [(64, "pad_crop"), (65, "random_resized_crop")])
def test_images_of_up_to_64_pixels_are_shifted_and_larger_ones_cropped(side, crop):
    assert resolve(recipe_of(preprocess={"size": side}), None).augment.crop == crop


def test_a_recipe_is_resolved_once_nothing_is_left_open():
    left_open = recipe_of()
    assert not is_resolved(left_open)
    assert is_resolved(resolve(left_open, None))


def test_places_are_the_same_seen_from_any_folder(tmp_path, monkeypatch):
    for name in ("photos/inside", "elsewhere", "roots"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    here = DataSection(source="photos", root="roots", train="inside", test="elsewhere")
    found = absolute_places(here)
    assert found.source == str(tmp_path / "photos")
    assert found.root == str(tmp_path / "roots")
    assert (found.train, found.validation) == ("inside", None)
    assert found.test == str(tmp_path / "elsewhere")


def test_without_images_to_judge_on_nothing_is_trained(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\na.png,a\nb.png,b\n")
    data = {"source": str(tmp_path / "list.csv"), "channels": 3, "validation_fraction": 0}
    with pytest.raises(RecipeError, match="is nothing to judge an epoch on"):
        open_images(recipe_of(data=data))


def test_a_new_start_from_weights_is_gentle_but_not_below_the_last_rate(tmp_path):
    schedule = {"name": "cosine", "final_lr": 0.002}
    for rate, said in ((0.5, "0.05"), (0.01, "0.002")):
        recipe = recipe_of(optimizer={"lr": rate}, schedule=schedule)
        assert f"--lr {said} " in command_from_weights(recipe, 99, tmp_path)


@pytest.mark.parametrize("subject", ["weights/mine", "mine.safetensors"])
def test_a_subject_with_a_slash_or_an_ending_is_weights(subject):
    assert _name_or_weights(subject) == {"weights": subject}
    assert _name_or_weights(SMALL.upper()) == {"name": SMALL}


# The network.


def test_switches_of_a_recipe_reach_the_network():
    cpu = torch.device("cpu")
    recipe = recipe_of(data={"channels": 1}, model={"name": SMALL, "bn_eps": 0.01})
    network = build_network(recipe, None, ["a", "b"], cpu)
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}
    assert (network.in_channels, network.num_classes) == (1, 2)


def test_the_first_layer_of_weights_is_adapted_to_the_images():
    model = build_model(SMALL, num_classes=2)
    weights = Checkpoint.of(model, preprocess=Preprocess((32, 32)), labels=["a", "b"])
    recipe = recipe_of(data={"channels": 1})
    network = build_network(recipe, weights, ["a", "b"], torch.device("cpu"))
    gray, colour = network.features.conv0.weight, model.features.conv0.weight
    torch.testing.assert_close(gray, colour.sum(1, keepdim=True))


def test_looking_for_the_least_images_leaves_a_network_in_training_mode_and_frozen_parts_not():
    network = build_model(SMALL, num_classes=2).eval()
    frozen = [next(one for one in network.modules() if isinstance(one, nn.BatchNorm2d))]
    count_least_images(network, frozen, (32, 32))
    assert network.training
    assert not frozen[0].training


def test_extremes_are_ranges_unless_a_percentile_is_asked_for():
    network = build_model(SMALL, num_classes=2)
    for ranges, percentile in (("minmax", None), ("percentile", 99.99)):
        section = QuantizationSection(target="int8", ranges=ranges)
        assert FakeQuantised(network, section).ranges.percentile == percentile


def test_a_teacher_does_not_learn():
    teacher = Teacher(build_model(SMALL, num_classes=2), 1.0, multi_label=False)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.network.training


# What is said of it.


def test_the_share_that_is_done_counts_whole_epochs_and_steps():
    training = SimpleNamespace(
        train_loader=SimpleNamespace(steps_per_epoch=5),
        position=Position(epoch=2, step=1),
        recipe=SimpleNamespace(epochs=4),
    )
    training.steps_done = Training.steps_done.fget(training)
    assert Training.share_done.fget(training) == 11 / 20


@pytest.mark.parametrize(("epoch", "finished"), [(3, False), (4, True), (5, True)])
def test_a_training_is_finished_after_its_last_epoch(epoch, finished):
    position, recipe = Position(epoch=epoch), SimpleNamespace(epochs=4)
    training = SimpleNamespace(position=position, recipe=recipe, ended_early=False)
    assert Training.is_finished.fget(training) is finished


def test_a_bar_is_as_long_as_the_epoch_and_begins_where_it_goes_on():
    progress = BarProgress(3)
    try:
        progress.start_epoch(Position(epoch=1, step=4), 20)
        [task] = progress.bars.tasks
        assert (task.total, task.completed, task.description) == (20, 4, "epoch 2/3")
    finally:
        progress.close()


def test_only_the_leading_process_shows_progress():
    assert type(make_progress("lines", 3, leads=False)) is NoProgress
    assert type(make_progress("lines", 3, leads=True)) is LineProgress


def test_the_best_epoch_is_marked_on_the_curve_of_its_score():
    rows = [replace(ROW, epoch=n, top1=top1) for n, top1 in ((1, 0.2), (2, 0.7), (3, 0.7))]
    right = draw_curves(rows, "A run", "validation").axes[1]
    [best] = [line for line in right.lines if line.get_label().startswith("best")]
    assert best.get_label() == "best: 70.00 %, epoch 2"
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([2], [70.0])


def test_what_scores_were_measured_on_and_are_worth_is_said():
    judged = {"judged": range(20), "splits": SimpleNamespace(rules={"test": "as given"})}
    images = SimpleNamespace(judged_on="test", **judged)
    whole = _judged(images, ROW, {})
    assert whole.startswith("Measured on the 20 test images (as given). The best epoch was chosen")
    assert "no\nfigure of new images" in whole
    part = _judged(images, replace(ROW, count=17, skipped=3), {"test": 2})
    assert "Measured on the 17 readable ones of the 20 test images" in part
    assert "**2 of them were trained on" in part


def test_a_second_signal_is_named_in_the_error():
    stopped = StoppedNow("SIGINT")
    assert (str(stopped), stopped.signal) == ("SIGINT stopped the training at once", "SIGINT")


@pytest.mark.parametrize("say", [None, lambda message: None])
@pytest.mark.parametrize("ends", [True, False])
def test_whether_signals_end_the_process_is_the_callers_choice(say, ends, tmp_path):
    stop = _answer_signals(Ranks(), tmp_path, NoProgress(), say, ends_process=ends)
    assert stop._ends_process is ends


# The loop, with what it asks replaced.


def loop_of(**replaced):
    """A training of which `_pulse` and its kin see what they need."""
    parts = {
        "position": Position(),
        "stop": StopRequest(lambda message: None),
        "sums": RunningSums(torch.device("cpu")),
        "ranks": Ranks(),
        "device": torch.device("cpu"),
        "recipe": recipe_of(checkpoint={"every_steps": None, "every_minutes": None}),
        "saved_at": 0.0,
        "progress": NoProgress(),
        "count_time": lambda: None,
        "lr_at": lambda step: 0.1,
        "share_done": 0.0,
        "steps_done": 0,
        "board": NoBoard(),
    }
    return SimpleNamespace(**parts | replaced)


class Told(Ranks):
    """Two processes, the other of which gives 1."""

    @contextmanager
    def together(self, device):
        exchange = Exchange()
        yield exchange
        exchange.values = [int(exchange.value), 1]

    def take_leaders(self, tensors):
        pass


@pytest.mark.parametrize(("signal", "saved"), [(None, 0), ("SIGTERM", 1)])
def test_the_state_is_written_before_a_stop_and_not_at_every_exchange(signal, saved, monkeypatch):
    states = []
    monkeypatch.setattr(loop, "_save_state", states.append)
    training = loop_of()
    training.stop.signal = signal
    assert loop._pulse(training) == bool(signal)
    assert len(states) == saved


@pytest.mark.parametrize("every", [{"every_steps": 4}, {"every_minutes": 0.5}])
def test_the_state_is_written_when_it_is_due(every, monkeypatch):
    states = []
    monkeypatch.setattr(loop, "_save_state", states.append)
    recipe = recipe_of(checkpoint={"every_steps": None, "every_minutes": None} | every)
    for step, minutes, due in ((4, 1, True), (3, 0.1, False)):
        states.clear()
        saved_at = time.monotonic() - 60 * minutes
        position = Position(step=step)
        assert not loop._pulse(loop_of(recipe=recipe, saved_at=saved_at, position=position))
        assert bool(states) == due


def test_a_signal_to_one_process_stops_all():
    training = loop_of(ranks=Told(0, 2))
    assert loop._stops(training)
    assert training.stop.signal == OTHERS_SIGNAL
    training.stop.signal = "SIGINT"
    assert loop._stops(training)
    assert training.stop.signal == "SIGINT"


@pytest.mark.parametrize("ranks", [Told(0, 2), Ranks()])
def test_an_evaluation_that_a_signal_ends_has_no_summary(ranks, monkeypatch):
    stopped = not isinstance(ranks, Told)
    batches = SimpleNamespace(error=None, stopped=stopped)
    monkeypatch.setattr(judging, "_DeferringBatches", lambda _: batches)
    monkeypatch.setattr(judging, "count_batches", lambda *_, **__: torch.zeros(10))
    network = nn.Linear(1, 1)
    training = loop_of(
        ranks=ranks,
        kept=network,
        step=PlainStep(network),
        eval_loader=[],
        memory_format=torch.contiguous_format,
        loss=SimpleNamespace(multi_label=False),
    )
    assert judging.judge(training) is None
    assert training.stop.signal == OTHERS_SIGNAL


@pytest.mark.parametrize(("done", "observing"), [(0.25, True), (0.5, False), (0.75, False)])
def test_ranges_follow_the_batches_until_their_share_is_done(done, observing):
    class Reached(Exception):  # noqa: N818  no error: the step goes no further
        pass

    def mixing(images, targets, **place):
        raise Reached

    step = quantised_step(observe=0.5)
    step.module.observing = None
    training = loop_of(
        step=step,
        optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0),
        share_done=done,
        mixing=mixing,
    )
    batch = SimpleNamespace(images=torch.zeros(2, 3, 4, 4), targets=torch.zeros(2))
    with pytest.raises(Reached):
        take_step(training, batch, None)
    assert step.module.observing is observing


def test_norms_over_processes_are_in_one_process_what_norms_are(tmp_path):
    torch.manual_seed(0)
    images = torch.randn(4, 3, 5, 5)
    found = []
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        for together in (False, True):
            norm = nn.BatchNorm2d(3)
            with torch.no_grad():
                norm.weight.copy_(torch.tensor([0.5, 2.0, 3.0]))
                norm.bias.copy_(torch.tensor([0.1, -1.0, 0.0]))
            if together:
                synchronise(norm, torch.device("cpu"))
            given = images.clone().requires_grad_()
            out = norm(given)
            out.square().sum().backward()
            found.append((out, given.grad, norm.weight.grad, norm.running_mean, norm.running_var))
    finally:
        torch.distributed.destroy_process_group()
    for plain, synced in zip(*found, strict=True):
        torch.testing.assert_close(synced, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "start"), [(None, "new weights"), ("mine", "the weights mine")]
)
def test_the_readme_says_what_the_training_started_from(weights, start):
    class Images(list):
        class_names, description = ("a", "b"), "two images"

    recipe = recipe_of(model={"name": SMALL, "weights": weights})
    splits = SimpleNamespace(rules={"validation": "held out"}, separate=())
    images = RunImages(Images("ab"), Images("c"), "validation", splits)
    position = Position(epoch=1, rows=[ROW], best=0.5, best_epoch=1)
    text = _text(recipe, position, images, None, "\nWhat the step says.\n")
    assert f"from {start}." in text
    assert "\n\nWhat the step says.\n\n" in text
    assert "| best | 1 | 50.00 % | 1.0000 |" in text
    assert "Measured on the 1 validation images (held out)." in text
    assert "Left out" not in text


def test_without_an_image_that_can_be_read_nothing_calibrates(monkeypatch):
    none, some = (SimpleNamespace(images=torch.zeros(n, 3, 32, 32)) for n in (0, 2))
    read = [(none, None), (none, None), (some, None)]
    monkeypatch.setattr(judging, "agreed_batches", lambda *_: iter(read))
    monkeypatch.setattr(judging, "judge", lambda _: None)
    step = quantised_step(calibration_batches=2)
    training = loop_of(
        step=step,
        train_loader=SimpleNamespace(epoch=lambda number: ()),
        memory_format=torch.contiguous_format,
    )
    with pytest.raises(DatasetError, match="no image that calibrates could be read"):
        judging.calibrate(training)
    read[1:] = [(some, None), (some, None)]
    assert not judging.calibrate(training)
    assert step.module.ranges.num_batches == 1
    assert judging.calibrate(training)


def test_weights_of_another_system_are_read_whether_the_model_is_named_or_not(tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save(build_model(SMALL, num_classes=2).state_dict(), path)
    for name in (None, SMALL):
        found = open_weights(ModelSection(name=name, weights=str(path)))
        assert (found.spec.name, found.num_classes) == (SMALL, 2)
    assert open_weights(ModelSection(name=SMALL)) is None


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_weights_that_are_no_numbers_any_more_are_not_saved(broken, monkeypatch):
    written = []
    monkeypatch.setattr(loop, "_save_state", written.append)
    network = nn.Linear(2, 1)
    folder = SimpleNamespace(
        describe_last_good=lambda: "Nothing was saved.",
        save_epoch=lambda *_, **__: written.append("an epoch"),
        draw_soon=lambda _: None,
    )
    step = PlainStep(network)
    training = loop_of(kept=network, step=step, folder=folder, unread=[], named=set())
    loop._finish_epoch(training, Judgement(Summary(0.5, 0.9, 1.0, 20, 0), None))
    assert written == ["an epoch", training]
    assert (training.position.epoch, training.position.best) == (1, 0.5)
    with torch.no_grad():
        network.weight[0, 1] = broken
    with pytest.raises(DivergedError, match=r"became NaN .* in epoch 2, .*Nothing was saved"):
        loop._finish_epoch(training, Judgement(Summary(0.6, 0.9, 1.0, 20, 0), None))
    assert len(written) == 2


def test_a_network_from_weights_has_their_architecture_not_the_catalogues():
    model = build_model(SMALL, num_classes=2, bn_eps=0.01)
    weights = Checkpoint.of(model, preprocess=Preprocess((32, 32)), labels=["a", "b"])
    recipe = recipe_of(data={"channels": 3})
    network = build_network(recipe, weights, ["a", "b"], torch.device("cpu"))
    assert network.spec.arch == model.spec.arch
    assert network.spec.arch.bn_eps == 0.01


def test_a_step_moves_the_weights_and_then_their_average():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    before = network[1].weight.detach().clone()
    ema = Ema(network, 0.9)
    training = loop_of(
        network=network,
        stepped=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        step=PlainStep(network),
        synced=False,
        frozen=[],
        memory_format=torch.contiguous_format,
        mixing=lambda images, targets, **_: (images, targets),
        loss=Loss(multi_label=False, label_smoothing=0.0),
        masked=False,
        ema=ema,
    )
    batch = SimpleNamespace(images=torch.randn(4, 3, 2, 2), targets=torch.tensor([0, 1, 1, 0]))
    take_step(training, batch, share_step([4], 0, num_parts=2, least_images=1, synced=False))
    after, average = network[1].weight.detach(), ema.model[1].weight
    assert not torch.equal(after, before)
    assert ema.num_updates == 1
    assert not torch.equal(average, before)
    sums, _ = training.sums.exchange(Ranks())
    assert sums.images == 4


def test_one_class_is_no_classification_and_is_refused_before_anything_is_written(tmp_path):
    for number, split in enumerate(("train", "train", "val")):
        path = tmp_path / "data" / split / "only" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    with pytest.raises(RecipeError, match=r"has one class \(only\); a classifier needs two"):
        train(
            SMALL,
            data=tmp_path / "data",
            epochs=1,
            output=tmp_path / "run",
            settings={"preprocess.size": 8},
            device="cpu",
            progress="none",
        )
    assert not (tmp_path / "run").exists()

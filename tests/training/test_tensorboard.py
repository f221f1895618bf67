"""TensorBoard's file of a training: what is in it, and that a resume makes no two of anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from densepath.errors import MissingPackageError
from densepath.training import event_file
from densepath.training.recipe import Recipe
from densepath.training.recipe_file import make_recipe
from densepath.training.tensorboard import FILE, TensorBoard, flat_fields
from fixtures.runs import DIGITS, train_quietly

FIELDS = {**DIGITS, "logging.tensorboard": True, "checkpoint.every_steps": 2}


@pytest.fixture
def package():
    """tensorboardX, where it is installed."""
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` brings tensorboardX")
    return event_file.import_package()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished training with its board, and its result."""
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` brings tensorboardX")
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train_quietly("digits", folder, FIELDS, epochs=2)


def events_of(package, folder: Path) -> list[tuple[int, str, float | None]]:
    """Step, tag and value (None of what is no number) of each event of a run folder."""
    data, place, found = (folder / FILE).read_bytes(), 0, []
    while place < len(data):
        length = int.from_bytes(data[place : place + 8], "little")
        event = package.proto.event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
        place += 12 + length + 4
        for value in event.summary.value:
            number = value.simple_value if value.WhichOneof("value") == "simple_value" else None
            found.append((event.step, value.tag, number))
    return found


def test_the_file_has_curves_pictures_and_the_recipe(package, whole):
    folder, result = whole
    events = events_of(package, folder)
    tags = [tag for _, tag, _ in events]
    assert tags[:2] == ["_hparams_/experiment", "_hparams_/session_start_info"]
    assert tags[-2:] == ["images/confusion_matrix", "_hparams_/session_end_info"]
    assert tags.count("images/first_batch") == 1
    losses = [step for step, tag, _ in events if tag == "step/train_loss"]
    assert losses == list(range(1, 13))
    tops = {step: value for step, tag, value in events if tag == "epoch/top1"}
    assert list(tops) == [6, 12]
    assert tops[6 * result.best_epoch] == pytest.approx(result.best_top1)


@pytest.mark.parametrize("dies_at", [5, 12])
def test_a_training_that_was_killed_goes_on_in_the_file_as_if_it_never_was(
    package, dies_at, whole, tmp_path, monkeypatch
):
    told = TensorBoard.step

    def die(self, step, loss, lr):
        told(self, step, loss, lr)
        if step == dies_at:
            raise RuntimeError("killed")

    monkeypatch.setattr(TensorBoard, "step", die)
    with pytest.raises(RuntimeError, match="killed"):
        train_quietly("digits", tmp_path / "run", FIELDS, epochs=2)
    monkeypatch.setattr(TensorBoard, "step", told)
    with (tmp_path / "run" / FILE).open("ab") as file:
        file.write(b"half a rec")  # what a kill may leave
    train_quietly(None, None, None, subject=tmp_path / "run", epochs=None)
    assert [p.name for p in (tmp_path / "run" / FILE).parent.iterdir()] == [Path(FILE).name]
    first, second = (
        [event for event in events_of(package, folder) if event[1] != "epoch/seconds"]
        for folder in (whole[0], tmp_path / "run")
    )
    assert first == second


def test_the_state_before_an_epoch_s_judgement_forgets_the_judgement(package, tmp_path):
    """A kill between the epoch's row and the state: the state stands after the last step."""
    path = tmp_path / FILE
    scalar = package.summary.scalar
    file = event_file.EventFile(path, lambda event: True)
    for step, tag in ((1, "step/loss"), (2, "step/loss"), (2, "epoch/top1"), (3, "step/loss")):
        file.add(scalar(tag, 0.5), step)
    file.close()
    for mid_epoch, kept in ((False, 3), (True, 2)):
        TensorBoard(
            tmp_path,
            step=2,
            mid_epoch=mid_epoch,
            preprocess=None,
            labels=[],
            hyper_parameters={},
            confusion=lambda: None,
        ).close()
        assert len(events_of(package, tmp_path)) == kept


def test_without_the_package_the_error_says_how_to_get_it_before_anything_is_read(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingPackageError, match="tensorboardX"):
        train_quietly(tmp_path / "no such data", tmp_path / "run", FIELDS)
    assert not (tmp_path / "run").exists()


def test_comet_is_not_imported_with_it(package):
    assert "comet_ml" not in sys.modules


def test_recipes_say_nothing_of_it_unless_they_use_it():
    assert "logging" not in Recipe().to_dict()
    used = make_recipe({"logging": {"tensorboard": True}})
    assert used.to_dict()["logging"] == {"tensorboard": True}
    assert make_recipe(used.to_dict()) == used


def test_fields_are_flat_and_plain():
    flat = flat_fields({"a": {"b": 1, "c": None, "d": [1, 2]}, "e": True})
    assert flat == {"a.b": 1, "a.c": "None", "a.d": "[1, 2]", "e": True}

"""The memory of a training's maps: no two at once in one place, and gaps that grow together."""

from __future__ import annotations

import gc
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from densepath.training.blocks import memory
from densepath.training.blocks.choose import Arithmetic, Fused, choose_arithmetic, fuse
from densepath.training.blocks.memory import ALIGNMENT, MapMemory
from densepath.training.blocks.native import NativeOperations
from densepath.training.lr_find import find_learning_rate
from fixtures.networks import TINY, TINY_DUAL, new_network

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere PyTorch's own memory is taken"
)
KB = 1024


def _filled(room: MapMemory, number: int, size: int) -> Tensor:
    """A tensor of so many elements, all of which are `number`."""
    return room.empty(size, torch.float32).fill_(number)


def test_maps_that_are_there_at_once_never_share_a_byte() -> None:
    room, draw, held = MapMemory(256 * KB), random.Random(0), {}
    for number in range(2000):
        if held and draw.random() < 0.5:
            held.pop(draw.choice(sorted(held)))
        else:
            held[number] = _filled(room, number, draw.randint(1, 4000))
        assert all((one == name).all() for name, one in held.items())


def test_what_maps_leave_grows_together_to_one_gap() -> None:
    room = MapMemory(64 * KB)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3], [1, 3, 0, 2]):
        maps: dict[int, Tensor] = {n: _filled(room, n, 4 * KB) for n in range(4)}
        places = [one.data_ptr() for one in maps.values()]
        assert places == sorted(places)
        for number in order:
            del maps[number]
        whole = room.empty(16 * KB, torch.float32)
        assert whole.data_ptr() == places[0]
        del whole


def test_a_map_takes_the_lowest_gap_that_it_fits() -> None:
    room = MapMemory(64 * KB)
    low, middle, _high = (room.empty(KB, torch.float32) for _ in range(3))
    place, between = low.data_ptr(), middle.data_ptr()
    del low
    assert room.empty(2 * KB, torch.float32).data_ptr() > between
    assert room.empty(KB // 2, torch.bfloat16).data_ptr() == place


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_every_map_begins_at_a_line_of_the_cache(dtype: torch.dtype) -> None:
    room = MapMemory(64 * KB)
    held = [room.empty(size, dtype) for size in (1, 7, 64, 65)]
    assert all(one.data_ptr() % ALIGNMENT == 0 for one in held)
    assert [one.numel() for one in held] == [1, 7, 64, 65]
    assert {one.dtype for one in held} == {dtype}


def test_without_room_the_memory_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    room = MapMemory(8 * KB)
    held = [_filled(room, number, KB) for number in range(5)]
    assert all((one == number).all() for number, one in enumerate(held))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(memory.mmap, "mmap", refuse)
    assert (_filled(MapMemory(), 3, KB) == 3).all()
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert (_filled(MapMemory(), 4, KB) == 4).all()


def test_a_limit_on_addresses_is_shared_with_everything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import resource

    def limited(kind: int) -> tuple[int, int]:
        limit = 512 * KB if kind == resource.RLIMIT_AS else resource.RLIM_INFINITY
        return limit, limit

    monkeypatch.setattr(resource, "getrlimit", limited)
    room = MapMemory()
    assert room._gaps == [(0, 256 * KB)]
    assert (_filled(room, 5, 100 * KB) == 5).all()  # larger than that: PyTorch's


def test_where_addresses_count_as_memory_none_are_reserved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Linux with vm.overcommit_memory=2, where MAP_NORESERVE means nothing."""
    setting = tmp_path / "overcommit_memory"
    for text, counts in [("0\n", False), ("1\n", False), ("2\n", True)]:
        setting.write_text(text)
        assert memory._counts_addresses(setting) == counts
    assert not memory._counts_addresses(tmp_path / "none")
    monkeypatch.setattr(memory, "_counts_addresses", lambda: True)
    assert MapMemory(64 * KB)._gaps == []


def test_both_arithmetics_of_a_training_have_one_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a limit on addresses would else be for the maps of the evaluation alone."""
    monkeypatch.setattr(NativeOperations, "has_bfloat16", True)
    found = choose_arithmetic(torch.device("cpu"), torch.float32)
    assert found.operations is not found.lower
    assert found.operations.memory is found.lower.memory


def test_a_map_outlives_the_object_that_made_it() -> None:
    one = _filled(MapMemory(64 * KB), 7, 4 * KB)
    gc.collect()
    part = one[10:20]
    del one
    gc.collect()
    assert (part == 7).all()


def test_threads_get_maps_of_their_own() -> None:
    room = MapMemory(1024 * KB)

    def work(number: int) -> bool:
        maps = [_filled(room, number, 300 + step) for step in range(50)]
        return all((one == number).all() for one in maps)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


@pytest.mark.parametrize("model", [TINY, TINY_DUAL])
def test_when_a_step_is_through_its_maps_have_left_one_gap(model) -> None:
    operations = NativeOperations()
    room = operations.memory
    before = list(room._gaps)
    network = new_network(model)
    fuse(network, Fused(Arithmetic(operations, operations, torch.float32, ""), print))
    for _ in range(2):
        logits = network(torch.randn(4, 3, 32, 32))
        assert room._gaps != before
        logits.sum().backward()
        del logits
        gc.collect()
        with room._lock:
            assert room._take(before[0][1] + 1) is None  # puts back what has been left
        assert room._gaps == before


def test_the_memory_goes_with_the_training_that_had_it() -> None:
    """Nothing of a training holds itself: of the next one its maps would only take room."""
    settings = {"compute.block": "fused", "preprocess.size": 8}
    train = partial(find_learning_rate, "densenet_bc_22_12", data="digits", settings=settings)
    train(steps=20)  # what libraries hold of who imports them first is not ours
    gc.collect()
    before = {id(one) for one in gc.get_objects() if type(one) is MapMemory}
    gc.disable()
    try:
        train(steps=20)
        after = {id(one) for one in gc.get_objects() if type(one) is MapMemory}
        assert after <= before
    finally:
        gc.enable()

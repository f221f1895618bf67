"""Networks whose blocks are computed as one operation, and blocks left to their modules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from densepath.training.blocks.choose import Arithmetic, Fused, fuse
from densepath.training.blocks.operations import Operations
from densepath.training.blocks.portable import PortableOperations
from fixtures.blocks import (
    CPU,
    WIDTH,
    assert_close,
    images,
    lower_ways,
    new_block,
    new_transition,
    used,
    ways,
)
from fixtures.networks import SMALL, TINY, TINY_DUAL, new_network

DOUBLE, SINGLE = torch.float64, torch.float32


def fused_by(dtype: torch.dtype, *modules: nn.Module, lower: Operations | None = None) -> list[str]:
    """Fuse the blocks of `modules`; what is said is in the list."""
    said: list[str] = []
    operations = PortableOperations(CPU, dtype)
    lower = lower or PortableOperations(CPU, dtype, torch.bfloat16)
    for module in modules:
        fuse(module, Fused(Arithmetic(operations, lower, dtype, ""), said.append))
    return said


def step_of(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits, gradients and statistics of one step."""
    torch.manual_seed(3)
    logits = network(x)
    logits.square().sum().backward()
    gradients = {f"{name} (gradient)": part.grad for name, part in network.named_parameters()}
    return {"logits": logits.detach()} | gradients | dict(network.named_buffers())


@pytest.mark.parametrize(
    ("model", "side"),
    [
        (TINY, 9),
        (TINY_DUAL, 12),
        (SMALL, 8),
        ("densenet121", 64),
        ("dpn68", 64),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_network_of_fused_blocks_takes_the_step_of_its_modules(model, side, layout):
    """With dropout where blocks have it: in a DPN's head it depends on the layout of the map."""
    network = new_network(model, num_classes=4, drop_path_rate=0.2)
    for module in network.features.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    plain = used(network).to(memory_format=layout)
    network = copy.deepcopy(plain)
    said = fused_by(DOUBLE, network)
    x = images(3, 3, side, side).contiguous(memory_format=layout)
    assert_close(step_of(network, x), step_of(plain, x), 1e-8)
    assert said == []


@pytest.mark.parametrize("way", ways(), ids=lambda way: way.name)
def test_a_network_on_any_operations_is_as_near_to_double_as_they_are(way):
    """One with few enough values that none is within float32's rounding of a ReLU's kink."""
    plain = used(new_network(TINY, num_classes=4))
    network = copy.deepcopy(plain).to(way.dtype)
    operations = way.build()
    fuse(network, Fused(Arithmetic(operations, operations, way.dtype, ""), pytest.fail))
    torch.set_num_threads(way.threads)
    x = images(3, 3, 12, 12)
    assert_close(step_of(network, x.to(way.dtype)), step_of(plain, x), way.tolerance)


def test_the_maps_between_stages_are_those_of_the_modules():
    for model in (TINY, TINY_DUAL):
        plain = used(new_network(model)).eval()
        network = copy.deepcopy(plain)
        fused_by(DOUBLE, network)
        x = images(2, 3, 12, 12)
        for found, wanted in zip(network.forward_stages(x), plain.forward_stages(x), strict=True):
            torch.testing.assert_close(found, wanted)


def test_a_hook_inside_a_block_sees_what_its_modules_compute():
    """As those of Grad-CAM; the other blocks stay fused, and it is said once."""
    network = used(new_network(TINY))
    said = fused_by(DOUBLE, network)
    seen: list[torch.Tensor] = []
    layer = network.features.denseblock2.denselayer1.conv2
    handle = layer.register_forward_hook(lambda module, args, out: seen.append(out))
    x = images(2, 3, 8, 8)
    for _ in range(2):
        logits = network(x)
    gradients = torch.autograd.grad(logits.sum(), seen[-1])
    assert len(seen) == 2
    assert gradients[0].shape == seen[-1].shape
    assert said == [
        "compute.block: a dense block is left to its modules, because denselayer1.conv2 has hooks."
    ]
    handle.remove()
    out = network.features.denseblock2(images(2, 10, 4, 4))
    assert "FusedDenseBlock" in type(out.grad_fn).__name__


@pytest.mark.parametrize("model", [TINY, TINY_DUAL], ids=lambda spec: spec.name)
def test_a_hook_on_a_block_sees_its_output_and_gradient(model):
    network = used(new_network(model))
    name = "features.denseblock1" if model is TINY else "features.conv2_1"
    plain = copy.deepcopy(network)
    fused_by(DOUBLE, network)
    seen: list[torch.Tensor] = []
    for one in (plain, network):
        module = one.get_submodule(name)
        module.register_forward_hook(lambda module, args, out: seen.append(out))
        module.register_full_backward_hook(lambda module, args, out: seen.append(out[0]))
        one(images(2, 3, 8, 8)).square().sum().backward()
    for wanted, found in zip(seen[:2], seen[2:], strict=True):
        torch.testing.assert_close(found, wanted)


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def parametrised(block):
    parametrize.register_parametrization(block.denselayer2.conv1, "weight", Doubled())


def replaced(block):
    block.denselayer1.norm1 = nn.GroupNorm(2, WIDTH).double()


def patched(block):
    own = block.denselayer3.forward
    block.denselayer3.forward = lambda x: 2 * own(x)


def widened(block):
    block.denselayer1.conv2 = nn.Conv2d(8, 4, 5, padding=2, bias=False).double()


def biased(block):
    block.denselayer1.conv2 = nn.Conv2d(8, 4, 3, padding=1).double()


def forgetful(block):
    block.denselayer2.norm2 = nn.BatchNorm2d(8, track_running_stats=False).double()


def frozen_statistics(block):
    block.denselayer2.norm2.track_running_stats = False


def uncounted(block):
    block.denselayer2.norm2.num_batches_tracked = None


def observed(block):
    block.denselayer1.dropout.register_full_backward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (parametrised, "denselayer2.conv1 is another ParametrizedConv2d than densepath's"),
        (replaced, "denselayer1.norm1 is another GroupNorm than densepath's"),
        (patched, "denselayer3 is another BottleneckLayer than densepath's"),
        (widened, "denselayer1.conv2 has another shape than densepath's"),
        (biased, "denselayer1.conv2 has a bias"),
        (forgetful, "denselayer2.norm2 has no running statistics"),
        (frozen_statistics, "denselayer2.norm2 has no running statistics"),
        (uncounted, "denselayer2.norm2 has no running statistics"),
        (observed, "denselayer1.dropout has hooks"),
    ],
)
def test_a_block_that_is_not_as_it_was_made_is_left_to_its_modules(change, reason):
    block = new_block()
    change(block)
    plain = copy.deepcopy(block)
    said = fused_by(DOUBLE, block)
    x = images(2, WIDTH, 5, 7)
    assert torch.equal(block(x), plain(x))
    assert len(said) == 1
    assert reason in said[0]


def test_a_block_that_went_to_another_device_is_left_to_its_modules():
    block = new_block().to("meta")
    said = fused_by(DOUBLE, block)
    assert block(images(2, WIDTH, 4, 4).to("meta")).device.type == "meta"
    assert "its input is on meta, and blocks are computed on cpu" in said[0]


def test_a_block_of_another_type_is_left_to_its_modules():
    block = new_block().float()
    said = fused_by(DOUBLE, block)
    assert block(images(2, WIDTH, 4, 4).float()).dtype == SINGLE
    assert "is in torch.float32, and blocks are computed in torch.float64" in said[0]


def test_hooks_on_all_modules_are_heard():
    block, names = new_block(), []
    said = fused_by(DOUBLE, block)
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, out: names.append(type(module).__name__)
    )
    try:
        block(images(2, WIDTH, 5, 7))
    finally:
        handle.remove()
    assert names.count("Conv2d") == 6
    assert "hooks on all modules" in said[0]


def test_what_the_modules_refuse_is_refused_in_their_words():
    block, transition = new_block(), new_transition()
    said = fused_by(DOUBLE, block, transition)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        block(images(1, WIDTH, 1, 1))
    with pytest.raises(RuntimeError, match="Output size is too small"):
        transition(images(3, WIDTH, 1, 5))
    with pytest.raises(RuntimeError, match="should contain 7 elements"):
        block(images(2, WIDTH + 1, 4, 4))
    narrow = new_block()
    narrow.denselayer2.norm1 = nn.BatchNorm2d(WIDTH).double()
    assert fused_by(DOUBLE, narrow) == []
    with pytest.raises(RuntimeError, match="should contain 10 elements"):
        narrow(images(2, WIDTH, 4, 4))
    assert block.eval()(images(0, WIDTH, 4, 4)).shape == (0, WIDTH + 12, 4, 4)
    assert [line for line in said if "another shape" not in line] == []


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_traced_or_exported_network_has_its_modules_steps():
    network = new_network(TINY)
    fused_by(SINGLE, network)
    x = torch.rand(2, 3, 8, 8)
    traced = torch.jit.trace(network, x, check_trace=False)
    assert str(traced.inlined_graph).count("aten::_convolution") == 10
    exported = torch.export.export(network, (x,))
    names = [str(node.target) for node in exported.graph.nodes]
    assert sum("conv2d" in name for name in names) == 10
    wanted = network(x)
    torch.testing.assert_close(traced(x), wanted)
    torch.testing.assert_close(exported.module()(x), wanted)


def test_a_copy_of_a_fused_network_is_as_good():
    network = used(new_network(TINY))
    fused_by(DOUBLE, network)
    copied = copy.deepcopy(network)
    fresh = new_network(TINY)
    assert network.state_dict().keys() == copied.state_dict().keys() == fresh.state_dict().keys()
    x = images(2, 3, 8, 8)
    assert_close(step_of(copied, x), step_of(network, x), 0.0)
    out = copied.features.denseblock1(images(2, 8, 4, 4))
    assert "FusedDenseBlock" in type(out.grad_fn).__name__


@pytest.mark.parametrize("build", [new_block, new_transition])
def test_without_a_gradient_nothing_is_kept(build):
    module = build().eval()
    plain = copy.deepcopy(module)
    fused_by(DOUBLE, module)
    x = images(2, WIDTH, 5, 7)
    with torch.no_grad():
        torch.testing.assert_close(module(x), plain(x))
    module.requires_grad_(False)
    assert module(x).grad_fn is None


@pytest.mark.parametrize("build", [new_block, new_transition])
def test_a_second_backward_pass_gives_the_same_and_a_second_derivative_is_refused(build):
    module = build()
    fused_by(DOUBLE, module)
    x = images(2, WIDTH, 5, 7).requires_grad_()
    out = module(x)
    inputs = (x, *module.parameters())
    first, second = (
        torch.autograd.grad(out.square().sum(), inputs, retain_graph=True) for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("change", ["weight", "output", "input"])
def test_a_change_in_place_before_the_backward_pass_is_noticed(change):
    block, transition = new_block(), new_transition()
    fused_by(DOUBLE, block, transition)
    maps = block(images(2, WIDTH, 5, 7))
    out = transition(maps[:, :WIDTH]) if change == "input" else maps
    with torch.no_grad():
        {"weight": block.denselayer2.conv2.weight, "output": out, "input": maps}[change].add_(1)
    with pytest.raises(RuntimeError, match=r"modified (by an )?inplace"):
        out.sum().backward()


@pytest.mark.parametrize("lower", lower_ways(), ids=lambda way: way.name)
@pytest.mark.parametrize("build", [new_block, lambda: new_block(0), new_transition])
def test_bfloat16_products_are_as_near_as_autocasts_own(build, lower):
    module = build()
    x = images(4, WIDTH, 9, 9)
    wanted = step_of_module(copy.deepcopy(module), x)
    plain, fused = copy.deepcopy(module).float(), module.float()
    said = fused_by(SINGLE, fused, lower=lower.build())
    errors = []
    for one in (plain, fused):
        with torch.autocast("cpu", torch.bfloat16):
            found = step_of_module(one, x.float())
        errors.append([float((a.double() - b).norm()) for a, b in zip(found, wanted, strict=True)])
    assert said == []
    for own, autocasts, exact in zip(errors[1], errors[0], wanted, strict=True):
        assert 0 < own <= 1.3 * autocasts + 1e-3 * float(exact.norm())


def step_of_module(module, x):
    """Output and all gradients."""
    x = x.requires_grad_()
    out = module(x)
    weights = images(*out.shape, seed=2).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), (x, *module.parameters()))]


def bytes_kept(module: nn.Module, x: torch.Tensor) -> int:
    """The memory that a forward pass keeps for the backward one, each piece counted once."""
    storages: dict[int, int] = {}
    parameters = {part.untyped_storage().data_ptr() for part in module.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = module(x)
    assert out.requires_grad
    return sum(storages.values())


def test_a_fused_block_keeps_a_third_of_what_its_modules_keep_and_the_same_for_each_layer():
    kept = {}
    for layers in (12, 24, 36):
        for way in ("plain", "fused"):
            block = new_block(4, layers=layers)
            if way == "fused":
                fused_by(DOUBLE, block)
            kept[way, layers] = bytes_kept(block, images(2, WIDTH, 16, 16))
    assert kept["fused", 12] <= kept["plain", 12] / 3
    first, second = (kept["fused", n + 12] - kept["fused", n] for n in (12, 24))
    assert second == pytest.approx(first, rel=0.01)
    assert kept["plain", 24] >= 2.5 * kept["plain", 12]


def test_a_fused_block_computes_cheap_maps_again_to_the_same_bits(monkeypatch):
    found = []
    for cheap in (0, 2):
        monkeypatch.setattr("densepath.training.blocks.dense.CHEAP", cheap)
        block = new_block(4, layers=6).float()
        fused_by(SINGLE, block)
        x = images(2, WIDTH, 9, 7).float().requires_grad_()
        out = block(x)
        weights = images(*out.shape, seed=2).float()
        found.append(torch.autograd.grad((out * weights).sum(), (x, *block.parameters())))
        found.append([torch.tensor(bytes_kept(block, x))])
    assert all(torch.equal(one, other) for one, other in zip(found[0], found[2], strict=True))
    assert found[3][0] < found[1][0]


@pytest.mark.parametrize("build", [new_block, new_transition])
def test_a_backward_pass_within_autocast_is_that_outside(build):
    module = build().float()
    fused_by(SINGLE, module)
    x = images(2, WIDTH, 5, 7).float()
    out = module(x)
    inputs = tuple(module.parameters())
    wanted = torch.autograd.grad(out.sum(), inputs, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(out.sum(), inputs)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))

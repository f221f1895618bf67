"""The exported form of a network computes what the network does, whatever steps made it."""

import itertools

import pytest
import torch

from densepath.errors import UnknownNameError
from densepath.exporting.rewrite import ALL_STEPS, STEPS, rewrite, split_outputs
from densepath.models.build import build_model

MODELS = ("densenet_bc_22_12", "densenet_40_12", "densenet121", "dpn68")
CHOICES = [
    *(steps for n in range(len(STEPS) + 1) for steps in itertools.combinations(STEPS, n)),
    ("depthwise",),
    ALL_STEPS,
]


def with_lived_in_norms(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Statistics, scales and shifts as training leaves them: none of them 0 or 1."""
    made = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, -0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=made)
    return model.eval()


@pytest.mark.parametrize("steps", CHOICES, ids="+".join)
@pytest.mark.parametrize("name", MODELS)
def test_each_choice_of_steps_computes_the_same_logits(name: str, steps: tuple) -> None:
    model = with_lived_in_norms(build_model(name, num_classes=7))
    side = 32 if name.startswith("densenet_") else 70
    images = torch.randn(2, 3, side, side + 3, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = model(images), rewrite(model, steps)(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_the_network_stays_as_it_was() -> None:
    model = with_lived_in_norms(build_model("densenet_bc_22_12", num_classes=3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        rewrite(model)(torch.randn(1, 3, 32, 32))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert any(parameter.requires_grad for parameter in model.features.conv0.parameters())


def test_a_folded_network_keeps_only_the_norms_in_front_of_a_relu() -> None:
    model = build_model("densenet121").eval()
    norms = [m for m in rewrite(model).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    # 58 layers, 3 transitions and the last one; facts of the architecture, table 1.
    assert len(norms) == 58 + 3 + 1


def test_a_depthwise_network_has_no_batchnorm_and_leaves_the_models_own() -> None:
    model = build_model("dpn68").eval()
    before = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    rewritten = rewrite(model, ALL_STEPS)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in rewritten.modules())
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) == before


def test_the_pooled_transition_does_a_quarter_of_the_work() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = build_model("densenet121").eval()
    images = torch.zeros(1, 3, 224, 224)
    counts = []
    for steps in ((), ("pool_first",)):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            rewrite(model, steps)(images)
        counts.append(counter.get_total_flops() / 2)
    # Three transitions of 56², 28², 14² positions: 256→128, 512→256, 1024→512 channels.
    whole = 56**2 * 256 * 128 + 28**2 * 512 * 256 + 14**2 * 1024 * 512
    assert counts[0] - counts[1] == pytest.approx(0.75 * whole)


def test_split_outputs_gives_the_two_parts_of_the_convolution() -> None:
    conv = torch.nn.Conv2d(4, 10, 3, stride=2, padding=1)
    images = torch.randn(2, 4, 9, 9)
    parts = torch.cat([half(images) for half in split_outputs(conv, 3)], 1)
    torch.testing.assert_close(parts, conv(images))


def test_an_unknown_step_is_named_with_the_choices() -> None:
    model = build_model("densenet_bc_22_12").eval()
    with pytest.raises(UnknownNameError, match=r"unknown step 'fuse'\."):
        rewrite(model, ("fuse",))  # type: ignore[arg-type]

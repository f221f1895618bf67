"""The parts of `gpu_check.py` that train: losses against the CPU's, resuming, images a second."""

from __future__ import annotations

import io
import time
from statistics import median

import torch
from gpu_check_parts import Form, Memory, Say, Sizes, guarded, halving, judge, relative, release
from training_torch import prepare
from training_worker import Step

# The first steps at a low rate, so that what float32 rounds away does not grow from step to step.
STEPS, LOW_RATE = 3, 0.002
# How far the losses of these steps may be from those expected, relative.
BOUNDS = {"float32": (1e-4, 0.005, 0.02), "bfloat16": (0.03, 0.06, 0.12)}
RESUMED_STEPS, SAME = 3, 1e-6
LEAST_STEPS = 3
PLAIN = Form("plain")
PORTABLE = Form("portable block", channels_last=True, portable=True)
BFLOAT16 = Form("bfloat16", "bfloat16", channels_last=True)
CHECKED = (
    PLAIN,
    Form("channels last", channels_last=True),
    PORTABLE,
    BFLOAT16,
    Form("portable block, bfloat16", "bfloat16", channels_last=True, portable=True),
)
TIMED = (
    *CHECKED,
    Form("timm", timm="default"),
    Form("timm, bfloat16", "bfloat16", channels_last=True, timm="default"),
    Form("timm, memory-efficient", timm="efficient"),
    Form("timm, channels last", channels_last=True, timm="default"),
)
COMPILED = Form("compiled, bfloat16", "bfloat16", channels_last=True, compiled=True)
TIMM_COMPILED = Form("timm, compiled, bfloat16", "bfloat16", True, compiled=True, timm="default")


def check_losses(model: str, sizes: Sizes, say: Say) -> None:
    """The first losses of each form on the device, against those of the CPU in float32."""
    torch.backends.cudnn.allow_tf32 = False
    expected = first_losses(PLAIN, model, sizes.few, sizes.side(model), "cpu")
    say("on the CPU", {"state": "ok", "losses": expected})

    def compare(form: Form) -> dict:
        losses = first_losses(form, model, sizes.few, sizes.side(model), sizes.device)
        return {**judge(relative(losses, expected), BOUNDS[form.precision]), "losses": losses}

    for form in CHECKED:
        guarded(say, form.name, lambda form=form: compare(form))


def first_losses(form: Form, model: str, batch: int, side: int, device: str) -> list[float]:
    """The losses of `STEPS` steps of a new network."""
    step = form.begin(model, batch, side, device, lr=LOW_RATE)
    return [step() for _ in range(STEPS)]


def check_resume(model: str, sizes: Sizes, say: Say) -> None:
    """Losses after saving and loading, against those of a training that went on."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    for form in (PLAIN, PORTABLE):
        guarded(say, form.name, lambda form=form: resume(form, model, sizes))


def resume(form: Form, model: str, sizes: Sizes) -> dict:
    """Both losses, how far they are apart, and whether they are the same bits."""
    network = form.network(model, sizes.device)
    optimizer = prepare(network, channels_last=form.channels_last, lr=LOW_RATE)
    step = form.step(network, optimizer, model, sizes.few, sizes.side(model))
    for _ in range(RESUMED_STEPS):
        step()
    saved = io.BytesIO()
    torch.save([network.state_dict(), optimizer.state_dict()], saved)
    expected = [step() for _ in range(RESUMED_STEPS)]
    saved.seek(0)
    network = form.network(model, sizes.device)
    optimizer = prepare(network, channels_last=form.channels_last, lr=LOW_RATE)
    held = torch.load(saved, map_location=sizes.device, weights_only=True)
    for one, state in zip((network, optimizer), held, strict=True):
        one.load_state_dict(state)
    step = form.step(network, optimizer, model, sizes.few, sizes.side(model))
    losses = [step() for _ in range(RESUMED_STEPS)]
    judged = judge(relative(losses, expected), (SAME,) * RESUMED_STEPS)
    return {**judged, "losses": losses, "same_bits": losses == expected}


def time_training(model: str, sizes: Sizes, say: Say) -> None:
    """Images a second and memory of a step of each form, timm's too."""
    torch.backends.cudnn.benchmark = True
    for form in TIMED:
        guarded(say, form.name, lambda form=form: time_form(form, model, sizes))


def time_form(form: Form, model: str, sizes: Sizes) -> dict:
    """Images a second and memory of a form."""
    return halving(lambda batch: time_at(form, model, batch, sizes), sizes.many)


def time_at(form: Form, model: str, batch: int, sizes: Sizes) -> dict:
    """The same at this batch size; the first losses are those of the warm-up."""
    step = form.begin(model, batch, sizes.side(model), sizes.device, lr=LOW_RATE)
    memory, start = Memory(sizes.device), time.perf_counter()
    losses = [step()]
    first = time.perf_counter() - start
    losses += [step() for _ in range(STEPS - 1)]
    times = time_for(step, sizes.seconds)
    return {
        "batch": batch,
        "images_per_second": round(batch / median(times), 2),
        "step_ms": round(median(times) * 1e3, 2),
        "steps": len(times),
        "memory_mb": memory.growth_mb(),
        "first_s": round(first, 2),
        "losses": losses,
    }


def time_for(step: Step, seconds: float) -> list[float]:
    """The seconds of each step, for so many seconds."""
    times: list[float] = []
    while sum(times) < seconds or len(times) < LEAST_STEPS:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def time_compiled(model: str, sizes: Sizes, say: Say) -> None:
    """A compiled step, whose first losses are held against those of the same step not compiled."""
    torch.backends.cudnn.benchmark = True

    def ours() -> dict:
        found = time_form(COMPILED, model, sizes)
        release()
        side = sizes.side(model)
        expected = first_losses(BFLOAT16, model, found["batch"], side, sizes.device)
        return {**found, **judge(relative(found["losses"], expected), BOUNDS["bfloat16"])}

    guarded(say, COMPILED.name, ours)


def time_timm_compiled(model: str, sizes: Sizes, say: Say) -> None:
    """The same of timm's network, whose losses are its own."""
    torch.backends.cudnn.benchmark = True
    guarded(say, TIMM_COMPILED.name, lambda: time_form(TIMM_COMPILED, model, sizes))

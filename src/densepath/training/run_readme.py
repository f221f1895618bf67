"""The README of a run: what was trained, how well, and how to use or repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from densepath.files import write_text
from densepath.training.epochs import EpochRow
from densepath.training.images import Memory, RunImages, kept_test
from densepath.training.monitor import describe_end, is_exhausted, monitored
from densepath.training.recipe import Recipe
from densepath.training.state import Position
from densepath.wording import counted, first_of, in_markdown, percent

LABELS_SHOWN = 20


def write_readme(
    folder: Path,
    recipe: Recipe,
    position: Position,
    images: RunImages,
    memory: Memory | None,
    *,
    about: str,
) -> None:
    """Write what `position` has reached into `README.md` of the run folder.

    `about` is what the step says of itself.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(folder / "README.md", _text(recipe, position, images, memory, about))


def _text(
    recipe: Recipe, position: Position, images: RunImages, memory: Memory | None, about: str
) -> str:
    """The README as Markdown."""
    last = position.rows[-1]
    labels = images.train.class_names
    assert position.best is not None
    planned, done = counted(recipe.epochs, "epoch"), f"{counted(last.epoch, 'epoch')} done"
    state = "finished" if last.epoch == recipe.epochs else done
    if last.epoch < recipe.epochs and is_exhausted(recipe, position):
        state = describe_end(recipe, position)
    score = "micro-F1" if last.multi_label else "top-1"
    shown = first_of(list(map(in_markdown, labels)), LABELS_SHOWN)
    seen = {} if memory is None else memory.seen
    start = f"the weights {recipe.model.weights}" if recipe.model.weights else "new weights"
    average = "; the kept weights are the moving average" if recipe.ema.decay else ""
    return f"""# {recipe.model.name} on {in_markdown(Path(recipe.data.source).name)}

{planned} ({state}), batches of {recipe.data.batch_size}, {recipe.optimizer.name} with
a peak learning rate of {recipe.optimizer.lr:g} ({recipe.schedule.name}), from {start}{average}.
Time so far: {_duration(position.seconds)}.
{about}
| | epoch | {score} | loss |
|---|---|---|---|
| best | {position.best_epoch} | {percent(position.best, 2)} | {position.best_row.loss:.4f} |
| last | {last.epoch} | {percent(last.top1, 2)} | {last.loss:.4f} |

{_chosen(recipe)}{_judged(images, last, seen)}{_left_out(images, last)}

![Learning curves](curves.png)

## The images

```text
{memory.text if memory is not None else images.train.description}
```

Classes ({len(labels)}): {shown}

## Use it

The commands run from inside this folder.

```
densepath evaluate .                 {_evaluated(images)}
densepath predict . IMAGE...
densepath train .                    goes on where it stopped
densepath train recipe.yaml --output NEW_FOLDER      repeats it
```

`metrics.csv` has a row an epoch: `train_loss` and `train_accuracy` are means over the epoch, with
the augmentation and while the weights moved; `loss`, `top1` and `top5` are those of the
evaluation. `images.npz` has the name, label and fingerprint of every image that was trained or
judged on, `environment.json` versions and hardware, `recipe.yaml` every setting.
"""


def _chosen(recipe: Recipe) -> str:
    """By which figure the best epoch was chosen, where it is not the usual one."""
    if recipe.checkpoint.monitor is None:
        return ""
    return f"The best epoch is that of the best `{monitored(recipe)}` (`checkpoint.monitor`).\n"


def _judged(images: RunImages, last: EpochRow, seen: Mapping[str, int]) -> str:
    """What the scores were measured on, and what they are worth.

    Args:
        images: of the run.
        last: the row of the newest epoch.
        seen: by split, how many of its images were trained on.
    """
    name, count = images.judged_on, f"{len(images.judged):,}"
    if last.skipped:
        count = f"{last.count:,} readable ones of the {count}"
    measured = f"Measured on the {count} {name} images ({images.splits.rules[name]})."
    if known := seen.get(name, 0):
        measured += (
            f"\n**{known:,} of them {'was' if known == 1 else 'were'} trained on, here or for the "
            "first weights: this score is not about new images.**"
        )
    if name == "test":
        return (
            f"{measured} The best epoch was chosen on these test images, so its score is no\n"
            "figure of new images; the last epoch's was not chosen by them. No images are left "
            "that had no part in\nthe training: judge it on others."
        )
    chosen = f"{measured}\nThe best epoch was chosen on them, so its score leans upwards; "
    test = kept_test(images)
    if test is not None and (known := seen.get("test", 0)):
        return (
            f"{chosen}{known:,} of the {len(test):,} test images\n"
            f"{'was' if known == 1 else 'were'} trained on: judge it on others."
        )
    if test is not None:
        return (
            f"{chosen}the {len(test):,} test images were\nneither trained on nor "
            "chosen by: `densepath evaluate .` measures on those."
        )
    return f"{chosen}judge it on images that were\nnot used here."


def _left_out(images: RunImages, last: EpochRow) -> str:
    """A paragraph on images that the newest epoch could not use; else nothing."""
    parts = (
        (last.train_skipped, len(images.train), "training"),
        (last.skipped, len(images.judged), images.judged_on),
    )
    said = [f"{left:,} of {count:,} {name} images" for left, count, name in parts if left]
    if not said:
        return ""
    return f"""

**Left out in epoch {last.epoch}**: {" and ".join(said)}; `train.log` names those that could not
be read."""


def _evaluated(images: RunImages) -> str:
    """What `densepath evaluate` of this folder measures on."""
    held_back = kept_test(images) is not None
    return "measures it on the test images" if held_back else f"on its {images.judged_on} images"


def _duration(seconds: float) -> str:
    """`1 h 02 min`, or `45 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 3600} h {whole // 60 % 60:02d} min"
        if whole >= 3600
        else (f"{whole // 60} min {whole % 60:02d} s")
    )

"""The SUBJECT of a verb becomes a Checkpoint: published name, file, run folder or bundle."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from densepath.bundle.bundle import Bundle, bundle_around, is_bundle
from densepath.errors import BundleError, CheckpointError, UnknownNameError, UsageError
from densepath.files import missing, nearest_paths
from densepath.models.catalogue import CATALOGUE
from densepath.notes import say_once
from densepath.weights.backbone import check_answers
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.checkpoint_file import is_checkpoint
from densepath.weights.fetch import fetch_published
from densepath.weights.import_file import import_weights
from densepath.weights.match import check_finite
from densepath.weights.origins import find_origin, is_weights
from densepath.weights.published import PUBLISHED, Published, find_published, published_for
from densepath.weights.trained_on import RECIPE_NAME
from densepath.wording import counted

RUN_FILES = ("best.safetensors", "last.safetensors")
# Checkpoints of our own that come with the package, as `cifar10/densenet_bc_100_12`.
SHIPPED = Path(__file__).with_name("shipped")
KINDS = (
    "A subject is a run folder, a checkpoint file, a bundle or the name of published weights, as "
    "timm/densenet121.ra_in1k"
)
# What an export writes beside its manifest.
GRAPHS = (".onnx", ".xml", ".bin", ".pt2", ".pte", ".tflite")
RUNS = Path("runs")
_SHOWN = 5


def open_checkpoint(
    subject: str | Path | Checkpoint,
    *,
    weights: str | Path | None = None,
    to_train: bool = False,
) -> Checkpoint:
    """The checkpoint that `subject` names; one that is open already as it is.

    `subject` is a checkpoint file, a run folder (its best checkpoint, else its last), a bundle
    with the format `torch`, the name of published weights (fetched when they are not in the
    cache) or of weights that come with the package; or a file or folder of another system, which
    is then imported, with what `import_weights` would guess said. `weights` is the file of its
    tensors, as `import_weights` takes it. One without a classifier is given only `to_train` on it.

    Raises:
        BundleError: the bundle has no such format, or was changed; a file in one.
        CheckpointError: no such file or folder, or it is no checkpoint.
        UsageError: a bare model name, which has no weights; or a run folder here that is called
            like published weights; or a backbone, where answers are wanted.
        UnknownNameError: neither a file nor a known name.
        WeightsUnavailableError: published weights that cannot be fetched.
        WeightsError: published weights whose file is damaged; weights that are no numbers; a file
            of another system that is no DenseNet or DPN.
    """
    if isinstance(subject, Checkpoint):
        checkpoint, name = subject, "checkpoint"
    elif weights is not None:
        checkpoint, name = _import(Path(subject), Path(weights)), str(subject)
    else:
        found, name = locate(subject), str(subject)
        if isinstance(found, Published):
            checkpoint = open_published(found)
        elif is_foreign(found):
            checkpoint = _import(found)
        else:
            checkpoint = Checkpoint.load(found)
    check_finite(checkpoint.tensors, name)
    if not to_train:
        check_answers(checkpoint, name)
    return checkpoint


def locate(subject: str | Path) -> Path | Published:
    """The checkpoint's file, or the published weights, that `subject` names; nothing is read.

    Raises:
        BundleError, CheckpointError, UsageError, UnknownNameError: as `open_checkpoint`.
    """
    if not isinstance(subject, str | os.PathLike):
        raise UsageError(f"the subject is a {type(subject).__name__}; name it by a path or name.")
    path, name = Path(subject), os.fspath(subject)
    # In `os.path` a name that is too long for a file is none, and no error.
    if os.path.isdir(path) and not _stands_for_weights(subject, path):  # noqa: PTH112
        return checkpoint_in(path)
    if os.path.isfile(path):  # noqa: PTH113
        return _checkpoint_file(path)
    if name in shipped_names():
        return SHIPPED / f"{name}.safetensors"
    if name.lower() in CATALOGUE:
        raise UsageError(f"{name} is a model without weights. {_cure(name.lower())}")
    if name.lower() in map(str.lower, PUBLISHED):
        return find_published(name)
    raise _nothing(path, name)


def _stands_for_weights(subject: str | Path, folder: Path) -> bool:
    """Whether a name that is also a folder here means weights that are published or shipped.

    It does when the folder has no checkpoint.

    Raises:
        UsageError: the folder has one.
    """
    name = str(subject)
    known = name in shipped_names() or name.lower() in map(str.lower, PUBLISHED)
    if isinstance(subject, Path) or not known:
        return False
    if not is_bundle(folder) and not any((folder / file).is_file() for file in RUN_FILES):
        return True
    raise UsageError(
        f"`{name}` is a folder with a checkpoint here, and also the name of published weights. "
        f"Name the folder as ./{name}; for the other, start in another folder."
    )


def open_published(row: Published) -> Checkpoint:
    """The checkpoint of published weights; see `fetch_published` for what it raises."""
    return import_weights(fetch_published(row), row.model, source=row.name)


def is_foreign(path: Path) -> bool:
    """Whether a file or folder is of another system, and no damaged checkpoint of ours.

    A `.safetensors` file is a checkpoint here, whoever wrote it: `densepath import` makes it one.
    """
    if path.is_file() and is_checkpoint(path):
        return False
    return is_weights(path) and find_origin(path).name != "safetensors"


def _import(path: Path, weights: Path | None = None) -> Checkpoint:
    """The checkpoint of another system's file, with what was found and guessed said."""
    checkpoint = import_weights(path, weights=weights, say=say_once)
    about = checkpoint.provenance
    classes = counted(checkpoint.num_classes, "class")
    say_once(f"{path}: {about['kind']}, {checkpoint.spec.name}, {classes}.")
    if about["preprocess"].startswith("guessed"):
        say_once(
            f"{path}: preprocessing {about['preprocess']}: {checkpoint.preprocess.to_text()}. "
            "`densepath import` takes other values."
        )
    return checkpoint


def shipped_names() -> list[str]:
    """The names of the weights that come with the package."""
    files = sorted(SHIPPED.rglob("*.safetensors"))
    return [file.relative_to(SHIPPED).with_suffix("").as_posix() for file in files]


def _cure(model: str) -> str:
    """What to name instead of a bare model."""
    names = [name for name in shipped_names() if name.endswith(f"/{model}")]
    names += published_for(model)
    known = f"Name its published weights: {', '.join(names)}; or a" if names else "Name a"
    return f"{known} checkpoint file or a run folder (`densepath train {model}` makes one)."


def _nothing(path: Path, name: str) -> CheckpointError | UnknownNameError:
    """The error for what is neither there nor known: as a path, or as a name, as it is written."""
    known = [*shipped_names(), *PUBLISHED]
    publishers = {row.partition("/")[0].lower() for row in known}
    published = "/" in name and name.partition("/")[0].lower() in publishers
    if not published and (len(path.parts) > 1 or path.suffix or name.startswith("~")):
        return CheckpointError(missing(path, "file or folder"))
    by_lower = {row.lower(): row for row in [*known, *CATALOGUE]}
    tails = {row.rpartition("/")[2].lower(): row for row in known}
    near = [] if published else [*nearest_paths(RUNS / name), *nearest_paths(name)]
    near += [row for row in known if row.lower().startswith(name.lower())]
    for rows in (by_lower, tails):
        near += [rows[one] for one in difflib.get_close_matches(name.lower(), rows, n=3)]
    return UnknownNameError("subject", name, known, near=list(dict.fromkeys(near))[:3], cure=KINDS)


def _checkpoint_file(path: Path) -> Path:
    """The file, if it may be a checkpoint.

    Raises:
        BundleError: it is another file of a bundle.
        CheckpointError: it is another file of a run folder, or a graph.
    """
    folder = path.parent
    if path.suffix == ".safetensors":
        return path
    if (part := bundle_around(path)) is not None:
        raise BundleError(f"{path} is a file of the bundle {part}: name that folder.")
    if _in_run_folder(folder) is not None:
        raise CheckpointError(f"{path} is a file of the run folder {folder}: name that folder.")
    if path.suffix in GRAPHS:
        raise CheckpointError(
            f"{path} is an exported graph without its bundle, the folder with manifest.json that "
            "`densepath export` writes. Name that folder, or the checkpoint."
        )
    return path


def _in_run_folder(folder: Path) -> Path | None:
    """The best, else the last checkpoint of a run folder."""
    files = (folder / name for name in RUN_FILES)
    return next((file for file in files if file.is_file()), None)


def checkpoint_in(folder: Path) -> Path:
    """The best, else the last checkpoint of a run folder; a bundle's, once it is verified.

    A folder of another system, as with an inference model of Paddle, is given as it is.

    Raises:
        CheckpointError: the folder has neither, as a run before the end of its first epoch.
        BundleError: the bundle has none, or it was changed.
    """
    if is_bundle(folder):
        return Bundle.open(folder, verify="torch").path_of("torch")
    found = _in_run_folder(folder)
    if found is not None:
        return found
    if is_weights(folder):
        return folder
    if (folder / RECIPE_NAME).is_file():
        raise CheckpointError(
            f"the run folder {folder} has no checkpoint yet: its training stopped before the end "
            f"of its first epoch. `densepath train {folder}` goes on with it."
        )
    inside = subjects_in(folder)
    there = f" In it are {', '.join(inside)}: name one." if inside else ""
    raise CheckpointError(
        f"{folder} is not a run folder: it has neither {' nor '.join(RUN_FILES)}.{there}"
    )


def subjects_in(folder: Path) -> list[str]:
    """The first run folders, bundles and checkpoints that stand in a folder."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    found = [
        str(entry)
        for entry in entries
        if is_bundle(entry) or _in_run_folder(entry) or entry.suffix == ".safetensors"
    ]
    return [*found[:_SHOWN], f"{len(found) - _SHOWN} more"] if found[_SHOWN:] else found

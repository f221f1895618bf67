"""The SUBJECT of a verb becomes a Checkpoint: published name, checkpoint file or run folder."""

from __future__ import annotations

from pathlib import Path

from densepath.bundle.bundle import Bundle, is_bundle
from densepath.errors import CheckpointError, UnknownNameError, UsageError
from densepath.models.catalogue import CATALOGUE
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.fetch import fetch_published
from densepath.weights.import_file import import_weights
from densepath.weights.published import PUBLISHED, Published, find_published, published_for

RUN_FILES = ("best.safetensors", "last.safetensors")
# Checkpoints of our own that come with the package, as `cifar10/densenet_bc_100_12`.
SHIPPED = Path(__file__).with_name("shipped")


def open_checkpoint(subject: str | Path) -> Checkpoint:
    """The checkpoint that `subject` names.

    `subject` is a checkpoint file, a run folder (its best checkpoint, else its last), a bundle
    with the format `torch`, the name of published weights (fetched when they are not in the
    cache) or of weights that come with the package.

    Raises:
        BundleError: the bundle has no such format, or was changed.
        CheckpointError: the file or folder is no checkpoint.
        UsageError: a bare model name, which has no weights; or a run folder here that is called
            like published weights.
        UnknownNameError: neither a file nor a known name.
        WeightsUnavailableError: published weights that cannot be fetched.
        WeightsError: published weights whose file is damaged.
    """
    path, name = Path(subject), str(subject)
    if path.is_dir() and not _stands_for_weights(subject, path):
        return Checkpoint.load(checkpoint_in(path))
    if path.is_file() or path.suffix == ".safetensors":
        return Checkpoint.load(path)
    if name in shipped_names():
        return Checkpoint.load(SHIPPED / f"{name}.safetensors")
    if name.lower() in CATALOGUE:
        raise UsageError(f"{name} is a model without weights. {_cure(name.lower())}")
    if name.lower() in map(str.lower, PUBLISHED):
        return open_published(find_published(name))
    raise UnknownNameError("subject", name, [*shipped_names(), *PUBLISHED])


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


def checkpoint_in(folder: Path) -> Path:
    """The best, else the last checkpoint of a run folder; a bundle's, once it is verified.

    Raises:
        CheckpointError: the folder has neither.
        BundleError: the bundle has none, or it was changed.
    """
    if is_bundle(folder):
        return Bundle.open(folder, verify="torch").path_of("torch")
    for name in RUN_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} is not a run folder: it has neither {' nor '.join(RUN_FILES)}")

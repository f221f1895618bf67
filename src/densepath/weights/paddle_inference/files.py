"""Which files make an inference model: the program, its tensors, and what is said beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from densepath.errors import WeightsError
from densepath.files import missing
from densepath.weights.paddle_inference.pdiparams import is_pdiparams
from densepath.weights.paddle_inference.pdmodel import is_pdmodel
from densepath.weights.paddle_inference.pir import is_pir

_START_BYTES = 512
# Programs by their names, the form of Paddle 3 first; `__model__` is that of Paddle 1.
_PROGRAMS = (".json", ".pdmodel")
_OLD_PROGRAM, _OLD_TENSORS = "__model__", "__params__"
_TENSORS = ".pdiparams"
_CONFIGS = ("inference.yml", "inference.yaml")


@dataclass(frozen=True)
class ModelFiles:
    """The files of one inference model.

    Attributes:
        program: the `.pdmodel` or `.json` file.
        tensors: the `.pdiparams` file.
        config: `inference.yml`; None where there is none.
    """

    program: Path
    tensors: Path
    config: Path | None


def start_of(path: Path) -> bytes:
    """The first bytes of a file; none of what is no file or cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_START_BYTES)
    except OSError:
        return b""


def is_part(path: Path, start: bytes) -> bool:
    """Whether a file is a part of an inference model, or a folder holds one."""
    if path.is_dir():
        return bool(_programs_in(path))
    return is_pir(start) or is_pdmodel(start) or is_pdiparams(start)


def find_parts(path: Path, tensors: Path | None) -> ModelFiles:
    """All files of the model that `path`, one of its files or its folder, is of.

    Args:
        path: as the user gave it.
        tensors: the file of the tensors, where the user names it.

    Raises:
        WeightsError: a file is missing, or the folder has several models.
    """
    if path.is_file() and is_pdiparams(start_of(path)):
        if tensors is not None and is_pdiparams(start_of(tensors)):
            raise WeightsError(f"{path} and {tensors} are both files of tensors: name the program.")
        return _whole(tensors or _program_of(path), path)
    program = _program_in(path) if path.is_dir() else path
    return _whole(program, tensors or _tensors_of(program))


def _whole(program: Path, tensors: Path) -> ModelFiles:
    """The parts, once both files are there."""
    for path in (program, tensors):
        if not path.is_file():
            raise WeightsError(missing(path))
    configs = (program.parent / name for name in _CONFIGS)
    return ModelFiles(program, tensors, next((one for one in configs if one.is_file()), None))


def _programs_in(folder: Path) -> list[Path]:
    """The programs of a folder, of two forms of one model the later."""
    try:
        files = sorted(folder.iterdir())
    except OSError:
        return []
    found = {
        file.stem: file
        for ending in reversed(_PROGRAMS)
        for file in files
        if file.suffix == ending and file.is_file() and _is_program(file)
    }
    old = folder / _OLD_PROGRAM
    return list(found.values()) or ([old] if old.is_file() and _is_program(old) else [])


def _is_program(path: Path) -> bool:
    """Whether a file is a program, by its first bytes."""
    start = start_of(path)
    return is_pir(start) or is_pdmodel(start)


def _program_in(folder: Path) -> Path:
    """The one program of a folder, `inference` of several.

    Raises:
        WeightsError: there are several models.
    """
    programs = _programs_in(folder)
    named = [one for one in programs if one.stem == "inference"]
    if len(programs) > 1 and not named:
        names = ", ".join(one.name for one in programs)
        raise WeightsError(f"{folder} holds several models: {names}. Name the file of one.")
    return (named or programs)[0]


def _tensors_of(program: Path) -> Path:
    """The file of tensors that belongs to a program by its name.

    Raises:
        WeightsError: there is none.
    """
    beside = program.with_name(
        _OLD_TENSORS if program.name == _OLD_PROGRAM else f"{program.stem}{_TENSORS}"
    )
    if beside.is_file():
        return beside
    raise WeightsError(
        f"{program} is the program alone; its tensors, {beside.name}, are not beside it. Name "
        "that file: `densepath import`, convert and quantize have --weights for it."
    )


def _program_of(tensors: Path) -> Path:
    """The program that belongs to a file of tensors by its name.

    Raises:
        WeightsError: there is none.
    """
    names = [f"{tensors.stem}{ending}" for ending in _PROGRAMS]
    if tensors.name == _OLD_TENSORS:
        names = [_OLD_PROGRAM]
    for name in names:
        beside = tensors.with_name(name)
        if beside.is_file() and _is_program(beside):
            return beside
    raise WeightsError(
        f"{tensors} holds the tensors alone; its program, {' or '.join(names)}, is not beside it. "
        f"Name the program, with --weights {tensors.name}. If paddle.save wrote this file, save it "
        "again: paddle.save(layer.state_dict(), ...)."
    )

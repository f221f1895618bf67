"""The package's surface: import direction, laziness, sorted public names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import densepath

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "matplotlib", "sklearn", "torchmetrics", "huggingface_hub", "pydantic")


def heavy_modules_after(statement: str) -> list[str]:
    code = f"{statement}; import sys; print(*[m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return run.stdout.split()


def test_imports_point_down_the_line_only():
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


def test_importing_the_package_imports_nothing_heavy():
    assert heavy_modules_after("import densepath") == []


def test_building_the_command_line_imports_nothing_heavy():
    assert heavy_modules_after("import densepath.cli.app") == []


def test_names_and_tables_of_models_import_nothing_heavy():
    statement = "import densepath.models.catalogue, densepath.images.preprocess"
    assert heavy_modules_after(statement) == []


def test_reading_an_image_imports_nothing_heavy():
    assert heavy_modules_after("import densepath.images.decode, densepath.predict.answers") == []


def test_the_public_names_are_sorted_and_all_of_them_load():
    assert densepath.__all__ == sorted(densepath.__all__)
    assert dir(densepath) == densepath.__all__
    for name in densepath.__all__:
        assert getattr(densepath, name) is not None

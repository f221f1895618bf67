"""Fills the generated parts of README.md and docs/*.md: `python docs/generate.py [--check]`.

A generated part stands between `<!-- KIND: NAME -->` and `<!-- end -->`. Kinds: `options` (the
arguments and options of a verb, from the command line itself) and `table` (`extras`,
`formats`, `models`, `origins`, `published`, `recipe`, `recipes`, `runtimes`).
`--check` writes nothing and exits 1 when a page is not up to date.
"""

from __future__ import annotations

import enum
import inspect
import re
import shlex
import sys
import tomllib
import typing
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).parents[1]
NONE = type(None)
PART = re.compile(r"(<!-- (options|table): ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Regenerates every page, or with `--check` names those that differ."""
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        fresh = PART.sub(_fill, text)
        if fresh != text:
            stale.append(page.relative_to(ROOT))
            if "--check" not in sys.argv:
                page.write_text(fresh, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"not up to date: {', '.join(map(str, stale))}; run `python docs/generate.py`")


def _fill(match: re.Match[str]) -> str:
    """The generated part with its content made anew."""
    opening, kind, name, closing = match.groups()
    content = options_table(name) if kind == "options" else TABLES[name]()
    return f"{opening}{content}{closing}"


def options_table(verb: str) -> str:
    """A verb's arguments and options as a Markdown table."""
    from densepath.cli.app import app

    verbs = {command.name: command.callback for command in app.registered_commands}
    for group in app.registered_groups:  # `npu compile` is called npu_compile here
        for command in group.typer_instance.registered_commands:
            named = command.name or command.callback.__name__
            verbs[f"{group.name}_{named}"] = command.callback
    if verb not in verbs:
        sys.exit(f"a page names the verb {verb!r}; the verbs are {', '.join(map(str, verbs))}")
    rows = ["| option | value | default | meaning |", "|---|---|---|---|"]
    hints = typing.get_type_hints(verbs[verb], include_extras=True)
    for name, parameter in inspect.signature(verbs[verb]).parameters.items():
        cells = _cells(name, hints[name], parameter.default)
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _cells(name: str, hint: Any, default: Any) -> tuple[str, str, str, str]:
    """Name, kind of value, default and meaning of one `Annotated` parameter of a verb."""
    kind, info = typing.get_args(hint)
    # Inside Annotated, Typer keeps the first name given in `default`.
    given = [info.default, *(info.param_decls or ())]
    named = [d for d in given if isinstance(d, str) and d.startswith("-")]
    if isinstance(info, typer.models.ArgumentInfo):
        shown = name.upper()
    else:
        shown = ", ".join(f"`{n}`" for n in named or [f"--{name.replace('_', '-')}"])
    if default is inspect.Parameter.empty:
        said = "required"
    else:
        said = "" if default in (None, False, ()) else f"`{getattr(default, 'value', default)}`"
    return shown, _value_kind(kind), said, _one_line(info.help or "")


def _value_kind(kind: Any) -> str:
    """`integer`, `path`, the choices of an enumeration; nothing for a switch."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " \\| ".join(str(member.value) for member in kind)
    origin, inner = typing.get_origin(kind), [a for a in typing.get_args(kind) if a is not NONE]
    if origin is typing.Literal:
        return " \\| ".join(map(str, inner))
    if origin is list:
        return f"{_value_kind(inner[0])}, several"
    if inner:
        return _value_kind(inner[0])
    return {bool: "", int: "integer", float: "number", str: "text"}.get(kind, "path")


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def models_table() -> str:
    """The catalogue with counted sizes, beside the seeds' figures."""
    from densepath.models.catalogue import CATALOGUE
    from densepath.models.cost import count_cost

    rows = [
        "| model | input | params M | GMACs | activations M | training GB at batch 64 "
        "| seed: params M | seed: GFLOPs / 2 | seed: top-1 / top-5 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for spec in CATALOGUE.values():
        cost = count_cost(spec, num_classes=10 if spec.arch.stem == "small" else 1000)
        seed = spec.seed
        cells = [
            f"`{spec.name}`",
            str(spec.input_size),
            f"{cost.parameters / 1e6:.2f}",
            f"{cost.macs / 1e9:.2f}",
            f"{cost.activations / 1e6:.1f}",
            f"{cost.training_bytes(64) / 1e9:.1f}",
            f"{seed.mparams:.2f}" if seed else "",
            f"{seed.gflops / 2:.2f}" if seed else "",
            f"{seed.top1 * 100:.1f} / {seed.top5 * 100:.1f}" if seed else "",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def published_table() -> str:
    """The published weights, with what their publishers claim."""
    from densepath.weights.published import PUBLISHED

    rows = [
        "| name | model | claimed top-1 / top-5 % | input | SHA-256 | licence |",
        "|---|---|---|---|---|---|",
    ]
    for row in PUBLISHED.values():
        way = row.preprocess
        cells = [
            f"`{row.name}`",
            f"`{row.model}`",
            f"{row.top1:g} / {row.top5:g}",
            f"{way.resize_short} → {way.size[0]}, {way.interpolation}",
            f"{row.sha256}…" if row.sha256 else "",
            row.licence,
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def recipe_table() -> str:
    """Every field of a recipe with its default and meaning."""
    from densepath.training.recipe import Recipe

    rows = ["| field | default | meaning |", "|---|---|---|"]
    for name, field in Recipe.model_fields.items():
        sections = getattr(field.annotation, "model_fields", None)
        if sections is None:
            rows.append(f"| `{name}` | `{field.default}` | {_one_line(field.description or '')} |")
            continue
        for inner, part in sections.items():
            meaning = _one_line(part.description or "")
            rows.append(f"| `{name}.{inner}` | `{part.default}` | {meaning} |")
    return "\n".join(rows) + "\n"


def recipes_table() -> str:
    """The recipes that come with densepath, each with the first sentence of its comment."""
    from densepath.training.recipe_names import FOLDER, PREFIX, recipe_names

    rows = ["| recipe | what it trains |", "|---|---|"]
    for name in recipe_names():
        opening = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").partition("\n#\n")[0]
        text = " ".join(line.lstrip("# ") for line in opening.splitlines())
        rows.append(f"| `{PREFIX}{name}` | {re.split(r'(?<!al)[.;](?= )|: ', text)[0]} |")
    return "\n".join(rows) + "\n"


def extras_table() -> str:
    """What each extra stands for, as a command that works anywhere."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def packages(extra: str) -> set[str]:
        found: set[str] = set()
        for line in extras[extra]:
            inner = re.fullmatch(r"densepath\[(.+)\]", line)
            found |= set().union(*map(packages, inner[1].split(","))) if inner else {line}
        return found

    rows = ["| extra | brings |", "|---|---|"]
    for extra in extras:
        if extra != "dev":
            command = shlex.join(["pip", "install", *sorted(packages(extra))])
            rows.append(f"| `{extra}` | `{command}` |")
    return "\n".join(rows) + "\n"


def formats_table() -> str:
    """The formats of a bundle: what they are, and who writes them."""
    from densepath.bundle.formats import FORMATS

    rows = ["| format | what it is | written by | extra |", "|---|---|---|---|"]
    for row in FORMATS.values():
        ways = {"export": row.write, "quantize": row.int8}
        writers = [f"`{verb}`" for verb, way in ways.items() if way is not None]
        extras = dict.fromkeys(f"`{extra}`" for _, extra in row.all_packages)
        cells = [f"`{row.name}`", row.about, ", ".join(writers), ", ".join(extras)]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def origins_table() -> str:
    """Where weights come from, and how they are read."""
    from densepath.weights.origins import ORIGINS

    rows = ["| file | of | read by |", "|---|---|---|"]
    for row in ORIGINS.values():
        endings = ", ".join(f"`{ending}`" for ending in row.endings)
        rows.append(f"| {endings} | {row.systems} | {row.way} |")
    return "\n".join(rows) + "\n"


def runtimes_table() -> str:
    """The engines: what they read, need and compute in."""
    from densepath.bundle.formats import RUNTIMES

    rows = ["| engine | reads | needs beyond densepath's own packages | computes in |"]
    rows.append("|---|---|---|---|")
    places = {True: "GPU", False: "CPU", None: "CPU or GPU"}
    for row in RUNTIMES.values():
        read = dict.fromkeys(f"`{name}`" for name in (row.format, row.int8_format) if name)
        if row.format == "torch":
            read["checkpoints"] = None
        needs = row.needs or ", ".join(package.replace("_", "-") for package, _ in row.packages)
        computes = ", ".join((*row.arithmetic, places[row.gpu]))
        rows.append(f"| `{row.name}` | {', '.join(read)} | {needs} | {computes} |")
    return "\n".join(rows) + "\n"


TABLES = {
    "extras": extras_table,
    "formats": formats_table,
    "models": models_table,
    "origins": origins_table,
    "published": published_table,
    "recipe": recipe_table,
    "recipes": recipes_table,
    "runtimes": runtimes_table,
}

if __name__ == "__main__":
    main()

"""Which INT8 forms are made, and by which methods.

On the line: between the options of `densepath quantize` and the writers of
`bundle/formats.py`'s rows; what a form needs is imported only when it is written or run.
"""

from __future__ import annotations

from collections.abc import Sequence

from densepath.bundle.formats import PURPOSES, Int8, named, quantised
from densepath.bundle.other_formats import unknown_format
from densepath.errors import MissingPackageError, UnknownNameError, UsageError
from densepath.extras import find_missing, note_left_out


def choose_forms(purpose: str, formats: Sequence[str] | None) -> dict[str, Int8]:
    """The forms that are named, or those for a purpose that this machine can write, by format.

    Those that it cannot are said once, with the command that changes it.

    Raises:
        UsageError: no such purpose or form.
        MissingPackageError: what a named one needs is not installed, or what all need; it names
            all that is missing.
    """
    if purpose not in PURPOSES:
        raise UnknownNameError("purpose", purpose, PURPOSES)
    forms = quantised()
    for name in formats or ():
        if name not in forms:
            raise unknown_format("quantize", name)
    if formats:
        chosen = [name for name in forms if name in formats]
        left_out: list[str] = []
    else:
        fit = [name for name, form in forms.items() if purpose in form.purposes]
        chosen = [name for name in fit if not find_missing(forms[name].packages)]
        left_out = [name for name in fit if name not in chosen]
    missing = find_missing(needed for name in chosen or left_out for needed in forms[name].packages)
    if missing:
        raise MissingPackageError.of(missing)
    if left_out:
        lacking = find_missing(needed for name in left_out for needed in forms[name].packages)
        note_left_out("quantised", chosen, left_out, lacking)
    return {name: forms[name] for name in chosen}


def choose_methods(format: str, form: Int8, method: str) -> tuple[str, ...]:
    """The methods to try: all of the form's, or the one that is named.

    Raises:
        UsageError: the form has no such method.
    """
    methods: tuple[str, ...] = named(form.methods)
    if method == "auto":
        return methods
    if method not in methods:
        having = [name for name, other in quantised().items() if method in named(other.methods)]
        cure = f" Formats that have it: --to {','.join(having)}" if having else ""
        raise UsageError(
            f"{format} has no method {method!r}; it has auto, {', '.join(methods)}.{cure}"
        )
    return (method,)

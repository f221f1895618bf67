"""The changes that `mutants.py` makes: where each is, what it is, and which lines run it.

A change is text: the bytes of one expression or statement are replaced, the rest of the file stays
as it is. Left alone: docstrings, annotations, f-strings and other texts, what an error says, logs.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor",
    "minimum": "maximum", "maximum": "minimum",
}  # fmt: skip
LOGS = {"debug", "info", "warning", "exception", "log"}
# What these are given is for people to read, or for a type checker.
SAID = LOGS | {"say", "say_once", "warn", "error", "cast", "TypeVar", "NewType", "getLogger"}
# Texts; and what matters where the program is wrong, or on another machine.
LEFT_KEYWORDS = {"help", "description", "title", "summary", "metavar", "stacklevel"}
LEFT_KEYWORDS |= {"strict", "encoding"}
TYPING_DECORATORS = {"overload", "override", "abstractmethod"}
# A test on one machine cannot tell what happens on another.
MACHINE = ("TYPE_CHECKING", "sys.platform", "sys.version_info", "os.name")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Mutant:
    """One change to one file.

    Attributes:
        path: the file, relative to the root, with slashes.
        line: from 1, where the change begins.
        kind: what sort of change it is.
        before: the code that is replaced, on one line.
        after: the code in its place, on one line.
        source: the first line of what is replaced, as it stands in the file.
        span: the bytes that are replaced, from and to.
        text: what replaces them.
        lines: a test that runs one of these lines may notice; none: any test that runs the file.
        nth: from 0, of equal changes to equal lines of the file.
    """

    path: str
    line: int
    kind: str
    before: str
    after: str
    source: str
    span: tuple[int, int]
    text: str
    lines: tuple[int, ...]
    nth: int = 0

    @property
    def name(self) -> str:
        """Eight characters that stay the same when the file changes elsewhere."""
        said = (self.path, self.source, self.kind, self.before, self.after, str(self.nth))
        return hashlib.sha256("\0".join(said).encode()).hexdigest()[:8]

    def applied(self, source: bytes) -> bytes:
        """The file with the change made."""
        start, end = self.span
        return source[:start] + self.text.encode() + source[end:]


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """All changes to a file, those that `changes_the_program` refuses among them."""
    tree = ast.parse(source)
    found, seen = [], Counter[Mutant]()
    for mutant in _Changes(path, source, tree).of_body(tree.body, ()):
        same = replace(mutant, span=(0, 0), line=0, lines=(), text="")
        found.append(replace(mutant, nth=seen[same]))
        seen[same] += 1
    return found


def changes_the_program(mutant: Mutant, source: bytes) -> bool:
    """Whether Python reads the changed file, and reads another program in it."""
    try:
        changed = ast.parse(mutant.applied(source))
    except SyntaxError:
        return False
    return ast.dump(changed) != ast.dump(ast.parse(source))


class _Changes:
    """The changes to one file, in the order of its code."""

    def __init__(self, path: str, source: bytes, tree: ast.Module) -> None:
        self.path, self.source = path, source
        self.rows = source.decode().splitlines()
        self.starts = [0]
        for row in source.split(b"\n"):
            self.starts.append(self.starts[-1] + len(row) + 1)
        self.uses: dict[str, list[int]] = {}
        for function in (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)):
            for node in ast.walk(function):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                    self.uses.setdefault(node.id, []).append(node.lineno)

    def of_body(self, body: list[ast.stmt], inside: tuple[int, ...] | None) -> Iterator[Mutant]:
        """The changes to statements; `inside`: None in a function, where a line runs as itself,
        else the lines whose tests may notice.
        """
        for statement in body:
            yield from self.of_statement(statement, inside)

    def of_statement(self, node: ast.stmt, inside: tuple[int, ...] | None) -> Iterator[Mutant]:
        if isinstance(node, FUNCTIONS):
            yield from self._of_function(node)
        elif isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                yield from self.of_expression(decorator, ())
            yield from self.of_body(node.body, ())
        elif not _is_left_alone(node):
            lines = _header(node) if inside is None else self._uses(node) or inside
            yield from self._of_whole(node, lines)
            for value in _expressions(node):
                yield from self.of_expression(value, lines)
            for body in _bodies(node):
                yield from self.of_body(body, inside)

    def _of_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Mutant]:
        lines = tuple(line for part in node.body for line in lines_of(part))
        for decorator in node.decorator_list:
            if ast.unparse(decorator).split(".")[-1] not in TYPING_DECORATORS:
                start, end = self._span(decorator)
                at = self.source.rindex(b"@", 0, start)
                yield self._replace(decorator, "decorator dropped", "", lines, span=(at, end))
            yield from self.of_expression(decorator, lines)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                for one in self.of_expression(default, lines):
                    yield replace(one, kind=f"default: {one.kind}")
        optional = node.returns is not None and "None" in ast.unparse(node.returns).split(" | ")
        for part in _own(node) if optional else ():
            if isinstance(part, ast.Return) and part.value is not None:
                yield self._replace(part.value, "returns None", "None", lines_of(part))
        yield from self.of_body(node.body, None)

    def _of_whole(self, node: ast.stmt, lines: tuple[int, ...]) -> Iterator[Mutant]:
        """The statement deleted, its test always or never true, its operator another."""
        stored = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name)
        stored = stored and not isinstance(node.targets[0], ast.Tuple)
        called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        simple = isinstance(node, (ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete))
        if stored or simple or (called and _called(node.value) not in LOGS):
            yield self._replace(node, "statement deleted", "pass", lines)
        if isinstance(node, ast.If):
            yield self._replace(node.test, "always taken", "True", lines)
            yield self._replace(node.test, "never taken", "False", lines)
        if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
            other = ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value)
            yield self._replace(node, "arithmetic", ast.unparse(other), lines)

    def of_expression(self, node: ast.AST, lines: tuple[int, ...]) -> Iterator[Mutant]:
        if isinstance(node, ast.JoinedStr) or is_text(node):
            return
        for kind, after in self._in_place(node):
            yield self._replace(node, kind, after, lines)
        if isinstance(node, ast.Call):
            if _called(node) in SAID:
                return
            yield from self._keywords_dropped(node, lines)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.keyword) and child.arg in LEFT_KEYWORDS:
                continue
            yield from self.of_expression(child, lines)

    def _in_place(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        """What sort of change, and the whole expression after it."""
        if isinstance(node, ast.Compare):
            yield from _comparisons(node)
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            if not any(isinstance(one, ast.JoinedStr) or is_text(one) for one in ast.walk(node)):
                yield "arithmetic", _with(node, op=ARITHMETIC[type(node.op)]())
        elif isinstance(node, ast.BoolOp):
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield "and, or", _with(node, op=other)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            yield "sign or not dropped", ast.unparse(node.operand)
        elif isinstance(node, ast.Constant):
            yield from (("constant", text) for text in _constants(node.value))
        elif isinstance(node, (ast.Name, ast.Attribute)):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in NAMES and isinstance(node.ctx, ast.Load):
                field = "id" if isinstance(node, ast.Name) else "attr"
                yield "another function", _with(node, **{field: NAMES[name]})
        elif isinstance(node, ast.IfExp):
            yield "always taken", ast.unparse(node.body)
            yield "never taken", ast.unparse(node.orelse)
        elif isinstance(node, ast.Slice):
            yield from _bounds(node)

    def _keywords_dropped(self, node: ast.Call, lines: tuple[int, ...]) -> Iterator[Mutant]:
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in LEFT_KEYWORDS:
                continue
            rest = [one for one in node.keywords if one is not keyword]
            text = _with(node, keywords=rest)
            one = self._replace(node, "argument dropped", text, lines)
            before = f"{_called(node)}(…, {ast.unparse(keyword)})"
            yield replace(one, line=keyword.value.lineno, before=before, after="without it")

    def _replace(
        self,
        node: ast.AST,
        kind: str,
        after: str,
        lines: tuple[int, ...],
        *,
        span: tuple[int, int] | None = None,
    ) -> Mutant:
        start, end = span or self._span(node)
        text = f"({after})" if isinstance(node, ast.expr) and after else after
        if isinstance(node, ast.Slice):
            text = after
        row = self.rows[node.lineno - 1].strip()
        before = ast.unparse(node)
        return Mutant(self.path, node.lineno, kind, before, after, row, (start, end), text, lines)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def _uses(self, node: ast.stmt) -> tuple[int, ...]:
        """The lines of functions that read what a statement of the module names."""
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [one.id for one in targets if isinstance(one, ast.Name)]
        return tuple(line for name in names for line in self.uses.get(name, []))


def _comparisons(node: ast.Compare) -> Iterator[tuple[str, str]]:
    for at, operator in enumerate(node.ops):
        ops = [*node.ops[:at], COMPARISONS[type(operator)](), *node.ops[at + 1 :]]
        yield "comparison", _with(node, ops=ops)
    for at, value in enumerate(node.comparators):
        if is_text(value):
            other = ast.Constant(f"{value.value}_")
            values = [*node.comparators[:at], other, *node.comparators[at + 1 :]]
            yield "compared text", _with(node, comparators=values)


def _constants(value: object) -> Iterator[str]:
    if isinstance(value, bool):
        yield str(not value)
    elif isinstance(value, int):
        yield str(value + 1)
        if value == 1:
            yield "0"
    elif isinstance(value, float):
        yield str(value * 2 or 1.0)


def _bounds(node: ast.Slice) -> Iterator[tuple[str, str]]:
    """Constant bounds are changed as constants are."""
    if node.lower is not None and not isinstance(node.lower, ast.Constant):
        later = ast.BinOp(node.lower, ast.Add(), ast.Constant(1))
        yield "bound of a slice", _with(node, lower=later)
    if node.upper is not None and not isinstance(node.upper, ast.Constant):
        earlier = ast.BinOp(node.upper, ast.Sub(), ast.Constant(1))
        yield "bound of a slice", _with(node, upper=earlier)


def _with(node: ast.AST, **fields: object) -> str:
    """The code of a node with other fields."""
    values = {name: getattr(node, name) for name in node._fields} | fields
    return ast.unparse(ast.fix_missing_locations(type(node)(**values)))


def is_text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _called(node: ast.Call) -> str:
    """The last part of the name of what is called."""
    return ast.unparse(node.func).split(".")[-1]


def _is_left_alone(node: ast.stmt) -> bool:
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)):
        return True
    if isinstance(node, ast.Expr):
        is_log = isinstance(node.value, ast.Call) and _called(node.value) in LOGS
        return is_log or isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return any(word in ast.unparse(node.test) for word in MACHINE)
    if isinstance(node, ast.AnnAssign):
        return "TypeAlias" in ast.unparse(node.annotation)
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _expressions(node: ast.stmt) -> Iterator[ast.expr]:
    """What a statement evaluates, but not annotations, nor what an error says."""
    if isinstance(node, ast.Raise):
        return
    if isinstance(node, ast.Assert):
        yield node.test
        return
    for name, value in ast.iter_fields(node):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, ast.expr) and name != "annotation":
                yield one
            elif isinstance(one, ast.withitem):
                yield one.context_expr


def _bodies(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        yield getattr(node, name, [])
    for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield part.body


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of the functions in it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
            yield child
            yield from _own(child)


def lines_of(node: ast.AST) -> tuple[int, ...]:
    return tuple(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _header(node: ast.stmt) -> tuple[int, ...]:
    """The lines of a statement itself: of `if`, `for`, `with` the part before their bodies."""
    first = min((part.lineno for body in _bodies(node) for part in body), default=None)
    return (
        lines_of(node) if first is None else tuple(range(node.lineno, max(first, node.lineno + 1)))
    )

"""What a mutant is: one number, sign, comparison, bound or connective of the core changed, and nothing else.

x -> 1.05 x (0.0 -> 1.0), whole numbers n -> n + 1, True <-> False; + <-> -, * <-> /, also in place; -x -> x;
not x -> x; < <-> <=, > <-> >=, == <-> !=; and <-> or; min <-> max and their kin. Only the text of the changed node is
replaced.
"""

import ast
import fnmatch
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "src/attention_coresets"
_FILES = ("attention", "bodies", "checks", "lower_bound", "registry", "theory", "models/heads", "models/head_geometry")
_FOLDERS = ("adversary", "caches", "coresets", "geometry")
CORE = [*(f"{PACKAGE}/{name}.py" for name in _FILES), *(f"{PACKAGE}/{name}/*" for name in _FOLDERS)]

_SPEED = "MAX_(GRAM|NUMBERS|LOGITS)|NUMBERS|NUMBERS_ELSEWHERE|ENTRIES|POWERS|TILE|BLOCK|GROUP|TASKS|PANELS?|FILL|SHARE"
_SPEED += "|COMPACT|FEWEST|WORTH_THREADS|BUCKET_GRAM|DENSE|ACTIVE"
_CAPS = "ANEW|REFACTOR|STEPS|NEWTON_STEPS|INNER|OUTER|NODES"
_SMALL = "TIE|LEAST[A-Z_]*|TOLERANCE|TARGET_GAP|FLOOR|FREEZE|ROUNDING|TINY|SAME|SPENT|NEGLIGIBLE|SMALL|SMALLEST"
_SMALL += "|RANK|IN_SPAN|LEVEL|ON_SPHERE|RIDGE"
# regular expressions of the file, the line and what is changed in it, and why such mutants say nothing of the tests
EXCLUDED = (
    ("", rf"^_?({_SPEED}) = ", "", "the size of a block or a change of method: results are the same, at another speed"),
    ("", rf"^_?({_CAPS}) = ", "", "steps at most, where fewer suffice"),
    ("", rf"^_?({_SMALL}) = [\d.]*1e-", "", "of the size of rounding: 5 % of it moves no result that is stated"),
    ("", "", r"^1e-(300|30|12)$", "keeps 0 / 0 away"),
    ("", r"chunk = max\(1, |\.split\(max\(1, |^numbers = |wanted = max\(1, |<= DENSE ", "", "the size of a block"),
    ("", r"max_logits: int = ", r"^[\d* ]+$", "the size of a block"),
    ("walk_loop", r"self\.used == self\.block", "", "when a block is folded in: speed alone"),
    ("", "", r"^\S*device\.type [!=]= .\w+.$", "needs a GPU"),
)

_SWAPPED: dict[type, type] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.And: ast.Or, ast.Or: ast.And},
}
_PAIRS = [("min", "max"), ("amin", "amax"), ("argmin", "argmax"), ("clamp_min", "clamp_max"), ("minimum", "maximum")]
_OPPOSITE = dict([*_PAIRS, *((b, a) for a, b in _PAIRS)])


@dataclass(frozen=True)
class Mutant:
    """Bytes start to stop of a file, `old`, replaced by `new`; `code` is its line."""

    file: str
    line: int
    start: int
    stop: int
    old: str
    new: str
    code: str

    @property
    def id(self) -> str:
        return f"{self.file}:{self.line}:{self.start}:{self.new}"

    def apply(self, source: bytes) -> bytes:
        if source[self.start : self.stop].decode() != self.old:
            raise ValueError(f"{self.file} is not what the mutant was made from: run `cover` again")
        return source[: self.start] + self.new.encode() + source[self.stop :]


def core(base: Path) -> list[str]:
    """The files whose mutants are drawn."""
    files = [str(path.relative_to(base)) for path in sorted((base / PACKAGE).rglob("*.py"))]
    return [file for file in files if any(fnmatch.fnmatch(file, kind) for kind in CORE)]


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Every mutant of a file but those that EXCLUDED names."""
    text, lines = source.encode(), source.encode().splitlines(keepends=True)
    begins = [0, *itertools.accumulate(map(len, lines))]
    found = []
    for node in visited(ast.parse(source)):
        start = begins[node.lineno - 1] + node.col_offset
        stop = begins[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        code, old = lines[node.lineno - 1].decode().rstrip(), text[start:stop].decode()
        if not excluded(file, code, old):
            found += [Mutant(file, node.lineno, start, stop, old, new, code.strip()) for new in changed(node)]
    return found


def excluded(file: str, line: str, old: str) -> str:
    """Why a mutant of this part of a line says nothing of the tests; empty where it does."""
    given = (file, line, old)
    return next((why for *rules, why in EXCLUDED if all(map(re.search, rules, given))), "")


def visited(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Expressions and statements that are run: no annotation, decorator, error, message, __repr__ or strict=True."""
    match node:
        case ast.Raise() | ast.JoinedStr() | ast.FunctionDef(name="__repr__" | "__str__") | ast.keyword(arg="strict"):
            return
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.expr() | ast.stmt():
            yield node
    for name, field in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list", "msg"):
            for child in field if isinstance(field, list) else [field]:
                if isinstance(child, ast.AST):
                    yield from visited(child)


def changed(node: ast.AST) -> Iterator[str]:
    """What may stand in place of a node, as source."""
    match node:
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value)):
            yield str(value + 1)
        case ast.Constant(value=float(value)):
            yield repr(value * 1.05 or 1.0)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            yield f"({ast.unparse(inner)})"
        case ast.UnaryOp(op=ast.USub(), operand=inner) if not isinstance(getattr(inner, "value", None), int):
            yield f"({ast.unparse(inner)})"  # of -1, mostly an axis, the number is changed
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in _SWAPPED:
            yield f"({_unparsed(node, op=_SWAPPED[type(op)]())})"
        case ast.AugAssign(op=op) if type(op) in _SWAPPED:
            yield _unparsed(node, op=_SWAPPED[type(op)]())
        case ast.Compare(ops=ops):
            for i in [i for i, op in enumerate(ops) if type(op) in _SWAPPED]:
                yield f"({_unparsed(node, ops=[*ops[:i], _SWAPPED[type(ops[i])](), *ops[i + 1 :]])})"
        case ast.Call(func=ast.Name(id=name)) if name in _OPPOSITE:
            yield _unparsed(node, func=ast.Name(_OPPOSITE[name]))
        case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in _OPPOSITE:
            yield _unparsed(node, func=ast.Attribute(value, _OPPOSITE[name]))


def _unparsed(node: ast.AST, **fields) -> str:
    return ast.unparse(type(node)(**{**dict(ast.iter_fields(node)), **fields}))

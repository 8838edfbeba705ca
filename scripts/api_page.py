"""Writes docs/api.md: every public name with its signature and docstring, from the source.

python scripts/api_page.py            # rewrite it
python scripts/api_page.py --check    # write nothing; exit 1 where it differs
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import inspect
import sys
from pathlib import Path
from types import ModuleType

import attention_coresets
from attention_coresets import serving
from attention_coresets.study.disk import write_atomically

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
TOP = """# Public names

Written by `python scripts/api_page.py` from the docstrings; do not edit. Names that are not here may change at any
time. Constructions and their parameters are in [constructions.md](constructions.md), what `compressed` does with every
use of a model in [serving.md](serving.md).
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only")
    options = parser.parse_args(arguments)
    text = page()
    if options.check:
        stale = PAGE.read_text(encoding="utf-8") != text
        if stale:
            print(
                "api_page: docs/api.md differs from the docstrings; run `python scripts/api_page.py`", file=sys.stderr
            )
        return int(stale)
    write_atomically(PAGE, text)
    return 0


def page() -> str:
    parts = [TOP]
    for module in (attention_coresets, serving):
        names = sorted(module.__all__, key=str.lower)
        lower = [name.lower() for name in names]  # as headings are linked to; a second one of the same letters is -1
        anchors = [f"{name}-{lower[:k].count(name)}" if name in lower[:k] else name for k, name in enumerate(lower)]
        listed = ", ".join(f"[`{name}`](#{anchor})" for name, anchor in zip(names, anchors, strict=True))
        parts += [f"## {module.__name__}\n\n{listed}\n", *(_entry(module, name) for name in names)]
    return "\n".join(parts)


def _entry(module: ModuleType, name: str) -> str:
    """A heading, and what `help` would say: the signature, the docstring, public methods and properties with theirs."""
    value = getattr(module, name)
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return f"### {name}\n\nA mapping of names: {', '.join(f'`{key}`' for key in sorted(value))}.\n"
    lines = [f"{name}{_signature(value)}", *_indented(inspect.getdoc(value) or "")]
    if inspect.isclass(value):
        for member, kind in sorted(vars(value).items()):
            if not member.startswith("_") and (inspect.isfunction(kind) or isinstance(kind, property)):
                signature = "" if isinstance(kind, property) else _signature(kind)
                lines += ["", *_indented(f"{member}{signature}")]
                lines += _indented("\n".join(_indented(inspect.getdoc(kind) or "")))
    return f"### {name}\n```text\n" + "\n".join(lines) + "\n```\n"


def _signature(value: object) -> str:
    """Names and defaults; types are in the docstring, where they matter."""
    signature = inspect.signature(value)  # type: ignore[arg-type]
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in signature.parameters.items()
        if name not in ("self", "cls")
    ]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def _indented(text: str) -> list[str]:
    return [f"    {line}".rstrip() for line in text.splitlines()]


if __name__ == "__main__":
    sys.exit(main())

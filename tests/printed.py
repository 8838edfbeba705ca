"""What the pages print for a reader to run: blocks of Python, and commands one by one."""

import re
from pathlib import Path

from attention_coresets.study.config import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Lines of blocks of shell, and indented ones that begin with a program; joined, without comments, one by one."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        blocks += re.findall(r"^    ((?:python|bash) .*)$", text, re.MULTILINE)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            bare = line.partition(" #")[0]
            found |= dict.fromkeys(part.strip() for part in re.split(r"&&|;", bare) if part.strip())
    return list(found)

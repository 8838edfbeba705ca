"""Where a row comes from: git revision and dirty flag, and the versions that computed it."""

import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch

_REPOSITORY = Path(__file__).resolve().parents[3]


@cache
def provenance() -> dict[str, Any]:
    """revision ("unknown" without git or commits), dirty, versions of torch, numpy and python; found once a process.

    dirty: src/ differs from that revision. Results and figures that a sweep has just rewritten do not count.
    """
    revision, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", "src")
    return {
        "revision": revision or "unknown",
        "dirty": status != "",
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def same_code(revision: str) -> bool:
    """Whether src/ at that revision is what it is at the present one."""
    return _git("diff", "--stat", revision, "HEAD", "--", "src") == ""


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=_REPOSITORY, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None

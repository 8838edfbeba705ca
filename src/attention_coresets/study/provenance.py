"""Where a row comes from: revision and dirty flag, versions, the machine that computed it, and the loops that ran."""

import os
import platform
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch

from attention_coresets.compiled import compiled_runs
from attention_coresets.study.disk import StudyError

_REPOSITORY = Path(__file__).resolve().parents[3]
_CPUINFO = Path("/proc/cpuinfo")
_HASH = r"[0-9a-f]{40}|[0-9a-f]{64}"  # whole: a branch of today is another commit tomorrow
_VARIABLE = "ATTENTION_CORESETS_REVISION"
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # a hook of any repository has git look there


@cache
def provenance() -> dict[str, Any]:
    """revision, dirty, versions of torch, numpy and python, processor; found once a process.

    revision: the commit that is checked out where this file lies in a repository of its own. Elsewhere (an unpacked
    archive, site-packages, no git) the commit that ATTENTION_CORESETS_REVISION states, as `git describe --always
    --dirty --abbrev=40 --exclude='*'` prints it where the code was copied from; without that "unknown".
    dirty: src/ differs from that revision. Results and figures that a sweep has just rewritten do not count. A stated
    revision is dirty if it ends in "-dirty", an unknown one always. StudyError where the variable holds no commit.
    """
    revision, dirty = _checked_out() or _stated() or ("unknown", True)
    return {
        "revision": revision,
        "dirty": dirty,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "processor": processor(),
    }


def processor() -> str:
    """The CPU's model name, "Intel(R) Xeon(R) Processor"; its architecture where the system tells no more."""
    found = (
        re.search(r"^model name\s*:\s*(.+)$", _CPUINFO.read_text(encoding="utf-8"), re.MULTILINE)
        if _CPUINFO.exists()
        else None
    )
    return found[1].strip() if found else platform.processor() or platform.machine() or "unknown"


def device_name(device: torch.device) -> str:
    """The GPU's name, "NVIDIA H100 80GB HBM3"; for the CPU that of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def fast_path(before: Counter[str]) -> str:
    """ "triton" or "numba" if such a loop ran, in any thread of this process, since `compiled_runs()` was `before`.

    "triton" where both did, for then the construction ran on a GPU. "torch" if none did: what compiles them is missing,
    or nothing in the work has a compiled version.
    """
    grown = compiled_runs() - before
    return next((name for name in ("triton", "numba") if grown[name]), "torch")


def same_code(revision: str) -> bool:
    """Whether src/ at that revision is what it is at the present one; False where that cannot be told."""
    present = provenance()["revision"]
    if not re.fullmatch(_HASH, revision):  # "unknown"; git would take it for a branch of that name
        return False
    return revision == present or (_is_own() and _git("diff", "--stat", revision, present, "--", "src") == "")


def _checked_out() -> tuple[str, bool] | None:
    revision = _git("rev-parse", "HEAD") if _is_own() else None
    return (revision, _git("status", "--porcelain", "--", "src") != "") if revision else None


def _is_own() -> bool:
    """Whether git knows this package's repository, not one that the package was merely installed into."""
    top = _git("rev-parse", "--show-toplevel")
    return top is not None and Path(top).resolve() == _REPOSITORY


def _stated() -> tuple[str, bool] | None:
    text = os.environ.get(_VARIABLE, "").strip()
    revision = text.removesuffix("-dirty")
    if text and not re.fullmatch(_HASH, revision):
        raise StudyError(
            f"{_VARIABLE}={text}: must be a commit's whole hash, with or without -dirty; where the code was copied "
            "from, `git describe --always --dirty --abbrev=40 --exclude='*'` prints it"
        )
    return (revision, revision != text) if text else None


def _git(*arguments: str) -> str | None:
    here = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=_REPOSITORY,
            env=here,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # a path may hold anything
            check=False,
        )
    except OSError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None

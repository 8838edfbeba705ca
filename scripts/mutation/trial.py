"""One mutant against its tests, in a process forked from one that has imported torch and the like, not the package."""

import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.mutation.mutants import Mutant
from scripts.mutation.reach import environment


@dataclass(frozen=True)
class Trial:
    """A mutant, None for unchanged code, the tests to run, how many more there are, and the seconds it may take."""

    mutant: Mutant | None
    tests: tuple[str, ...]
    left_out: int
    limit: float


# the forked process has imported plugins before pytest could rewrite their asserts
OPTIONS = ("-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
TIME_LIMIT = "the time limit"
_copy = Path()  # this worker's, in which it changes files
_stamps = itertools.count(1)


def copy_for_this_worker(work: Path) -> None:
    """Give the process that calls it a copy of work/base."""
    global _copy
    _copy = work / f"worker-{os.getpid()}"
    shutil.copytree(work / "base", _copy, ignore=shutil.ignore_patterns(".coverage*"))


def execute(trial: Trial) -> dict:
    """The trial's line of results.jsonl."""
    begun = time.monotonic()
    found = {"id": trial.mutant.id, **asdict(trial.mutant)} if trial.mutant else {}
    if trial.tests:
        with changed_file(trial.mutant):
            result, by = outcome(trial)
    else:
        result, by = "uncovered", ""
    seconds = round(time.monotonic() - begun, 1)
    numbers = {"tests": len(trial.tests), "left_out": trial.left_out, "seconds": seconds}
    return found | {"result": result, "by": by, **numbers}


@contextmanager
def changed_file(mutant: Mutant | None) -> Iterator[None]:
    """The mutant in its place. Its time is a second of its own: by that, Python and numba know what they compiled."""
    if mutant is None:
        yield
        return
    path = _copy / mutant.file
    source, before = path.read_bytes(), path.stat()
    stamp = int(before.st_mtime) + next(_stamps)
    path.write_bytes(mutant.apply(source))
    os.utime(path, (stamp, stamp))
    try:
        yield
    finally:
        path.write_bytes(source)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def outcome(trial: Trial) -> tuple[str, str]:
    """("survived", "") or ("killed", by what)."""
    with tempfile.TemporaryDirectory() as scratch:
        child = os.fork()
        if child == 0:
            run_pytest(trial, Path(scratch))
        deadline = time.monotonic() + trial.limit
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)  # the child and what its tests began
                os.waitpid(child, 0)
                return "killed", TIME_LIMIT
            time.sleep(0.02)
        output = (Path(scratch) / "log").read_text(errors="replace", encoding="utf-8")
    if ended[1] == 0:
        return "survived", ""
    named = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    status = f"exit status {os.waitstatus_to_exitcode(ended[1])}: "
    return "killed", named[1] if named else status + " ".join(output.split()[-40:])


def run_pytest(trial: Trial, scratch: Path) -> None:
    """In the forked process: the tests up to the first that fails, and no return."""
    code = 70
    try:
        os.setsid()
        streams = os.open(os.devnull, os.O_RDONLY), os.open(scratch / "log", os.O_CREAT | os.O_WRONLY)
        for stream, target in ((0, streams[0]), (1, streams[1]), (2, streams[1])):
            os.dup2(target, stream)
        os.chdir(_copy)
        os.environ.update(environment(_copy))
        sys.path[0] = str(_copy / "src")
        if trial.mutant and "numba" in (_copy / trial.mutant.file).read_text(encoding="utf-8"):
            _own_compiled_loops(scratch)
        _no_shrinking()
        import pytest

        code = int(pytest.main([*OPTIONS, *trial.tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _own_compiled_loops(scratch: Path) -> None:
    """Keep what is compiled of a changed loop apart: the copy's own compiled loops stay as they are."""
    from numba.core import config

    config.CACHE_DIR = str(scratch)  # pyright: ignore[reportAttributeAccessIssue]


def _no_shrinking() -> None:
    """A failing example is enough. The tests' own profile starts from the one that is loaded."""
    from hypothesis import Phase, settings

    settings.register_profile("unshrunk", phases=(Phase.explicit, Phase.reuse, Phase.generate))
    settings.load_profile("unshrunk")

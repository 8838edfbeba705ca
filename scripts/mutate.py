"""How many small changes of the core the tests notice: mutants of its source, each run against the tests that reach it.

    python scripts/mutate.py cover [tests/test_walk.py ...]   # once: copies the tree, runs the suite under coverage
    python scripts/mutate.py run --sample 300 --seed 0        # stopped and started again it goes on: see results.jsonl
    python scripts/mutate.py report                           # killed and survived by file, and every survivor

All is kept in --work, a folder that `cover` empties. A mutant is killed when a test fails, a module cannot be imported
or --limit seconds pass; it survives when all tests chosen for it pass (scripts/mutation/reach.py says which; `left_out`
counts those beyond --budget), and is uncovered where no test runs its line. `cover` takes as long as the suite, a
mutant some ten seconds of one core. What is changed, and what is left out why: scripts/mutation/mutants.py.

Not mutmut 3, which leaves out decorated functions (all numba loops) and all that is outside functions (fields, limits),
nor cosmic-ray, which runs the whole suite for each mutant.
"""

import argparse
import collections
import importlib
import json
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # in place of scripts/ itself

from scripts.mutation.mutants import PACKAGE, core, mutants_of  # noqa: E402  (needs the path)
from scripts.mutation.reach import Reach, cover  # noqa: E402
from scripts.mutation.trial import TIME_LIMIT, Trial, copy_for_this_worker, execute  # noqa: E402

IMPORTED = ("torch", "numba", "scipy.optimize", "scipy.stats", "pandas", "matplotlib.pyplot", "hypothesis", "pytest")
KINDS = ("killed", "survived", "uncovered")


def run(work: Path, options: argparse.Namespace) -> int:
    """Draw the sample, leave out what results.jsonl has, run the rest and write a line as soon as each is done."""
    trials = drawn(work, options)
    for left in work.glob("worker-*"):
        shutil.rmtree(left)
    for name in IMPORTED:  # once, not in each forked process
        importlib.import_module(name)
    with multiprocessing.get_context("fork").Pool(options.workers, copy_for_this_worker, (work,)) as pool:
        controls = [replace(trial, mutant=None) for trial in trials if trial.tests][: options.workers]
        if bad := [found for found in pool.imap_unordered(execute, controls) if found["result"] != "survived"]:
            print(f"unchanged code fails {bad[0]['by']}: run `cover` again", file=sys.stderr)
            return 1
        for count, found in enumerate(pool.imap_unordered(execute, trials), 1):
            with (work / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(found, ensure_ascii=False) + "\n")
            print(f"{count}/{len(trials)} {found['seconds']:5.1f} s  {described(found)}", flush=True)
        killers = tuple({line["by"] for line in read(work) if "::" in line["by"]})
        for found in pool.imap_unordered(execute, [Trial(None, killers, 0, 3600)] if killers else []):
            print(f"unchanged code under all tests that killed: {described(found)}")
    return report(work)


def drawn(work: Path, options: argparse.Namespace) -> list[Trial]:
    """What is still to be run of the sample."""
    base, reach = work / "base", Reach(work)
    everything = [m for file in core(base) for m in mutants_of(file, (base / file).read_text(encoding="utf-8"))]
    sample = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))
    done = {line["id"] for line in read(work)}
    trials = [Trial(m, *reach.chosen(m, options.budget), options.limit) for m in sample if m.id not in done]
    print(f"{len(everything)} mutants of the core, {len(sample)} drawn, {len(trials)} to run", flush=True)
    return trials


def read(work: Path) -> list[dict]:
    """The lines of results.jsonl."""
    results = work / "results.jsonl"
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def report(work: Path) -> int:
    """Counts by file with the share killed and its 95 % interval, then what was not killed, line by line."""
    lines = read(work)
    files = sorted({line["file"] for line in lines})
    for name, group in [*((f, [x for x in lines if x["file"] == f]) for f in files), ("all", lines)]:
        counts = collections.Counter(line["result"] for line in group)
        low, high = wilson(counts["killed"], len(group))
        numbers = " ".join(f"{counts[kind]:5d} {kind}" for kind in KINDS)
        slow = sum(line["by"] == TIME_LIMIT for line in group)
        late = f", {slow} by {TIME_LIMIT}" if slow else ""
        print(f"{numbers}  {counts['killed'] / max(1, len(group)):4.0%} [{low:.0%}, {high:.0%}]  {name}{late}")
    for line in sorted(lines, key=lambda line: (line["file"], line["line"])):
        if line["result"] != "killed":
            print(f"{described(line)}\n    {line['code']}")
    return 0


def described(line: dict) -> str:
    """One result in a line."""
    by = f" by {line['by']}" if line["by"] else ""
    left = f" ({line['left_out']} tests left out)" if line["left_out"] and line["result"] == "survived" else ""
    if "file" not in line:  # unchanged code
        return f"{line['result']}{by}"
    place = f"{line['file'].removeprefix(PACKAGE + '/')}:{line['line']}"
    return f"{line['result']}{by}{left}: {place}: {line['old']} -> {line['new']}"


def wilson(killed: int, total: int) -> tuple[float, float]:
    """95 % interval of a share."""
    if total == 0:
        return 0.0, 1.0
    z, p = 1.96, killed / total
    middle, half = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return (middle - half) / (1 + z * z / total), (middle + half) / (1 + z * z / total)


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "attention_coresets_mutants")
    steps = parser.add_subparsers(dest="step", required=True)
    covering, running = steps.add_parser("cover"), steps.add_parser("run")
    steps.add_parser("report")
    for step in (covering, running):
        step.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    covering.add_argument("tests", nargs="*", help="files (default: the whole suite)")
    running.add_argument("--sample", type=int, default=300, help="mutants drawn")
    running.add_argument("--seed", type=int, default=0, help="of the draw")
    running.add_argument("--budget", type=float, default=60, help="seconds of tests a mutant, as they took in `cover`")
    running.add_argument("--limit", type=float, default=180, help="seconds after which a mutant counts as killed")
    options = parser.parse_args(given)
    if options.step == "cover":
        return cover(ROOT, options.work, options.workers, options.tests)
    return run(options.work, options) if options.step == "run" else report(options.work)


if __name__ == "__main__":
    sys.exit(main())

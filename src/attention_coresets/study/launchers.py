"""Who works on a planned sweep: this process, processes of this machine, or tasks of Slurm. Each runs `worker.work`."""

import functools
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from attention_coresets.study import slurm
from attention_coresets.study.disk import StudyError
from attention_coresets.study.leases import Leases
from attention_coresets.study.plan import Sweep
from attention_coresets.study.progress import Monitor
from attention_coresets.study.slurm import Slurm
from attention_coresets.study.worker import ended_with

_LOOK = 1.0


def in_processes(sweep: Sweep, number: int, threads: int | None) -> None:
    """Work in processes of this machine, which end with this one."""
    number = len(os.sched_getaffinity(0)) if number == -1 else number
    if number < 1:
        raise StudyError(f"hydra.launcher.n_jobs={number}: must be at least 1, or -1 for a process a core")
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", "attention_coresets.study.worker", str(sweep.folder), str(os.getpid())]
    environment = os.environ | (limits if threads is not None else {})
    # in a session of their own, so that Ctrl-C reaches this process alone, which ends them
    start = functools.partial(subprocess.Popen, command, env=environment, start_new_session=True)
    with ended_with([start() for _ in range(number)]) as children:
        for child in children:
            child.wait()


def in_slurm(sweep: Sweep, options: Slurm, monitor: Monitor) -> None:
    """Queue tasks and wait for them. Ctrl-C ends the waiting, not the tasks, and says how to end those."""
    try:
        slurm.submit(sweep.folder, number_of_tasks(sweep, options), options)
        await_all(sweep, monitor)
    except KeyboardInterrupt:
        jobs = slurm.jobs_of(sweep.folder)
        print(f"still running: {still_running(jobs)}; to end it: {slurm.end(jobs)}", file=sys.stderr)
        print(f"to see it: python scripts/running.py {sweep.folder}", file=sys.stderr)
        raise


def number_of_tasks(sweep: Sweep, options: Slurm) -> int:
    """As many as the work is worth; at most those that may run at once, for each goes on until nothing is left."""
    jobs = sweep.jobs()
    if options.minutes_per_job is None:
        work = len(jobs) / options.cells_per_job
    else:
        known = [sweep.seconds[group] for group in jobs.groups if group in sweep.seconds]
        each = sum(known) / len(known) if known else 60 * options.minutes_per_job / options.cells_per_job
        work = (sum(known) + each * (len(jobs) - len(known))) / 60 / options.minutes_per_job
    return max(1, min(math.ceil(work), options.array_parallelism))


def await_all(sweep: Sweep, monitor: Monitor) -> None:
    """Return when nothing is left, or nobody works on it any more: then it says how its tasks ended, if it had any."""
    jobs = slurm.jobs_of(sweep.folder)
    while monitor.left:
        time.sleep(_LOOK)
        if any(slurm.queued(job) != [] for job in jobs):
            continue
        monitor.look()
        monitor.look_at_store()
        with Leases(sweep.store.leases) as leases:
            held = leases.look()
        if held.keys().isdisjoint(name for name in monitor.names if name not in monitor.finished):
            break
    for text in (text for job in jobs for text in slurm.ended(job) if monitor.left):
        print(f"ended: {text}; its log: {sweep.folder / 'slurm'}", file=sys.stderr)
    if jobs:
        slurm.cancel(jobs, only_waiting=True)


def still_running(jobs: Sequence[str]) -> str:
    """ "job 12 (4 tasks)"."""
    return ", ".join(f"job {job} ({len(slurm.queued(job) or [])} tasks)" for job in jobs)

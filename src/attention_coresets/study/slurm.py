"""Slurm, by its own commands: a sweep's array jobs, and which of them still run. No accounting database is asked."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attention_coresets.study.disk import StudyError, write_atomically

_FIELDS = "ArrayJobID:20,ArrayTaskID:20,State:20,RestartCnt:10"
_NAME = "coresets"
_FRESH = 5.0  # seconds for which an answer of the queue is used again
_answers: dict[str, tuple[float, "list[Queued] | None"]] = {}


@dataclass(frozen=True)
class Task:
    """A task of an array job, or a whole job (index ""); a task that is requeued has started `restart` times before."""

    job: str
    index: str
    restart: int


@dataclass(frozen=True)
class Queued:
    """A task as the queue has it."""

    task: Task
    state: str


@dataclass
class Slurm:
    """What `launcher=slurm` asks the cluster for; `hydra.launcher.NAME=VALUE` on the command line.

    cells_per_job, minutes_per_job: how much work justifies one more task, at most `array_parallelism`; minutes go by
    what earlier cells of the same construction took. timeout_min: a task's limit of time, at which it is queued
    again if cells are left. gpus_per_task: a process for each. directives: further lines of `#SBATCH`, ``--qos=long``.
    setup: shell commands before Python, ``module load cuda``.
    """

    partition: str | None = None
    account: str | None = None
    timeout_min: int = 60
    cpus_per_task: int = 1
    mem_gb: float = 4.0
    gpus_per_task: int = 0
    array_parallelism: int = 16
    cells_per_job: int = 200
    minutes_per_job: float | None = None
    directives: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    python: str = sys.executable


def this_task() -> Task | None:
    """The task that this process is part of."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    return Task(job, os.environ.get("SLURM_ARRAY_TASK_ID", ""), restart) if job else None


def running(task: Task) -> bool | None:
    """Whether the task runs and has not been started anew since; None where no queue answers."""
    tasks = queued(task.job)
    return None if tasks is None else any(q.task == task and q.state in _HAVE_PROCESSES for q in tasks)


_HAVE_PROCESSES = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")


def queued(job: str) -> list[Queued] | None:
    """The tasks of a job that wait or run; None where no queue answers."""
    asked, tasks = _answers.get(job, (-_FRESH, None))
    if time.monotonic() - asked > _FRESH:
        tasks = _ask(job)
        _answers[job] = time.monotonic(), tasks
    return tasks


def submit(folder: Path, tasks: int, options: Slurm) -> None:
    """Queue array jobs with that many tasks in all, each working on the sweep in `folder`."""
    script = folder / "slurm" / "job.sh"
    write_atomically(script, _script(folder, options))
    largest = _largest_array()
    jobs: list[str] = []
    for first in range(0, tasks, largest):
        last = min(tasks - first, largest) - 1
        jobs.append(_sbatch(["--parsable", f"--array=0-{last}", str(script)]).partition(";")[0])
        write_atomically(folder / "slurm" / "jobs", "\n".join(jobs))  # at once: none is lost from sight


def end(jobs: Sequence[str]) -> str:
    """The command that ends the jobs."""
    return f"scancel {' '.join(jobs)}"


def cancel(jobs: Sequence[str], only_waiting: bool = False) -> None:
    """End jobs, or take those of their tasks out of the queue that have not begun."""
    _call(["scancel", *["--state=PENDING"] * only_waiting, *jobs])


def jobs_of(folder: Path) -> list[str]:
    """The array jobs that a sweep was given to."""
    path = folder / "slurm" / "jobs"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def sweeps() -> list[Path]:
    """The folders of this user's sweeps that wait or run; none where there is no Slurm."""
    try:
        done = _call(["squeue", "--me", "-h", "-o", "%j %o"])
    except StudyError:
        return []
    scripts = (line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith(f"{_NAME} "))
    return [folder for script in scripts if (folder := Path(script).parents[1]).exists()]


def requeue(task: Task) -> None:
    """End this task and put it into the queue again."""
    name = f"{task.job}_{task.index}" if task.index else task.job
    subprocess.run(["scontrol", "requeue", name], check=True, capture_output=True, text=True, encoding="utf-8")


def seconds_left() -> float | None:
    """Until this task's limit of time; None where it has none."""
    done = _call(["squeue", "-h", "-j", os.environ["SLURM_JOB_ID"], "-O", "TimeLeft:30"])
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", done.stdout.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def ended(job: str) -> list[str]:
    """How the tasks of a job ended that did not complete, as long as the controller remembers them."""
    done = _call(["scontrol", "show", "job", "-o", job])
    found = re.findall(r"^JobId=\d+ ArrayJobId=(\d+) ArrayTaskId=(\S+) .*?JobState=(\w+)", done.stdout, re.MULTILINE)
    return [f"{array}_{index} {state}" for array, index, state in found if state != "COMPLETED"]


def _script(folder: Path, options: Slurm) -> str:
    asked = {
        "job-name": _NAME,
        "output": f'"{folder}/slurm/%A_%a.log"',
        "open-mode": "append",
        "partition": options.partition,
        "account": options.account,
        "time": options.timeout_min,
        "cpus-per-task": options.cpus_per_task,
        "mem": f"{int(options.mem_gb * 1024)}M",
        "gres": f"gpu:{options.gpus_per_task}" if options.gpus_per_task else None,
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in asked.items() if value is not None]
    lines += ["#SBATCH --requeue", *(f"#SBATCH {directive}" for directive in options.directives)]
    work = shlex.join([options.python, "-m", "attention_coresets.study.worker", str(folder)])
    return "\n".join(["#!/bin/bash", *lines, *options.setup, f"exec {work}", ""])


def _largest_array() -> int:
    """MaxArraySize: one more than the largest index."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call(["scontrol", "show", "config"]).stdout, re.MULTILINE)
    return int(found[1]) if found else 1001


def _sbatch(arguments: Sequence[str]) -> str:
    done = _call(["sbatch", *arguments])
    if done.returncode != 0:
        raise StudyError(
            f"sbatch refused the job ({' '.join(done.stderr.split())}); see hydra.launcher in docs/cluster.md"
        )
    return done.stdout.strip()


def _ask(job: str) -> list[Queued] | None:
    try:
        done = _call(["squeue", "-h", "-r", "-j", job, "-O", _FIELDS])
    except StudyError:
        return None
    if done.returncode != 0:
        return [] if "Invalid job id" in done.stderr else None
    rows = (line.split() for line in done.stdout.splitlines())
    tasks = ((number, "" if index == "N/A" else index, state, restart) for number, index, state, restart in rows)
    return [Queued(Task(number, index, int(restart)), state) for number, index, state, restart in tasks]


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    except FileNotFoundError as error:
        raise StudyError(
            f"{command[0]}: no such command here; start the sweep where Slurm's commands are, or use launcher=joblib"
        ) from error

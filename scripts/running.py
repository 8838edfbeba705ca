"""Sweeps that run now: see them, join one, end one.

python scripts/running.py [--results DIR]     # all of them: cells, processes, and the commands below
python scripts/running.py SWEEP --watch       # its bar, while anybody works on it; Ctrl-C ends the looking alone
python scripts/running.py SWEEP --join 4      # four more processes of this machine work on it
python scripts/running.py SWEEP --end         # its jobs are cancelled, its processes on this machine end

SWEEP is the sweep's folder below outputs/. The sweep's own command, run again, joins it too: cells are shared out.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from attention_coresets.study import slurm
from attention_coresets.study.disk import StudyError
from attention_coresets.study.launchers import await_all, in_processes
from attention_coresets.study.leases import Worker, workers
from attention_coresets.study.plan import Sweep, load_sweep
from attention_coresets.study.progress import Board, monitor_of
from attention_coresets.study.store import Store

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    arguments = _parse()
    try:
        if arguments.sweep is None:
            return _list(Store(arguments.results))
        sweep = load_sweep(arguments.sweep.resolve())
        if arguments.end:
            return _end(sweep)
        if arguments.join or arguments.watch:
            return _watch(sweep, arguments.join)
        print(_describe(sweep, _living(sweep.store)))
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _list(store: Store) -> int:
    living = _living(store)
    folders = dict.fromkeys([worker.sweep for worker in living] + [str(folder) for folder in slurm.sweeps()])
    for folder in folders:
        print(_describe(load_sweep(Path(folder)), living))
    if not folders:
        print(f"no sweep runs on {store.results}")
    return 0


def _living(store: Store) -> list[Worker]:
    return [worker for worker in workers(store.leases) if worker.alive and worker.sweep]


def _describe(sweep: Sweep, living: list[Worker]) -> str:
    board = Board(sweep.board)
    board.look()
    jobs = sweep.jobs()
    finished = sweep.store.finished(jobs.names)
    done = sum(name in finished for name in jobs.names)
    own = [worker for worker in living if worker.sweep == str(sweep.folder)]
    hosts = ", ".join(f"{number} on {host}" for host, number in Counter(worker.host for worker in own).items())
    queued = [task for job in slurm.jobs_of(sweep.folder) for task in slurm.queued(job) or []]
    states = ", ".join(f"{number} {state}" for state, number in Counter(task.state for task in queued).items())
    lines = [f"{sweep.folder}: {sweep.title}, {done} of {len(jobs)} cells finished, {len(board.failed)} failed"]
    lines += [f"  processes: {hosts or 'none'}" + (f"; tasks of Slurm: {states}" if states else "")]
    lines += [f"  python scripts/running.py {sweep.folder} --watch | --join N | --end"]
    return "\n".join(lines)


def _watch(sweep: Sweep, processes: int) -> int:
    with monitor_of(sweep) as monitor:
        if processes:
            in_processes(sweep, processes, 1)
        else:
            await_all(sweep, monitor)
    print(monitor.summary(), file=sys.stderr)
    return 1 if monitor.left or monitor.board.failed else 0


def _end(sweep: Sweep) -> int:
    if jobs := slurm.jobs_of(sweep.folder):
        slurm.cancel(jobs)
    here = [worker for worker in _living(sweep.store) if worker.sweep == str(sweep.folder) and worker.here]
    for worker in here:
        os.kill(worker.pid, signal.SIGTERM)
    print(f"ended: {len(here)} processes here, {len(jobs)} jobs of Slurm; finished cells are kept")
    return 0


def _parse() -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, nargs="?", help="a sweep's folder; left out: all that run are listed")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--watch", action="store_true", help="show its progress")
    group.add_argument("--join", type=int, default=0, metavar="N", help="work on it with N processes")
    group.add_argument("--end", action="store_true", help="end it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""A real Slurm of one node, from Debian's packages, as root and without systemd; for tests and benchmarks."""

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "slurm-wlm-basic-plugins")
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={port_of_node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=50000,sched_interval=2,bf_interval=1
ReturnToService=2
JobRequeue=1
MaxArraySize={largest_array}
KillWait=5
OverTimeLimit=0
SlurmdTimeout=10
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes={host} Default=NO MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""


class NoClusterError(Exception):
    """Why no Slurm can be had here."""


@dataclass
class Cluster:
    """Slurm's daemons with their state in `folder`. While it runs, SLURM_CONF points at it."""

    folder: Path
    cpus: int = 2
    largest_array: int = 1001

    def __enter__(self) -> "Cluster":
        _install()
        ports = [_free_port(), _free_port()]
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o711)  # munge wants no folder that others may write to
        facts = {"folder": self.folder, "host": _host(), "cpus": self.cpus, "largest_array": self.largest_array}
        text = CONFIGURATION.format(port=ports[0], port_of_node=ports[1], **facts)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        os.environ["SLURM_CONF"] = str(self.folder / "slurm.conf")
        self._start_munge()
        _run("slurmctld", "-i")
        self.start_node()
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["scancel", "--user", "root"], check=False)
        for name in ("slurmd", "slurmctld", "munged"):
            self.kill(name, signal.SIGTERM)
        del os.environ["SLURM_CONF"]

    def start_node(self) -> None:
        """Start slurmd and wait for the node to take jobs."""
        _run("slurmd", "-N", _host())
        deadline = time.monotonic() + 60
        while (state := _run("sinfo", "-h", "-p", "main", "-o", "%T").strip()) not in ("idle", "mixed", "allocated"):
            if time.monotonic() > deadline:
                raise NoClusterError(f"the node is {state}; see {self.folder}/*.log")
            time.sleep(0.2)

    def kill(self, daemon: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to slurmd, slurmctld or munged."""
        path = self.folder / f"{daemon}.pid"
        if path.exists():
            try:
                os.kill(int(path.read_text()), number)
            except ProcessLookupError:
                path.unlink()

    def _start_munge(self) -> None:
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        kinds = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log"}
        options = [f"--{name}={self.folder / file}" for name, file in (kinds | {"seed-file": "munge.seed"}).items()]
        _run("munged", "--force", *options)


def _install() -> None:
    """NoClusterError where Slurm is neither here nor to be had."""
    if all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged", "sbatch")):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoClusterError(f"no Slurm here; as root, `apt-get install {' '.join(PACKAGES)}` on Debian")
    command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=240, check=False)
    except subprocess.TimeoutExpired as error:
        raise NoClusterError(f"`{' '.join(command)}` took more than four minutes") from error
    if done.returncode != 0:
        raise NoClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-200:]}")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise NoClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""The machine that measured, by its processor and not by its host name, and the versions that ran."""

import datetime
import os
import re
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from attention_coresets.compiled import NUMBA_MISSING
from attention_coresets.study.provenance import processor, provenance

MOST_BUSY = 0.1  # of the machine, by others: more, and times are not believed


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in GiB, GPU or None."""
    return {
        "processor": processor(),
        "cores": _cores(),
        "memory_gib": _memory_gib(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def slug(described: dict[str, Any]) -> str:
    """A file name for it: "intel-xeon-processor-2-cores"."""
    words = f"{described['processor']} {described['cores']} cores {described['gpu'] or ''}"
    words = re.sub(r"\((r|tm)\)", " ", words.lower())
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")


def how() -> dict[str, Any]:
    """Date, git revision, dirty flag, versions, BLAS, threads: what a part's numbers depend on beside the machine."""
    return provenance() | {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "numba": None if NUMBA_MISSING else _version("numba"),
        "goodpoints": _version("goodpoints"),
        "blas": _blas(),
        "threads": torch.get_num_threads(),
    }


class Others:
    """What other processes take of the machine from now on; on Linux alone, else nothing is known of them."""

    def __init__(self) -> None:
        self._start, self._before = time.perf_counter(), _others_seconds()

    def cores(self) -> float:
        """Cores that they have kept busy, on average."""
        return (_others_seconds() - self._before) / max(time.perf_counter() - self._start, 1e-9)

    def warning(self) -> str | None:
        """One line where that was more than a tenth of the machine."""
        taken, cores = self.cores(), os.cpu_count() or 1
        if taken <= MOST_BUSY * cores:
            return None
        return (
            f"other work kept {taken:.1f} of {cores} cores busy: believe neither times nor rates; ratios of processor "
            "time, errors and memory stand"
        )


def _others_seconds() -> float:
    """Processor seconds of all processes since the machine started, less those of this one and its children."""
    if not os.path.exists("/proc/stat"):
        return 0.0
    with open("/proc/stat", encoding="utf-8") as file:
        # user, nice, system, idle, waiting, interrupts, soft interrupts, stolen by other machines
        user, nice, system, _, _, hard, soft, stolen = map(int, file.readline().split()[1:9])
    own = os.times()
    every = (user + nice + system + hard + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return every - own.user - own.system - own.children_user - own.children_system


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _blas() -> str:
    """ "Intel(R) oneAPI Math Kernel Library Version 2024.2" of the build's own description, or its BLAS_INFO."""
    shown = torch.__config__.show()
    found = re.search(r"(Intel\(R\) oneAPI Math Kernel Library Version [\d.]+)", shown) or re.search(
        r"BLAS_INFO=(\w+)", shown
    )
    return found[1] if found else "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

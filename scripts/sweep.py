"""Run one cell or a whole experiment.

python scripts/sweep.py cache=sphere cache.n=1024 coreset=uniform rho=1 seed=0   # one cell, its rows printed
python scripts/sweep.py experiment=epsilon_rate tier=quick                       # a sweep; run again, it resumes
python scripts/sweep.py experiment=epsilon_rate launcher=joblib hydra.launcher.n_jobs=8 compute.dtype=float32
python scripts/sweep.py tune=walk                                                # parameters sought by Optuna
python scripts/sweep.py plugins=[my_module] coreset=top_norm rho=1               # a construction of one's own

python scripts/sweep.py experiment=league tier=full launcher=slurm hydra.launcher.partition=gpu    # docs/cluster.md

Finished cells go to results/cells; `python scripts/collect.py` makes the table of them, `python scripts/running.py`
shows the sweeps that run.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import os
import re
import sys

import hydra

from attention_coresets.study.config import REPOSITORY, register
from attention_coresets.study.explain import one_line, refuse_experiment_list, refuse_hydra_own, refuse_tuned_grid
from attention_coresets.study.job import run_job
from attention_coresets.study.plugins import load_plugins, named_plugins


def main() -> int:
    """Hydra's main with errors as one line: 1 for a failure, 130 after Ctrl-C. HYDRA_FULL_ERROR=1 shows tracebacks."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise what it would otherwise print in its own way
    try:
        load_plugins(named_plugins(sys.argv[1:]))
        register()
        refuse_experiment_list(sys.argv[1:])
        refuse_hydra_own(sys.argv[1:])
        refuse_tuned_grid(sys.argv[1:])
        # Hydra wants its flags before or after all overrides, not among them
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: re.match(r"~|[^-].*=", argument) is not None)
        hydra.main(config_path=str(REPOSITORY / "conf"), config_name="config", version_base="1.3")(run_job)()
    except KeyboardInterrupt:
        print("interrupted: finished cells are kept, the same command goes on from here", file=sys.stderr)
        return 130
    except SystemExit as stop:
        if wants_traceback and stop.__cause__ is not None:
            raise stop.__cause__ from None
        raise
    except Exception as error:
        if wants_traceback:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

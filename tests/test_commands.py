"""Every command on a page is one that can be given: a sweep's grid is laid out, other scripts take the arguments."""

import argparse
import re
import shlex
import sys
from itertools import islice
from pathlib import Path

import pytest

from attention_coresets.study.audit import laid_out
from attention_coresets.study.config import REPOSITORY
from command_line import script
from printed import commands

ELSEWHERE = ("pip", "wandb", "source", "export")  # other people's programs, and the shell's own words
TESTED = ("plugins=[my_module]", "tune=")  # run as printed by tests/test_pages.py and, tuned, by tests/test_sweep.py
LONG = re.compile(r"experiment=(league|ablation|certified)")  # grids of many constructions, each checked


COMMANDS = commands()
SWEEPS = [one for one in COMMANDS if one.startswith("python scripts/sweep.py") and not any(t in one for t in TESTED)]
SCRIPTS = [one for one in COMMANDS if one.startswith("python ") and not one.startswith("python scripts/sweep.py")]
SHELL = [one for one in COMMANDS if one.startswith("bash ")]


def test_there_is_no_other_kind_of_command():
    known = (*SWEEPS, *SCRIPTS, *SHELL)
    rest = [one for one in COMMANDS if one not in known and not any(tested in one for tested in TESTED)]
    assert [one for one in rest if one.split()[0] not in ELSEWHERE] == []
    assert min(len(SWEEPS), len(SCRIPTS), len(SHELL)) >= 5


@pytest.mark.parametrize(
    "command", [pytest.param(one, marks=[pytest.mark.slow] * bool(LONG.search(one))) for one in SWEEPS]
)
def test_a_sweep_is_laid_out(command):
    here = command.replace("compute.device=cuda", "compute.device=auto")  # the cluster's GPU may not be here
    cells = list(islice(laid_out(shlex.split(here)[2:]), 2))
    assert cells
    assert all(cell.config["coreset"]["name"] for cell in cells)


class TakenError(Exception):
    """The arguments were taken; no more is asked."""


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_script_takes_the_arguments(command, monkeypatch):
    _, path, *arguments = shlex.split(command.replace(" --join N", " --join 2"))
    parse = argparse.ArgumentParser.parse_args

    def parsed(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise TakenError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    monkeypatch.syspath_prepend(str((REPOSITORY / path).parent))
    module = script(Path(path).stem, Path(path).parent.name)
    with pytest.raises(TakenError):
        module.main()


@pytest.mark.parametrize("command", SHELL)
def test_a_shell_script_is_there_and_knows_its_options(command):
    _, path, *arguments = shlex.split(command)
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    for word in arguments:
        told = word.startswith("-m") or word in text or (REPOSITORY / word).exists()
        assert told or "pytest" in text, f"{path} knows no {word}"

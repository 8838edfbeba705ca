"""Errors as one line: which key or value, what is allowed, what to do."""

import re
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, InterpolationResolutionError, OmegaConfBaseException

from attention_coresets.study.disk import StudyError


def refuse_experiment_list(arguments: Sequence[str]) -> None:
    """Hydra 1.3 drops each file's own sweep where several experiments are asked for at once."""
    for argument in arguments:
        if re.match(r"\+*experiment=.*,", argument):
            names = re.split(r"[,\[\]()\s]+", argument.partition("=")[2].strip("[]() "))
            raise StudyError(
                f"{argument}: one experiment a run, each brings its own sweep; "
                f"use: for e in {' '.join(names)}; do python scripts/sweep.py experiment=$e; done"
            )


def refuse_hydra_own(arguments: Sequence[str]) -> None:
    """Hydra's own sweepers and launchers compose every cell anew where it is computed; the study has its own."""
    for argument in arguments:
        if re.match(r"\+*hydra[./]sweeper=(?!study$)", argument):
            raise StudyError(
                f"{argument}: the study plans all cells of a sweep together, itself; leave this out. Optuna, which "
                "chooses each cell by the results of those before: tune=NAME"
            )
        if found := re.match(r"\+*hydra[./]launcher=(.*)", argument):
            name = found[1] if found[1] in ("joblib", "slurm") else "local"
            raise StudyError(f"{argument}: the launcher is a choice of the study's own; use launcher={name}")
        if re.match(r"\+(experiment|arm|cache|coreset|adversary|launcher|tracking|tune)=", argument):
            raise StudyError(f"{argument}: + adds a group that is not there, and this one is; use {argument[1:]}")


def refuse_tuned_grid(arguments: Sequence[str]) -> None:
    """A tuning has no grid to be planned or shared out: each of its cells follows from the results before."""
    given = dict(argument.split("=", 1) for argument in arguments if re.match(r"\w+=", argument))
    if given.get("tune", "none") == "none":
        return
    if find_spec("optuna") is None:
        raise StudyError(f"tune={given['tune']}: needs Optuna; pip install hydra-optuna-sweeper")
    if "experiment" in given:
        raise StudyError(
            f"tune={given['tune']} experiment={given['experiment']}: each brings its own sweep; leave one of them out"
        )
    if given.get("launcher", "local") != "local":
        raise StudyError(
            f"launcher={given['launcher']}: the trials of tune={given['tune']} run one after the other, each chosen by "
            "the results before; use launcher=local"
        )


def refuse_arm_with_coreset(overrides: Sequence[str]) -> None:
    """An arm is a construction: naming another beside it would put a wrong label on the rows."""
    keys = {override.lstrip("+~").partition("=")[0]: override for override in overrides}
    if "coreset" in keys and keys.get("arm", "arm=null") != "arm=null":
        raise StudyError(
            f"{keys['arm']} {keys['coreset']}: an arm picks the construction itself; leave one of them out"
        )


def one_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, MissingConfigException):
        return _missing(error)
    if ambiguous := re.search(r"Ambiguous value for argument '(.*)'", str(error)):
        return (
            f"{ambiguous[1]}: several values make a sweep; add -m. A comma that belongs to one value is quoted: "
            f"{_quoted(ambiguous[1])}"
        )
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read as KEY=VALUE; a value with a comma, =, a bracket or a letter such as ü "
            f"is quoted, for the shell too: {_quoted(error.override)}"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}; make it readable and writable, or give another path"
    cause = next((e for e in _chain(error) if isinstance(e, OmegaConfBaseException)), None)
    if cause is not None:
        return _configuration(cause)
    text = " ".join(str(error).split())
    if isinstance(error, StudyError | ValueError | HydraException):
        return text
    return textwrap.shorten(f"{type(error).__name__}: {text}", 240, placeholder=" ...")


def _quoted(override: str) -> str:
    """Returns the override as a shell and Hydra both take it."""
    key, _, value = override.partition("=")
    inner = value.strip("'\"").replace('"', '\\"')
    return f"'{key}=\"{inner}\"'"


def _missing(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = list(error.options or [])
    if not group or not options:
        return " ".join(str(error).split())
    near = get_close_matches(option, options, n=1, cutoff=0.4)
    return f"{group}={option}: no such {group}; {_hint(near)}known: {', '.join(options)}"


def _configuration(cause: OmegaConfBaseException) -> str:
    what = (cause.msg or str(cause)).splitlines()[0]
    if grid := re.search(r"Interpolation key 'at\.([^.']*)\.?([^']*)' not found", what):
        tier, entry = grid.groups()
        return f"tier={tier}: the experiment's file holds no at.{tier}.{entry}; add it there or take another tier"
    key = cause.full_key or ""
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and not isinstance(cause, InterpolationResolutionError):
        parent = cause.parent_node
        known = [str(k) for k in parent if k not in ("name", "hydra")] if isinstance(parent, DictConfig) else []
        near = get_close_matches(str(cause.key), known, n=1, cutoff=0.4)
        return f"{key}: unknown key; {_hint(near)}known: {', '.join(known)}"
    return f"{key}: {what}" if key else what


def _hint(near: Sequence[str]) -> str:
    return f"did you mean {near[0]}? " if near else ""


def _chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_chain(error.__cause__ or error.__context__)]

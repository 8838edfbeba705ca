"""Values that the schemas let through but no cell can be computed for: refused before any work, one line each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from attention_coresets.caches import CACHES, is_weighted
from attention_coresets.caches.signed_clusters import SignedClusters
from attention_coresets.coresets.catalogue import CONSTRUCTIONS
from attention_coresets.coresets.exact.optimum import LARGEST_D as EXACT_D
from attention_coresets.coresets.exact.optimum import LARGEST_N as EXACT_N
from attention_coresets.hardness import LARGEST_N, OBJECTIVES, Effort
from attention_coresets.hardness.rate import MODELS
from attention_coresets.models.topics import PROBES, TOPICS
from attention_coresets.models.whole.arms import WHOLE
from attention_coresets.registry import build
from attention_coresets.study.cell import TASKS
from attention_coresets.study.costs import check_cost
from attention_coresets.study.disk import StudyError
from attention_coresets.study.identity import has_floors

ANSWERS = ("optimum", "gram_schmidt_walk")  # of task=hardness: the best subset of all, or a walk
BODIES = ("ball", "ellipsoid")
GOALS = ("error", "certificate", "loss", "kl")
SINKS, GRANULARITIES = ("none", "wandb"), ("arm", "cell")
TIERS = ("smoke", "quick", "reduced", "full")
_CHOICES = {"device": ("auto", "cpu", "cuda"), "dtype": ("float64", "float32")}


def check(config: Mapping[str, Any]) -> None:
    """StudyError that names key, value, limit and remedy unless the resolved configuration describes a cell."""
    rho, adversary = config["rho"], config["adversary"]
    _need(math.isfinite(rho) and rho > 0, "rho", rho, "a finite number above 0", "2")
    _need(config["seed"] >= 0, "seed", config["seed"], "at least 0", "0")
    _need(config.get("draw", 0) >= 0, "draw", config.get("draw", 0), "at least 0", "1")
    _need(config["heads"] >= 1, "heads", config["heads"], "at least 1", "1")
    _sizes(config["sizes"])
    for key, example in (("restarts", "64"), ("steps", "60"), ("polish", "80")):
        _need(adversary[key] >= 1, f"adversary.{key}", adversary[key], "at least 1", example)
    gap = adversary["gap"]
    _need(math.isfinite(gap) and gap > 0, "adversary.gap", gap, "a finite number above 0", "1e-3")
    _need(config["tier"] in TIERS, "tier", config["tier"], f"one of {', '.join(TIERS)}", "quick")
    tracking = config["tracking"]
    _need(tracking["name"] in SINKS, "tracking", tracking["name"], " or ".join(SINKS), "none")
    per = tracking.get("per", "arm")
    _need(per in GRANULARITIES, "tracking.per", per, " or ".join(GRANULARITIES), "arm")
    measure = config.get("goal", {}).get("measure", "error")
    _need(measure in GOALS, "goal.measure", measure, f"one of {', '.join(GOALS)}", "error")
    _compute(config["compute"])
    _parameters("cache", CACHES, config["cache"])
    construct = _parameters("coreset", {**CONSTRUCTIONS, **WHOLE}, config["coreset"])
    _sinks(config, construct)
    _optimum(config)
    _weights(config, construct)
    _text(config, construct)
    _task(config)
    _whole(config, construct)
    _body(config)
    if config.get("task", "errors") == "errors":
        check_cost(config, construct)
    if config["cache"]["name"] == "model":
        # a real head is one cache and is not drawn
        _need(config["heads"] == 1, "heads", config["heads"], "1 for cache=model; sweep cache.kv_head instead", "1")


def _sizes(sizes: Sequence[int]) -> None:
    _need(len(sizes) > 0 and min(sizes, default=0) >= 1, "sizes", sizes, "whole numbers, each at least 1", "[32,64]")
    _need(len(set(sizes)) == len(sizes), "sizes", sizes, "without repetition", "[32,64]")


def _compute(compute: Mapping[str, Any]) -> None:
    for key, allowed in _CHOICES.items():
        _need(compute[key] in allowed, f"compute.{key}", compute[key], f"one of {', '.join(allowed)}", allowed[0])
    for key in ("max_hours", "max_gb"):
        limit = compute.get(key)
        _need(limit is None or limit > 0, f"compute.{key}", limit, "above 0", "100")
    threads = compute["threads"]
    _need(threads is None or threads >= 1, "compute.threads", threads, "at least 1, or null for torch's choice", "1")
    if compute["device"] == "cuda" and not torch.cuda.is_available():
        raise StudyError("compute.device=cuda: torch sees no GPU here; use compute.device=cpu or auto")


def _parameters(group: str, registry: Mapping[str, type], part: Mapping[str, Any]) -> Any:
    """The registered dataclass checks its own parameters; its message gets the group in front."""
    try:
        return build(registry, group, part["name"], {key: value for key, value in part.items() if key != "name"})
    except ValueError as error:
        raise StudyError(f"{group}={part['name']}: {error}") from error


def _sinks(config: Mapping[str, Any], construct: Any) -> None:
    sinks = construct.sinks
    if sinks and min(config["sizes"]) <= sinks:
        raise StudyError(f"sizes={config['sizes']}: must exceed the coreset.sinks={sinks} that are always kept")
    if config["coreset"]["name"] == "uniform" and sinks and config["cache"].get("shuffle", False):
        raise StudyError(
            f"coreset.sinks={sinks}: keeps the first tokens, but cache.shuffle=true moves them; set cache.shuffle=false"
        )


def _optimum(config: Mapping[str, Any]) -> None:
    if config["coreset"]["name"] != "optimum" or config.get("task", "errors") != "errors":
        return
    n, d = config["cache"].get("n"), config["cache"].get("d")
    _need(n is None or n <= EXACT_N, "cache.n", n, f"at most {EXACT_N} for coreset=optimum", "16")
    _need(d is None or d <= EXACT_D, "cache.d", d, f"at most {EXACT_D} for coreset=optimum", "3")


def _weights(config: Mapping[str, Any], construct: Any) -> None:
    name, family = config["coreset"]["name"], config["cache"]["name"]
    if is_weighted(CACHES[family]) and not construct.takes_weights:
        raise StudyError(
            f"coreset={name}: counts every token once, but tokens of cache={family} have weights; use a construction "
            "that balances, such as gram_schmidt_walk"
        )


def _text(config: Mapping[str, Any], construct: Any) -> None:
    """Constructions that score tokens by a model's queries or by their place in its text need a real head."""
    name, family = config["coreset"]["name"], config["cache"]["name"]
    needs = {"queries": construct.needs_queries, "positions": construct.needs_positions}
    wants = [what for what, needed in needs.items() if needed]
    if wants and family != "model":
        raise StudyError(
            f"coreset={name}: needs the {' and '.join(wants)} of a text, which cache={family} has not; use cache=model"
        )


def _task(config: Mapping[str, Any]) -> None:
    """Language cells run a model, whatever head the cache names; elsewhere nothing keeps the recent tokens apart."""
    task, recent, sizes = config.get("task", "errors"), config.get("keep_recent", 0), config["sizes"]
    _need(task in TASKS, "task", task, f"one of {', '.join(TASKS)}", "language")
    _need(recent >= 0, "keep_recent", recent, "at least 0", "32")
    drawn = task == "errors" or config.get("draw", 0) == 0
    _need(drawn, "draw", config.get("draw", 0), "0 but for task=errors", "0")
    if task != "language":
        _need(recent == 0, "keep_recent", recent, "0 but for task=language", "0")
        probe = config.get("probe", "facts")
        _need(probe == "facts", "probe", probe, "facts but for task=language", "facts")
        if task == "hardness":
            _hardness(config)
        if task == "structured":
            _structured(config)
        if task == "replayed":
            _need(
                config["cache"]["name"] == "model", "cache", config["cache"]["name"], "model for task=replayed", "model"
            )
        return
    family, n = config["cache"]["name"], config["cache"].get("n", 0)
    _need(family == "model", "cache", family, "model for task=language", "model")
    _need(max(sizes) <= n, "sizes", sizes, f"at most cache.n={n} for task=language", f"[{n}]")
    _need(min(sizes) > recent, "sizes", sizes, f"above keep_recent={recent}", f"[{recent + 1}]")
    _need(config["cache"]["queries"] >= 2, "cache.queries", config["cache"]["queries"], "at least 2 tokens", "256")


def _whole(config: Mapping[str, Any], construct: Any) -> None:
    """What chooses for a whole model keeps recent tokens itself, and in each head its sinks and one token at least."""
    name, needles, probe = config["coreset"]["name"], config.get("needles", 4), config.get("probe", "facts")
    _need(1 <= needles <= len(TOPICS), "needles", needles, f"1 to {len(TOPICS)}", "8")
    _need(probe in PROBES, "probe", probe, f"one of {', '.join(PROBES)}", "pairs")
    if name not in WHOLE:
        return
    _need(config.get("task", "errors") == "language", "task", config.get("task"), f"language for {name}", "language")
    _need(config.get("keep_recent", 0) == 0, "keep_recent", config["keep_recent"], f"0 for {name}", "0")
    fixed, sizes = construct.sinks + construct.recent, config["sizes"]
    _need(min(sizes) > fixed, "sizes", sizes, f"above the {fixed} tokens that each head keeps anyway", f"[{fixed + 1}]")


def _structured(config: Mapping[str, Any]) -> None:
    """Only the coordinate subset is told by the clusters' logits alone, with as many tokens of each."""
    cache, name, sizes = config["cache"], config["coreset"]["name"], config["sizes"]
    known = cache["name"] == "signed_clusters" and has_floors(cache)
    _need(known, "cache", cache["name"], "signed_clusters with clusters <= d for task=structured", "signed_clusters")
    _need(name == "coordinate_subset", "coreset", name, "coordinate_subset for task=structured", "coordinate_subset")
    r = SignedClusters(**{key: value for key, value in cache.items() if key != "name"}).count
    _need(all(size % r == 0 for size in sizes), "sizes", sizes, f"multiples of {r} clusters", f"[{r}]")


def _hardness(config: Mapping[str, Any]) -> None:
    """A search moves unit keys and values against the best subsets of a tiny cache, or against a walk."""
    (name, n), sizes = (config["coreset"]["name"], config["cache"].get("n", 0)), config["sizes"]
    family, model = config["cache"]["name"], config["coreset"].get("model")
    _need(name in ANSWERS, "coreset", name, f"one of {', '.join(ANSWERS)} for task=hardness", ANSWERS[0])
    _need(model in MODELS, "coreset.model", model, f"one of {', '.join(MODELS)} for task=hardness", MODELS[0])
    _need(family != "model", "cache", family, "synthetic for task=hardness", "sphere")
    _need(max(sizes) < n, "sizes", sizes, f"below cache.n={n} for task=hardness", f"[{max(1, n // 2)}]")
    if name == "optimum":
        _need(n <= LARGEST_N, "cache.n", n, f"at most {LARGEST_N} for coreset=optimum and task=hardness", "16")
    search = config["search"]
    _need(search["objective"] in OBJECTIVES, "search.objective", search["objective"], " or ".join(OBJECTIVES), "own")
    try:
        Effort(**{key: value for key, value in search.items() if key != "objective"})
    except ValueError as error:
        raise StudyError(f"search: {error}") from error


def _body(config: Mapping[str, Any]) -> None:
    body, family = config.get("body", "ball"), config["cache"]["name"]
    _need(body in BODIES, "body", body, f"one of {', '.join(BODIES)}", "ball")
    if body != "ball":
        _need(family == "model", "cache", family, f"model for body={body}, which is of a model's queries", "model")


def _need(holds: bool, key: str, value: Any, limit: str, example: str) -> None:
    if not holds:
        raise StudyError(f"{key}={value}: must be {limit}, for example {key}={example}")

"""The configuration of a cell as dataclasses, so that Hydra refuses an unknown key or a wrong type before any work.

The schemas of cache families and constructions are generated from the registries: one field a parameter, plus `name`.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, AnyNode, OmegaConf, ValueNode

from attention_coresets.caches import CACHES
from attention_coresets.coresets.arms import ARMS
from attention_coresets.coresets.catalogue import CONSTRUCTIONS
from attention_coresets.models.own_files import own_files
from attention_coresets.models.whole.arms import WHOLE, WHOLE_ARMS
from attention_coresets.registry import source_of
from attention_coresets.study.disk import StudyError
from attention_coresets.study.slurm import Slurm

Composed = Any  # what Hydra composes, a DictConfig: the checker of annotations in the tests refuses its old-style bases
REPOSITORY = Path(__file__).resolve().parents[3]


def _key(what: str, default: Any = MISSING) -> Any:
    """A key of the configuration with what `--help` says of it."""
    return field(default=default, metadata={"what": what})


@dataclass
class Adversary:
    """Effort of `worst_query`; see its docstring."""

    restarts: int = _key("starts of the search for the worst query")
    steps: int = _key("steps of ascent from each start")
    polish: int = _key("steps of ascent in float64 from the best")
    certify: bool = _key("add proven ceilings of the error", False)
    gap: float = _key("branch and bound ends at this gap, in the unit of the values, up to d = 4", 1e-4)
    racing: bool = _key("give up climbs that fall behind", False)


@dataclass
class Search:
    """What a search for hard caches raises, and for how long; see `hardness.Rate` and `hardness.Effort`."""

    objective: str = _key("task=hardness: raise the error itself (rho) or in units of the own bound (own)", "own")
    rounds: int = _key("rounds of the search", 150)
    cycles: int = _key("cycles of cooling", 3)
    moves: int = _key("moves tried in a round", 6)


@dataclass
class Compute:
    """Where and how a cell is computed."""

    device: str = _key("auto (a GPU where torch sees one), cpu, cuda", "auto")
    dtype: str = _key("float64, float32", "float64")
    max_hours: float = _key("refuse cells that would take longer on one core", 24.0)
    max_gb: float | None = _key("refuse cells that need more memory; null: the machine's", None)
    threads: int | None = _key("torch threads of a process; null: torch's own choice", None)


@dataclass
class Tracking:
    """An optional dashboard beside the result table."""

    name: str = _key("none, wandb; chosen by tracking=NAME (docs/dashboards.md)", "none")
    per: str = _key("a run for each arm, or for each cell", "arm")
    project: str = _key("of W&B", "attention-coresets")


@dataclass
class Goal:
    """What a sweep with tune=NAME lowers, trial by trial."""

    measure: str = _key("tune=NAME lowers its median over heads: error, certificate, loss, kl", "error")
    size: int | None = _key("at this size; null: the last of sizes", None)


@dataclass
class Paths:
    """Where results and Hydra's own output go: the repository, from whatever directory the sweep is started."""

    results: str = _key("where cells and tables go", str(REPOSITORY / "results"))
    outputs: str = _key("where sweeps keep plan, board and log, and dashboards go", str(REPOSITORY / "outputs"))


@dataclass
class Processes:
    """What `launcher=joblib` asks for: processes of this machine, -1 for one a core."""

    n_jobs: int = 2


@dataclass
class Study:
    """One cell: a cache, a construction, rho, a seed, the sizes to build; `key_descriptions` has the keys in words."""

    cache: Any = field(
        default=MISSING, metadata={"what": "family of caches and its parameters: cache=sphere cache.n=1024 cache.d=8"}
    )
    coreset: Any = field(
        default=MISSING, metadata={"what": "construction and its parameters: coreset=greedy coreset.model=free"}
    )
    arm: str = _key("a construction with parameters under a name, or the label of the rows", "${coreset.name}")
    rho: float = _key("radius of the queries", 1.0)
    seed: int = _key("of the random numbers; the cache follows it alone", 0)
    draw: int = _key("1, 2, ...: other coresets of the same cache", 0)
    heads: int = _key("independent caches in a cell", 1)
    sizes: list[int] = field(default_factory=lambda: [32, 64, 128, 256], metadata={"what": "numbers of tokens to keep"})
    task: str = _key(
        "errors; structured (signed clusters of any size); language; replayed (a head, by its text's replay); hardness",
        "errors",
    )
    body: str = _key("queries an error is the worst of: ball, or ellipsoid of a real head's queries", "ball")
    keep_recent: int = _key("task=language: last tokens that are kept as they are", 0)
    needles: int = _key("task=language: facts that are planted in the text", 4)
    probe: str = _key("task=language: what the model is asked for: facts, one_kind, pairs or quotes", "facts")
    adversary: Adversary = field(default_factory=Adversary)
    search: Search = field(default_factory=Search)
    compute: Compute = field(default_factory=Compute)
    tracking: Tracking = field(default_factory=Tracking)
    goal: Goal = field(default_factory=Goal)
    paths: Paths = field(default_factory=Paths)
    plugins: list[str] = field(
        default_factory=list, metadata={"what": "modules of your own that register families or constructions"}
    )
    name: str | None = _key("what a sweep of your own is called", None)
    experiment: str | None = _key("label of the rows; experiment=NAME brings its grid", None)
    tier: str = _key("size of an experiment: smoke, quick, reduced, full", "reduced")
    at: dict[str, Any] = field(default_factory=dict, metadata={"what": "an experiment's grid by tier"})


def key_descriptions(kind: type = Study, above: str = "") -> str:
    """A line for each key of the configuration, for --help."""
    lines = []
    for each in dataclasses.fields(kind):
        name, inner = above + each.name, each.default_factory
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            lines.append(key_descriptions(inner, f"{name}."))
        else:
            lines.append(f"{name:<20} {each.metadata['what']}")
    return "\n".join(lines)


def schema(name: str, parameters: type) -> type:
    """The parameters of a registered (frozen) dataclass as a schema that Hydra can fill in, `name` first."""
    own = [(f.name, f.type, _default(f)) for f in dataclasses.fields(parameters) if f.name != "name"]
    return dataclasses.make_dataclass(f"{name} parameters", [("name", str, field(default=name)), *own])


# Hydra copies its store at each composition, lest that change it, which takes seconds; what it loads is a copy anyway
ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


def register() -> None:
    """Put into Hydra's ConfigStore what conf/ has no file for: `study_schema`, groups cache, coreset and arm."""
    OmegaConf.register_new_resolver("shares", _shares, replace=True)
    OmegaConf.register_new_resolver("key_descriptions", key_descriptions, replace=True)
    store = ConfigStore.instance()
    for group, registry in (("cache", CACHES), ("coreset", {**CONSTRUCTIONS, **WHOLE})):
        for name, parameters in registry.items():
            store.store(group=group, name=name, node=schema(name, parameters))
    if "study_schema.yaml" in store.repo:  # what follows does not change
        return
    store.store(name="study_schema", node=Study)
    for name, options in (("processes", Processes), ("slurm", Slurm)):
        store.store(group="hydra/launcher", name=name, node=options)
    for arm in ARMS.values():
        defaults = [{"override /coreset": arm.construction}]
        node = {"defaults": defaults, "arm": arm.label, "coreset": dict(arm.parameters)}
        store.store(group="arm", name=arm.label, node=node, package="_global_")
    for label, (name, parameters) in WHOLE_ARMS.items():
        node = {"defaults": [{"override /coreset": name}], "arm": label, "coreset": dict(parameters)}
        store.store(group="arm", name=label, node=node, package="_global_")


def resolve(config: Composed) -> dict[str, Any]:
    """The plain, fully interpolated configuration of one cell, without Hydra's own node and the grid it came from; its
    sources are still to be added (`with_sources`).

    StudyError for a key that was forced in with `+`.
    """
    known = [f.name for f in dataclasses.fields(Study)]
    for key in config:
        if key not in (*known, "hydra"):
            raise StudyError(f"{key}: unknown key, which nothing reads; known: {', '.join(known)}")
    return {str(key): _resolved(config, key) for key in config if key not in ("at", "hydra")}


def _resolved(config: Composed, key: Any) -> Any:
    """A key's value without interpolations. MissingMandatoryValue where it is still to be given.

    An interpolated 2 stays 2, though the schema makes 2.0 of one that is written: committed cells are named so.
    """
    node = config._get_child(key, throw_on_missing_value=True)
    if isinstance(node, ValueNode) and node._is_interpolation():
        node = AnyNode(node._value(), key=key, parent=config)
    node = node._maybe_dereference_node(throw_on_resolution_failure=True)
    assert node is not None  # OmegaConf raises where a key resolves to nothing
    return (
        OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
        if OmegaConf.is_config(node)
        else node._value()
    )


def with_sources(config: dict[str, Any]) -> dict[str, Any]:
    """A cell's configuration with its `sources_of`, where it has any."""
    sources = sources_of(config)
    return {**config, "sources": sources} if sources else config


def sources_of(config: dict[str, Any]) -> dict[str, str]:
    """Digests of the user's modules and files that cache and construction come from: with them the numbers change."""
    registries = {"cache": CACHES, "coreset": CONSTRUCTIONS}
    kinds = {part: registry.get(config[part]["name"]) for part, registry in registries.items()}
    found = {part: source_of(kind) for part, kind in kinds.items() if kind is not None}
    own = {part: source for part, source in found.items() if source is not None}
    of_model = config["cache"] if config["cache"]["name"] == "model" else {}
    return own | own_files(of_model.get("model", ""), of_model.get("text", ""))


def _shares(d: int, clusters: int, eighths: list[int]) -> list[int]:
    """The sizes k n/8, k in `eighths`, of a signed-clusters cache, for experiment files."""
    return [d * clusters * k // 8 for k in eighths]


def _default(parameter: dataclasses.Field) -> Any:
    if parameter.name == "rho":  # an instance that is built for the radius it is asked at
        return field(default="${rho}")
    if parameter.default_factory is not dataclasses.MISSING:
        return field(default_factory=parameter.default_factory)
    return field(default=MISSING if parameter.default is dataclasses.MISSING else parameter.default)

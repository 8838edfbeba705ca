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
from attention_coresets.registry import source_of
from attention_coresets.study.slurm import Slurm
from attention_coresets.study.store import StudyError

Composed = Any  # what Hydra composes, a DictConfig: the checker of annotations in the tests refuses its old-style bases
REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass
class Adversary:
    """Effort of `worst_query`; see its docstring."""

    restarts: int = MISSING
    steps: int = MISSING
    polish: int = MISSING
    certify: bool = False
    gap: float = 1e-4


@dataclass
class Search:
    """What a search for hard caches raises, and for how long; see `hardness.Rate` and `hardness.Effort`."""

    objective: str = "own"
    rounds: int = 150
    cycles: int = 3
    moves: int = 6


@dataclass
class Compute:
    """Where and how a cell is computed; threads: torch threads of a process, null leaves torch's own choice."""

    device: str = "auto"
    dtype: str = "float64"
    max_hours: float = 24.0
    max_gb: float | None = None
    threads: int | None = None


@dataclass
class Tracking:
    """An optional dashboard beside the result table: `none` or `wandb`, with a run `per` arm or cell."""

    name: str = "none"
    per: str = "arm"
    project: str = "attention-coresets"


@dataclass
class Paths:
    """Where results and Hydra's own output go: the repository, from whatever directory the sweep is started."""

    results: str = str(REPOSITORY / "results")
    outputs: str = str(REPOSITORY / "outputs")


@dataclass
class Processes:
    """What `launcher=joblib` asks for: processes of this machine, -1 for one a core."""

    n_jobs: int = 2


@dataclass
class Study:
    """One cell: a cache, a construction, rho, a seed, the sizes to build. `at` holds an experiment's grid by tier.

    seed, draw: the cache follows the seed alone; draw 1, 2, ... give other coresets of the same cache.
    task: `errors` of attention, head by head; `structured`: the same for signed clusters too large for their tokens;
    `language`: how a model predicts on coresets of its whole cache, of which `keep_recent` tokens are the last ones;
    or `hardness`: errors on the caches that a `search` from the cache's heads finds. body: the queries an error is the
    worst of, the `ball` of radius rho or, of a real head, rho times the `ellipsoid` that holds 95 % of its calibration
    queries. plugins: modules of one's own that register families or constructions.
    """

    cache: Any = MISSING
    coreset: Any = MISSING
    arm: str = "${coreset.name}"
    rho: float = 1.0
    seed: int = 0
    draw: int = 0
    heads: int = 1
    sizes: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    task: str = "errors"
    body: str = "ball"
    keep_recent: int = 0
    adversary: Adversary = field(default_factory=Adversary)
    search: Search = field(default_factory=Search)
    compute: Compute = field(default_factory=Compute)
    tracking: Tracking = field(default_factory=Tracking)
    paths: Paths = field(default_factory=Paths)
    plugins: list[str] = field(default_factory=list)
    experiment: str | None = None
    tier: str = "reduced"
    at: dict[str, Any] = field(default_factory=dict)


def schema(name: str, parameters: type) -> type:
    """The parameters of a registered (frozen) dataclass as a schema that Hydra can fill in, `name` first."""
    own = [(f.name, f.type, _default(f)) for f in dataclasses.fields(parameters) if f.name != "name"]
    return dataclasses.make_dataclass(f"{name} parameters", [("name", str, field(default=name)), *own])


def register() -> None:
    """Put into Hydra's ConfigStore what conf/ has no file for: `study_schema`, groups cache, coreset and arm."""
    OmegaConf.register_new_resolver("shares", _shares, replace=True)
    store = ConfigStore.instance()
    store.store(name="study_schema", node=Study)
    for name, options in (("processes", Processes), ("slurm", Slurm)):
        store.store(group="hydra/launcher", name=name, node=options)
    for group, registry in (("cache", CACHES), ("coreset", CONSTRUCTIONS)):
        for name, parameters in registry.items():
            store.store(group=group, name=name, node=schema(name, parameters))
    for arm in ARMS.values():
        defaults = [{"override /coreset": arm.construction}]
        node = {"defaults": defaults, "arm": arm.label, "coreset": dict(arm.parameters)}
        store.store(group="arm", name=arm.label, node=node, package="_global_")


def resolve(config: Composed) -> dict[str, Any]:
    """The plain, fully interpolated configuration of one cell, without Hydra's own node and the grid it came from.

    StudyError for a key that was forced in with `+`.
    """
    known = [f.name for f in dataclasses.fields(Study)]
    for key in config:
        if key not in (*known, "hydra"):
            raise StudyError(f"{key}: unknown key, which nothing reads; known: {', '.join(known)}")
    plain = {str(key): _resolved(config, key) for key in config if key not in ("at", "hydra")}
    sources = _sources(plain)
    return {**plain, "sources": sources} if sources else plain


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


def _sources(config: dict[str, Any]) -> dict[str, str]:
    """Digests of the user's modules that cache and construction come from: their text changes what is computed."""
    registries = {"cache": CACHES, "coreset": CONSTRUCTIONS}
    kinds = {part: registry.get(config[part]["name"]) for part, registry in registries.items()}
    found = {part: source_of(kind) for part, kind in kinds.items() if kind is not None}
    return {part: source for part, source in found.items() if source is not None}


def _shares(d: int, clusters: int, eighths: list[int]) -> list[int]:
    """The sizes k n/8, k in `eighths`, of a signed-clusters cache, for experiment files."""
    return [d * clusters * k // 8 for k in eighths]


def _default(parameter: dataclasses.Field) -> Any:
    if parameter.name == "rho":  # an instance that is built for the radius it is asked at
        return field(default="${rho}")
    if parameter.default_factory is not dataclasses.MISSING:
        return field(default_factory=parameter.default_factory)
    return field(default=MISSING if parameter.default is dataclasses.MISSING else parameter.default)

"""The cells of a command line: the product of its comma lists and ranges, each as a plain resolved configuration.

Hydra takes a tenth of a second to compose a configuration. So it composes one for each option of each config group that
is swept, not for each combination of options; what an option changes is then put on the others' ground, and values of
keys are set on the result. `tests/test_grid.py` holds all of it against Hydra's own composition, cell by cell.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from attention_coresets.study.config import Composed, resolve, with_sources
from attention_coresets.study.disk import StudyError

_NAME = re.compile(r"[A-Za-z_][\w.\[\]]*")


@dataclass(frozen=True)
class Axis:
    """A key or group with the values it takes: as text, ``cache.n=64``, and (of a key) as what is set."""

    key: str
    texts: list[str]
    values: list[Any]
    group: bool

    @property
    def swept(self) -> bool:
        return len(self.texts) > 1


def lay_out(arguments: Sequence[str], config: Composed, loader: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(label, resolved configuration) of every cell, in the order of the command line, the last key fastest.

    The label names what sets the cell apart within the sweep. Raises what Hydra raises of a key or value it refuses.
    """
    axes = _axes(arguments, loader)
    constant = [axis.texts[0] for axis in axes if not axis.swept]
    grounds = _Grounds(constant, [axis for axis in axes if axis.swept], config, loader)
    swept = [axis for axis in axes if axis.swept]
    for places in itertools.product(*(range(len(axis.texts)) for axis in swept)):
        label = " ".join(axis.texts[place] for axis, place in zip(swept, places, strict=True)) or "the only cell"
        options = tuple(p for axis, p in zip(swept, places, strict=True) if axis.group)
        values = [axis.values[p] for axis, p in zip(swept, places, strict=True) if not axis.group]
        yield label, grounds.at(options).with_values(values)


def _axes(arguments: Sequence[str], loader: Any) -> list[Axis]:
    """The axes of the arguments; a later one takes an earlier one's place."""
    groups = set(loader.list_groups(""))
    found: dict[str, Axis] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(arguments)):
        found[override.get_key_element()] = _axis(override, override.key_or_group in groups)
    return list(found.values())


def _axis(override: Override, group: bool) -> Axis:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return Axis(override.key_or_group, [f"{key}={override.get_value_element_as_str()}"], [override.value()], group)
    if not override.is_discrete_sweep():
        raise StudyError(
            f"{override.input_line}: a sweep visits listed values; use {key}=1,2,3, range(start,stop,step) or glob(*)"
        )
    elements = list(override.sweep_iterator())
    if not elements:
        raise StudyError(f"{override.input_line}: names no value, so that there is no cell; give at least one")
    texts = [f"{key}={Transformer.encode(element)}" for element in elements]
    return Axis(override.key_or_group, texts, [Override._convert_value(element) for element in elements], group)


class _Grounds:
    """Configurations by the options of the swept groups, each composed once."""

    def __init__(self, constant: list[str], swept: list[Axis], config: Composed, loader: Any) -> None:
        self._constant, self._config, self._loader = constant, config, loader
        self._groups = [axis for axis in swept if axis.group]
        self._keys = [axis.key for axis in swept if not axis.group]
        # Hydra checks these before it composes; afterwards they are set cell by cell
        self._first = [axis.texts[0] for axis in swept if not axis.group]
        self._made: dict[tuple[int, ...], _Ground] = {}
        self._composed: dict[tuple[int, ...], Composed] = {}
        self._changed: dict[tuple[int, int], set[str]] = {}
        self._grafts: bool | None = None

    def at(self, options: tuple[int, ...]) -> "_Ground":
        if options not in self._made:
            graft = len(self._groups) > 1 and self._may_graft()
            composed = self._grafted(options) if graft else self._compose(options)
            self._made[options] = _Ground(composed, self._keys)
        return self._made[options]

    def _compose(self, options: tuple[int, ...]) -> Composed:
        if options not in self._composed:
            texts = [axis.texts[option] for axis, option in zip(self._groups, options, strict=True)]
            composed = self._loader.load_sweep_config(self._config, [*self._constant, *texts, *self._first])
            with open_dict(composed):
                del composed["hydra"]  # half of it, and nothing of a cell
            self._composed[options] = composed
        return self._composed[options]

    def _may_graft(self) -> bool:
        """Whether the groups change different keys, and the last combination comes out as Hydra composes it."""
        if self._grafts is None:
            last = tuple(len(axis.texts) - 1 for axis in self._groups)
            touched = [
                set().union(*(self._changes(at, option) for option in range(len(axis.texts))))
                for at, axis in enumerate(self._groups)
            ]
            apart = not any(a & b for a, b in itertools.combinations(touched, 2))
            self._grafts = apart and _raw(self._grafted(last)) == _raw(self._compose(last))
        return self._grafts

    def _changes(self, at: int, option: int) -> set[str]:
        """The top-level keys that an option of a group changes, beside the first options of all."""
        if (at, option) not in self._changed:
            first, other = _raw(self._compose((0,) * len(self._groups))), _raw(self._compose(self._alone(at, option)))
            self._changed[at, option] = {key for key in {*first, *other} if first.get(key) != other.get(key)}
        return self._changed[at, option]

    def _alone(self, at: int, option: int) -> tuple[int, ...]:
        return tuple(option if place == at else 0 for place in range(len(self._groups)))

    def _grafted(self, options: tuple[int, ...]) -> Composed:
        whole = self._compose((0,) * len(self._groups)).copy()
        with open_dict(whole):
            for at, option in enumerate(options):
                other = self._compose(self._alone(at, option))
                for key in self._changes(at, option):
                    whole[key] = other._get_node(key)
        return whole


@dataclass
class _Ground:
    """A composed configuration on which the values of some keys are still to be set."""

    composed: Composed
    keys: list[str]
    _resolved: dict[str, dict[str, Any]] = field(default_factory=dict)
    _set: dict[tuple[str, str], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = _references(_raw(self.composed))
        self._felt = [key for key in self.keys if names is None or any(_related(key, name) for name in names)]

    def with_values(self, values: Sequence[Any]) -> dict[str, Any]:
        """The resolved configuration; interpolations are resolved anew only where they refer to a key that changes."""
        felt = repr([value for key, value in zip(self.keys, values, strict=True) if key in self._felt])
        if felt not in self._resolved or any("${" in str(value) for value in values):
            for key, value in zip(self.keys, values, strict=True):
                OmegaConf.update(self.composed, key, value)
            self._resolved[felt] = resolve(self.composed)
        config = _copy(self._resolved[felt])
        for key, value in zip(self.keys, values, strict=True):
            *parents, last = key.split(".")
            place = config
            for parent in parents:
                place = place.get(parent, {})  # `at`, the grid itself, is no part of a resolved configuration
            place[last] = self._converted(key, value)
        config.pop("at", None)
        return with_sources(config)

    def _converted(self, key: str, value: Any) -> Any:
        """The value as the schema takes it, or its refusal."""
        name = (key, repr(value))
        if name not in self._set:
            OmegaConf.update(self.composed, key, value)
            found = OmegaConf.select(self.composed, key)
            plain = OmegaConf.to_container(found, resolve=True) if isinstance(found, DictConfig | ListConfig) else found
            if "${" in str(value):
                return plain
            self._set[name] = plain
        return _copy(self._set[name])


def _raw(config: Composed) -> dict[Any, Any]:
    """A configuration as it is written."""
    return OmegaConf.to_container(config, resolve=False)  # type: ignore[return-value]


def _references(node: Any) -> set[str] | None:
    """Every name in an interpolation below a node; None where one is relative, or its name is itself put together."""
    if isinstance(node, Mapping):
        node = list(node.values())
    if isinstance(node, list):
        below = [_references(each) for each in node]
        return None if any(each is None for each in below) else set().union(*(each or () for each in below))
    if not isinstance(node, str) or "${" not in node:
        return set()
    if re.search(r"\$\{\s*[.$]", node):
        return None
    return {name.rstrip(".[") for name in _NAME.findall(node)}


def _related(key: str, name: str) -> bool:
    """Whether one is the other or lies below it."""
    return any(re.match(rf"{re.escape(a)}(\.|\[|$)", b) for a, b in ((name, key), (key, name)))


def _copy(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copy(value) for key, value in node.items()}
    return list(node) if isinstance(node, list) else node

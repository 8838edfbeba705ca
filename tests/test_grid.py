"""The grid of a command line, against Hydra's own composition of every job."""

import dataclasses
import itertools
import json

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from attention_coresets.study.config import REPOSITORY, Study, register
from attention_coresets.study.disk import StudyError
from attention_coresets.study.explain import one_line
from attention_coresets.study.grid import lay_out


@pytest.fixture
def loader():
    register()
    GlobalHydra.instance().clear()
    yield Hydra.create_main_hydra2("sweep", create_config_search_path(str(REPOSITORY / "conf"))).config_loader
    GlobalHydra.instance().clear()


def compose(loader, constant):
    return loader.load_configuration("config", list(constant), RunMode.MULTIRUN)


def whole(config) -> dict:
    """A composed configuration as OmegaConf itself resolves it."""
    known = [field.name for field in dataclasses.fields(Study)]
    plain = OmegaConf.to_container(OmegaConf.masked_copy(config, known), resolve=True, throw_on_missing=True)
    return {key: value for key, value in plain.items() if key != "at"}


def grid_of(loader, arguments):
    """The planned cells, and those that Hydra composes one by one."""
    config = compose(loader, [a for a in arguments if "," not in a and "(" not in a])
    grid = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()] + list(arguments)
    jobs = BasicSweeper.split_arguments(OverridesParser.create(config_loader=loader).parse_overrides(grid), None)[0]
    return list(lay_out(grid, config, loader)), [whole(loader.load_sweep_config(config, job)) for job in jobs]


@pytest.mark.parametrize(
    "arguments",
    [
        ("cache=sphere,signed_clusters", "cache.n=16,32", "cache.d=4", "rho=0.5,'2'", "sizes=[4],[8,12]"),
        ("arm=uniform,walk_tilted", "cache=sphere", "cache.n=16", "seed=range(0,4,2)", "rho=2"),
        ("coreset=uniform,gram_schmidt_walk", "tier=quick,smoke", "adversary=glob(t*)", "cache.n=8", "cache.d=2"),
        ("cache=sphere", "cache.n=16", "cache.d='${cache.n}',2", "sizes=[4]", "coreset.model=free,tilted"),
        ("arm=walk_free_kernel_swaps,minimax_free", "cache=sphere,clusters", "adversary=tiny,default"),
        pytest.param(("experiment=lower_bound_exponents", "tier=smoke"), marks=pytest.mark.slow),
        pytest.param(("experiment=upper_bound", "tier=smoke"), marks=pytest.mark.slow),
        pytest.param(("experiment=real_errors", "tier=smoke"), marks=pytest.mark.slow),
        pytest.param(("experiment=lower_bound_orthonormal", "tier=smoke", "cache.d=4,8"), marks=pytest.mark.slow),
        ("cache=sphere", "cache.n=16"),
    ],
)
def test_every_cell_is_what_hydra_composes(loader, arguments) -> None:
    found, expected = grid_of(loader, arguments)
    assert [json.dumps(config) for _, config in found] == [json.dumps(config) for config in expected]  # 2 is not 2.0
    assert len({label for label, _ in found}) == len(found)


def test_a_combination_that_its_options_do_not_make_is_composed(loader, tmp_path) -> None:
    """An option that reaches into another group's key: grafting one on the other's ground would lose one of the two."""
    for name, seed in (("one", 1), ("two", 2)):
        (tmp_path / "tracking").mkdir(exist_ok=True)
        (tmp_path / "tracking" / f"{name}.yaml").write_text(
            f"# @package _global_\nrho: {seed}\ncache:\n  d: {seed + 2}\n"
        )
    where = f"hydra.searchpath=[file://{tmp_path}]"
    found, expected = grid_of(loader, (where, "tracking=one,two", "cache=sphere,clusters", "cache.n=16"))
    assert [config for _, config in found] == expected
    assert {config["cache"]["d"] for _, config in found} == {3, 4}


def test_labels_name_what_is_swept_in_the_order_of_the_line(loader) -> None:
    config = compose(loader, [])
    cells = lay_out(["cache=sphere", "rho=1,2", "seed=3", "cache.n=8,16"], config, loader)
    expected = [f"rho={rho} cache.n={n}" for rho, n in itertools.product((1, 2), (8, 16))]
    assert [label for label, _ in cells] == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rho=1,two"], "rho: Value 'two' of type 'str' could not be converted to Float"),
        (["cache=sphere,clusters", "cache.n=8,half"], "half"),
        (["cache=sphere", "cache.m=1,2"], "cache.m: unknown key; known: n, d"),
        (["rho=interval(1,2)"], "a sweep visits listed values"),
        (["seed=range(3,3)"], "names no value"),
    ],
)
def test_a_value_that_its_schema_refuses_is_refused(loader, arguments, says) -> None:
    with pytest.raises(Exception) as caught:
        list(lay_out(arguments, compose(loader, []), loader))
    assert says in one_line(caught.value)
    assert isinstance(caught.value, StudyError) or "omegaconf" in type(caught.value).__module__ + str(
        type(caught.value.__cause__).__module__
    )

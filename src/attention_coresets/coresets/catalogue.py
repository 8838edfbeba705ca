"""The registered constructions, by name: built in here, or added by `register_construction`."""

from collections import ChainMap
from typing import Any

from attention_coresets.coresets.arms import ARMS
from attention_coresets.coresets.balancing.gram_schmidt_walk import GramSchmidtWalk
from attention_coresets.coresets.balancing.greedy import Greedy
from attention_coresets.coresets.balancing.kernel_halving import KernelHalving
from attention_coresets.coresets.balancing.paired_coin import PairedCoin
from attention_coresets.coresets.balancing.self_balancing_walk import SelfBalancingWalk
from attention_coresets.coresets.balancing.tilted_draws import TiltedDraws
from attention_coresets.coresets.base import Construction
from attention_coresets.coresets.conformance import check_type
from attention_coresets.coresets.draws.sensitivity_draws import SensitivityDraws
from attention_coresets.coresets.draws.uniform import Uniform
from attention_coresets.coresets.eviction import EVICTION
from attention_coresets.coresets.exact.coordinate_subset import CoordinateSubset
from attention_coresets.coresets.exact.optimum import Optimum
from attention_coresets.coresets.kernel.frank_wolfe import FrankWolfe
from attention_coresets.coresets.kernel.herding import Herding
from attention_coresets.coresets.kernel.nystrom import Nystrom
from attention_coresets.coresets.published.balancekv import BalanceKV
from attention_coresets.coresets.published.k_center import KCenter
from attention_coresets.coresets.published.subgen import SubGen
from attention_coresets.coresets.published.thinformer import Thinformer
from attention_coresets.coresets.queries.query_exchange import QueryExchange
from attention_coresets.coresets.queries.query_walk import QueryWalk
from attention_coresets.coresets.two_stage import TwoStage
from attention_coresets.registry import add, build

CORESETS: dict[str, type[Construction]] = {  # those that take any cache
    "uniform": Uniform,
    "paired_coin": PairedCoin,
    "tilted_draws": TiltedDraws,
    "gram_schmidt_walk": GramSchmidtWalk,
    "self_balancing_walk": SelfBalancingWalk,
    "kernel_halving": KernelHalving,
    "greedy": Greedy,
    "sensitivity_draws": SensitivityDraws,
    "herding": Herding,
    "frank_wolfe": FrankWolfe,
    "nystrom": Nystrom,
    "k_center": KCenter,
    "subgen": SubGen,
    "optimum": Optimum,
    "balancekv": BalanceKV,
    "thinformer": Thinformer,
    "two_stage": TwoStage,
    "query_walk": QueryWalk,
    "query_exchange": QueryExchange,
    **EVICTION,
}
FOR_ONE_FAMILY: dict[str, type[Construction]] = {"coordinate_subset": CoordinateSubset}
CONSTRUCTIONS = ChainMap(CORESETS, FOR_ONE_FAMILY)  # all of them: what is added goes to the first


def make_coreset(name: str, **parameters: Any) -> Construction:
    """Makes a construction: ``make_coreset("gram_schmidt_walk", model="tilted")``, or by an arm's label.

    Parameters
    ----------
    name : str
        A name in CORESETS, `coordinate_subset` (of signed clusters), or else the label of an arm (arms.py), whose
        parameters it then has.
    **parameters
        Those of the construction, beside or in place of the arm's.

    Returns
    -------
    Construction
        Called as ``construct(cache, size=256, rho=2.0, generator=g)``, it gives a Coreset of exactly that size.

    Raises
    ------
    ValueError
        For an unknown name or parameter, naming the nearest, and for values that the construction refuses.
    """
    arm = None if name in CONSTRUCTIONS else ARMS.get(name)
    if arm is not None:
        return build(CONSTRUCTIONS, "construction", arm.construction, arm.parameters | parameters)
    return build(CONSTRUCTIONS, "construction", name, parameters)


def register_construction(name: str, construction: type[Construction]) -> None:
    """Adds a construction of one's own to CORESETS, so that `make_coreset` and the sweeps know it by `name`.

    Parameters
    ----------
    name : str
        Letters, digits and underscores; not that of another construction or arm.
    construction : type[Construction]
        The class: a frozen dataclass of its parameters that inherits from Construction.

    Raises
    ------
    ValueError
        Where the name is taken, or the class is no such type (`check_type` of conformance.py).
    """
    check_type(construction)
    if name in ARMS and name not in CONSTRUCTIONS:
        raise ValueError(f"construction {name}: the name is that of an arm (coresets/arms.py); choose another")
    add(CONSTRUCTIONS, "construction", name, construction)

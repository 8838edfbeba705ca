"""Coreset constructions: one a file, a frozen dataclass of parameters that is called with a cache."""

from attention_coresets.coresets.balancekv import BalanceKV
from attention_coresets.coresets.eviction import EVICTION
from attention_coresets.coresets.frank_wolfe import FrankWolfe
from attention_coresets.coresets.gram_schmidt_walk import GramSchmidtWalk
from attention_coresets.coresets.greedy import Greedy
from attention_coresets.coresets.herding import Herding
from attention_coresets.coresets.k_center import KCenter
from attention_coresets.coresets.kernel_halving import KernelHalving
from attention_coresets.coresets.nystrom import Nystrom
from attention_coresets.coresets.optimum import Optimum
from attention_coresets.coresets.paired_coin import PairedCoin
from attention_coresets.coresets.query_exchange import QueryExchange
from attention_coresets.coresets.query_walk import QueryWalk
from attention_coresets.coresets.self_balancing import SelfBalancingWalk
from attention_coresets.coresets.sensitivity_draws import SensitivityDraws
from attention_coresets.coresets.stream import HeldCoreset, Stream
from attention_coresets.coresets.subgen import SubGen
from attention_coresets.coresets.tilted_draws import TiltedDraws
from attention_coresets.coresets.uniform import Uniform
from attention_coresets.registry import build

__all__ = ["CORESETS", "HeldCoreset", "Stream", "make_coreset"]

CORESETS: dict[str, type] = {
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
    "query_walk": QueryWalk,
    "query_exchange": QueryExchange,
    **EVICTION,
}


def make_coreset(name: str, **parameters):
    """A construction by its registered name: ``make_coreset("gram_schmidt_walk", model="tilted")``.

    The result is called as ``construct(cache, size=256, rho=2.0, generator=g)`` and returns a Coreset of exactly that
    size. Raises ValueError for an unknown name or parameter, naming the nearest, and for values it refuses.
    """
    return build(CORESETS, "construction", name, parameters)

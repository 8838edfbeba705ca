"""A real attention head: its normalised cache, its own queries, and errors at held-out queries."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, attention_error, attention_weights


@dataclass(frozen=True)
class RealHead:
    """One KV head of a model: its cache in text order and the queries of all its query heads, normalised, in float64.

    Keys are (k - key_mean) / key_radius and values (v - value_mean) / value_scale, both within the unit ball. Queries
    are q * scaling * key_radius. So attend(q, keys, values) * value_scale + value_mean is exactly the model's attention
    over these n tokens.

    cache: ``[n, d]`` and ``[n, dv]``.
    calibration: queries ``[b, d]`` of the cache's last c positions in order, one query head's after another's.
    moved: the same as if they were asked at the c positions after the cache (rotary.py). Of a head that a replay asks:
        the replay's (whole/replayed_heads.py).
    heldout: queries of later positions.
    group: query heads that share the KV head.
    """

    cache: Cache
    calibration: Float[Tensor, "b d"]
    moved: Float[Tensor, "m d"]
    heldout: Float[Tensor, "h d"]
    scaling: float
    key_mean: Float[Tensor, "d"]
    key_radius: float
    value_mean: Float[Tensor, "dv"]
    value_scale: float
    group: int = 1

    @property
    def rho(self) -> float:
        """Returns max |q| over all the head's queries, keys centred at their mean: theory's rho of this head."""
        return float(torch.cat([self.moved, self.heldout]).norm(dim=-1).max())

    def in_model_units(self, moved: bool = False) -> tuple[Cache, Float[Tensor, "group b d"]]:
        """Returns the cache as the model computes it, and the calibration queries times its scaling, by query head.

        With `moved` these are the moved ones. Logits are those of the normalised head but for one constant a query.
        What depends on the origin of the keys or on norms of values is then as its authors defined it.
        """
        keys = self.cache.keys * self.key_radius + self.key_mean
        values = self.cache.values * self.value_scale + self.value_mean
        queries = self.moved if moved else self.calibration
        return Cache(keys, values), queries.unflatten(0, (self.group, -1)) / self.key_radius


def real_head(
    keys: Float[Tensor, "n d"],
    values: Float[Tensor, "n dv"],
    calibration: Float[Tensor, "group b d"],
    moved: Float[Tensor, "group m d"],
    heldout: Float[Tensor, "group h d"],
    scaling: float,
) -> RealHead:
    """Normalises one KV head of a model, given as the model computes it; logits there are scaling * <q, k>."""
    keys, key_mean, key_radius = normalised(keys.to(torch.float64))
    values, value_mean, value_scale = normalised(values.to(torch.float64))
    asked = (x.to(torch.float64) * (scaling * key_radius) for x in (calibration, moved, heldout))
    return RealHead(
        Cache(keys, values),
        *(x.flatten(0, 1) for x in asked),
        scaling=scaling,
        key_mean=key_mean,
        key_radius=float(key_radius),
        value_mean=value_mean,
        value_scale=float(value_scale),
        group=len(heldout),
    )


def normalised(
    x: Float[Tensor, "*heads n d"],
) -> tuple[Float[Tensor, "*heads n d"], Float[Tensor, "*heads d"], Float[Tensor, "*heads"]]:
    """Returns x about its mean over its largest norm (1 where that is 0), the mean, and that norm, head by head."""
    mean = x.mean(dim=-2)
    apart = x - mean.unsqueeze(-2)
    largest = apart.norm(dim=-1).amax(dim=-1)
    largest = torch.where(largest > 0, largest, 1.0)
    return apart / largest[..., None, None], mean, largest


def calibration_weights(head: RealHead) -> Float[Tensor, "b n"]:
    """Computes softmax_i(q) of the calibration queries over the keys each of them sees: those up to its own position.

    Query j of c stands at position n - c + j of the cache; later tokens get weight 0. These are the model's own
    attention rows.
    """
    queries = head.calibration.unflatten(0, (head.group, -1))
    places = torch.arange(head.cache.n, device=queries.device)
    return attention_weights(queries, head.cache.keys, places).flatten(0, 1)


def heldout_errors(head: RealHead, coreset: Coreset, cache: Cache | None = None) -> dict[str, Float[Tensor, "*heads"]]:
    """Measures mean, 99th percentile and maximum of the attention error at the head's held-out queries.

    Errors are in normalised value units; times head.value_scale they are in the model's own. `cache` is what the
    coreset was made of, if not head.cache itself: the same tokens in another order, or a batch of such, whose leading
    axes the results have.
    """
    cache = head.cache if cache is None else cache
    queries = head.heldout.to(cache.keys).expand(*cache.heads, -1, -1)
    errors = attention_error(queries, cache, coreset)  # [*heads, b]
    return {
        "heldout_mean": errors.mean(dim=-1),
        "heldout_p99": errors.quantile(0.99, dim=-1),
        "heldout_max": errors.amax(dim=-1),
    }

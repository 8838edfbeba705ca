"""Defines query bodies: queries about a centre, in a shape, in place of the ball of radius rho about 0.

A body holds the queries center + axes u with |u| <= rho. For a key k, <center + axes u, k> = <u, axes^T k> + <center,
k>. So a cache asked queries of the body is a weighted cache with keys axes^T k asked queries u of a ball, and whatever
takes a WeightedCache takes a body.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, WeightedCache, base_weights
from attention_coresets.checks import positive
from attention_coresets.geometry.loewner import enclosing_weights
from attention_coresets.inputs import FLOATS, Array, check_finite, least_float32, tensor

_IN_SPAN = 1e-5  # of its own size: how far a query may lie from center + span(axes)
_RANK = 1e-7  # of the largest: singular values below it are no direction of the queries


@dataclass(frozen=True)
class QueryBody:
    """The queries center + axes u with |u| <= rho: an ellipsoid.

    A body without leading axes serves every head. To build a coreset for it, build one of its view and bring it back:

        body = ellipsoid(calibration, coverage=0.95)
        view = body.view(cache)                              # a WeightedCache with keys in R^r
        sigma = tilt(view.keys, 1.0, view.log_weights).sigma
        coreset = body.outside(construct(view, size=256, rho=1.0, generator=generator), cache)
        worst = worst_query(cache, coreset, 1.0, body=body)  # worst.query is one of the body's

    Parameters
    ----------
    center : Float[Tensor, "*heads d"]
    axes : Float[Tensor, "*heads d r"]
        In the dtype of the centre.

    Raises
    ------
    ValueError
        On shapes that do not match, dtypes that differ or are not floating, NaN or Inf.
    """

    center: Float[Tensor, "*heads d"]
    axes: Float[Tensor, "*heads d r"]

    def __post_init__(self) -> None:
        for name in ("center", "axes"):
            object.__setattr__(self, name, tensor(name, getattr(self, name)))
        if (
            self.axes.dim() != self.center.dim() + 1
            or self.axes.shape[:-1] != self.center.shape
            or 0 in self.axes.shape
        ):
            raise ValueError(
                f"axes {tuple(self.axes.shape)} must be [*heads, d, r] beside a center {tuple(self.center.shape)}"
            )
        if self.center.dtype != self.axes.dtype or self.center.dtype not in FLOATS:
            raise ValueError(f"center and axes need one floating dtype, got {self.center.dtype} and {self.axes.dtype}")
        for name, x in (("center", self.center), ("axes", self.axes)):
            if not bool(x.isfinite().all()):
                raise ValueError(f"{name} of a query body hold NaN or Inf")

    @staticmethod
    def ball(d: int) -> "QueryBody":
        """Returns the plain ball about 0, float64."""
        return QueryBody(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))

    def __getitem__(self, head) -> "QueryBody":
        """Returns the body of one head, or of a slice of the leading axes."""
        return QueryBody(self.center[head], self.axes[head])

    def to(self, *args, **kwargs) -> "QueryBody":
        """Returns the same body on another device or in another dtype, as ``Tensor.to``."""
        return QueryBody(self.center.to(*args, **kwargs), self.axes.to(*args, **kwargs))

    def view(self, cache: Cache) -> WeightedCache:
        """Returns the cache as queries u see it: keys axes^T k_i, with <center, k_i> added to the log-weights.

        The largest log-weight is taken off all of them, which changes nothing. Computed in float64 and returned in the
        dtype of the cache, in float32 at least. Raises ValueError where body and cache do not fit each other.

        Cost: O(n d r) a head.
        """
        self._check(cache)
        keys, log_weights = cache.keys.to(torch.float64), self._log_weights(cache)
        log_weights = log_weights - log_weights.amax(dim=-1, keepdim=True)
        dtype = least_float32(cache.keys.dtype)
        return WeightedCache(*(x.to(dtype) for x in (keys @ self.axes.to(keys), cache.values, log_weights)))

    def inside(self, coreset: Coreset, cache: Cache) -> Coreset:
        """Turns a coreset of `cache` into one of its view, in float64: adds to its log-weights what `view` adds."""
        shift = self._shift(cache, coreset)
        return Coreset(coreset.indices, shift if coreset.log_weights is None else coreset.log_weights + shift)

    def outside(self, coreset: Coreset, cache: Cache) -> Coreset:
        """Turns a coreset of the view into one of `cache`, in its dtype or float32: takes off what `view` adds."""
        shift = self._shift(cache, coreset)
        weights = -shift if coreset.log_weights is None else coreset.log_weights - shift
        return Coreset(coreset.indices, weights.to(least_float32(cache.keys.dtype)))

    def queries(self, u: Float[Array, "*heads b r"]) -> Float[Tensor, "*heads b d"]:
        """Returns the queries center + axes u, in the dtype of u, float32 at least."""
        u = tensor("u", u)
        u = u.to(least_float32(u.dtype))
        return (self.center.unsqueeze(-2).to(u) + u @ self.axes.to(u).mT).contiguous()

    def radii(self, queries: Float[Array, "*heads b d"]) -> Float[Tensor, "*heads b"]:
        """Finds the least rho whose body holds each query, by least squares in float64.

        It is infinite for a query q off center + span(axes), by more than 1e-5 of |q| + |center|.

        Cost: O(b d r) a head.
        """
        queries = tensor("queries", queries)
        axes, center = self.axes.to(torch.float64), self.center.to(torch.float64).unsqueeze(-2)
        apart = queries.to(axes) - center
        u = apart @ torch.linalg.pinv(axes).mT
        off = (apart - u @ axes.mT).norm(dim=-1)
        size = queries.to(axes).norm(dim=-1) + center.norm(dim=-1)
        return torch.where(off > _IN_SPAN * size, torch.inf, u.norm(dim=-1))

    def _check(self, cache: Cache) -> None:
        heads, d = self.center.shape[:-1], self.center.shape[-1]
        if d != cache.d or heads not in (torch.Size(), cache.heads):
            raise ValueError(
                f"a body with center {tuple(self.center.shape)} does not fit keys {tuple(cache.keys.shape)}: "
                "it needs their d, and their heads or none"
            )

    def _shift(self, cache: Cache, coreset: Coreset) -> Float[Tensor, "*heads m"]:
        """Returns what `view` adds to the log-weights of the coreset's tokens."""
        level = self._log_weights(cache).amax(dim=-1, keepdim=True)
        return self._logits(cache.take(coreset.indices)[0]) - level

    def _log_weights(self, cache: Cache) -> Float[Tensor, "*heads n"]:
        """Returns <center, k_i>, plus a WeightedCache's own log-weights; float64."""
        self._check(cache)
        base, logits = base_weights(cache), self._logits(cache.keys)
        return logits if base is None else logits + base

    def _logits(self, keys: Float[Tensor, "*heads m d"]) -> Float[Tensor, "*heads m"]:
        """Returns <center, k>, float64."""
        return (keys.to(torch.float64) @ self.center.to(torch.float64).unsqueeze(-1)).squeeze(-1)


def ellipsoid(queries: Float[Array, "*heads b d"], coverage: float = 0.95, ridge: float = 0.01) -> QueryBody:
    """Fits a body to sample queries: their mean as centre, the principal axes of their covariance S as axes.

    The shape is (1 - ridge) S + ridge tr(S) / d I, with I the identity. The ridge keeps directions in which the b
    queries happen not to vary. Queries that are all equal give axes of length 0: the body is that query.

    Cost: O(b d^2 + d^3) a head.

    Parameters
    ----------
    queries : Float[Tensor, "*heads b d"]
    coverage : float
        Share of the queries that the body holds at rho = 1, at least; in (0, 1].
    ridge : float
        Share of the shape that is a ball; in [0, 1].

    Returns
    -------
    QueryBody
        With d axes, float64.

    Raises
    ------
    ValueError
        For a coverage or a ridge out of range, no queries, NaN or Inf.
    """
    queries = _checked(queries)
    if not 0 < coverage <= 1 or not 0 <= ridge <= 1:
        raise ValueError(f"coverage must lie in (0, 1] and ridge in [0, 1], got {coverage} and {ridge}")
    q = queries.to(torch.float64)
    center = q.mean(dim=-2)
    apart = q - center.unsqueeze(-2)
    covariance = apart.mT @ apart / q.shape[-2]
    level = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    eye = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    values, vectors = torch.linalg.eigh((1 - ridge) * covariance + ridge * level[..., None, None] * eye)
    lengths = values.flip(-1).clamp_min(0).sqrt()
    lengths = torch.where(lengths > _RANK * lengths[..., :1], lengths, 0.0)
    axes = vectors.flip(-1) * lengths.unsqueeze(-2)
    radii = QueryBody(center, axes).radii(q)
    held = radii.quantile(coverage, dim=-1, interpolation="higher") * (1 + 1e-12)
    return QueryBody(center, axes * held[..., None, None])


def minimum_ellipsoid(queries: Float[Array, "*heads b d"], tolerance: float = 0.01) -> QueryBody:
    """Finds an ellipsoid that holds all queries at rho = 1 and is close to the smallest one (Loewner-John).

    The geometric mean of its semi-axes is at most 1 + tolerance times the least possible. So with r semi-axes its
    volume is at most (1 + tolerance)^r times the least. Queries may span only r < d dimensions, as they must for b < d
    + 1; then the body is the smallest in their span. geometry/loewner.py has the algorithm and its sources.

    Cost: O(b d^2) a head, and some 10^2 to 10^4 steps of O(b r).

    Parameters
    ----------
    queries : Float[Tensor, "*heads b d"]
    tolerance : float
        Above 0.

    Returns
    -------
    QueryBody
        With as many axes as the head whose queries span most; other heads have axes of 0 in their place. float64.

    Raises
    ------
    ValueError
        For a tolerance that is not above 0, no queries, NaN or Inf.
    RuntimeError
        Where the tolerance is not reached.
    """
    queries = _checked(queries)
    positive(tolerance=tolerance)
    found = [_minimum(q, tolerance) for q in queries.reshape(-1, *queries.shape[-2:]).to(torch.float64)]
    r = max(1, *(axes.shape[-1] for _, axes in found))
    center = torch.stack([c for c, _ in found])
    axes = torch.stack([torch.nn.functional.pad(a, (0, r - a.shape[-1])) for _, a in found])
    heads = queries.shape[:-2]
    return QueryBody(center.reshape(*heads, -1), axes.reshape(*heads, *axes.shape[1:]))


def _minimum(queries: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Returns centre ``[d]`` and axes ``[d, r]`` of one head, found in the span of its queries."""
    mean = queries.mean(dim=0)
    left, lengths, right = torch.linalg.svd(queries - mean, full_matrices=False)
    size = queries.norm(dim=-1).max()
    used = (lengths > _RANK * lengths[0]) & (lengths > 1e-12 * size)
    r = int(used.sum())
    if r == 0:
        return mean, queries.new_zeros(queries.shape[-1], 1)
    # the left singular vectors are the whitened queries: any affine map of the queries gives the same answer
    points = left[:, :r]
    weights = enclosing_weights(points, tolerance)
    center = weights @ points
    apart = points - center
    root = torch.linalg.cholesky((apart * weights.unsqueeze(-1)).mT @ apart)
    radius = torch.linalg.solve_triangular(root, apart.mT, upper=False).norm(dim=0).max() * (1 + 1e-12)
    back = lengths[:r].unsqueeze(-1) * right[:r]  # [r, d]
    return mean + center @ back, back.mT @ root * radius


def _checked(queries: Array) -> Tensor:
    queries = tensor("queries", queries).detach()
    if queries.dim() < 2 or 0 in queries.shape:
        raise ValueError(f"queries {tuple(queries.shape)} must have shape [*heads, b, d] with b and d at least 1")
    check_finite(queries=queries)
    return queries

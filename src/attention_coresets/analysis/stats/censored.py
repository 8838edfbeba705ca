"""Maximum likelihood for a normal response seen only through intervals, for many weightings of the rows at once.

Model: y = design @ beta + scale * z, z standard normal, and of y only lower < y <= upper is known. In Olsen's
parameters b = beta / scale and a = 1 / scale the log-likelihood is concave (Olsen 1978; an interval's probability is
log-concave by Prekopa), so damped Newton steps find its one maximum from anywhere.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import log_ndtr

# Intervals that a straight line threads without noise have no maximum: the likelihood grows as scale -> 0. Adding this
# squared length to the total sum of squares keeps scale finite; at a scale of 0.1 it costs 0.005 in log-likelihood.
SCALE_FLOOR = 0.01
MAX_ITERATIONS = 100
TOLERANCE = 1e-9  # of the Newton decrement, in units of log-likelihood
BLOCK = 2_000_000  # weightings x rows worked on at once
_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True)
class Observations:
    """Rows of a design (its constant column included) with the interval of each: -inf and inf where censored."""

    design: Float[np.ndarray, "rows p"]
    lower: Float[np.ndarray, "rows"]
    upper: Float[np.ndarray, "rows"]

    @property
    def exact(self) -> Bool[np.ndarray, "rows"]:
        return self.lower == self.upper


@dataclass(frozen=True)
class Optimum:
    """Maxima, one a weighting: beta, scale, the rows' log-likelihoods, whether Newton converged, and the covariance
    of beta / scale by the curvature."""

    beta: Float[np.ndarray, "b p"]
    scale: Float[np.ndarray, "b"]
    loglik: Float[np.ndarray, "b"]
    converged: Bool[np.ndarray, "b"]
    spread: Float[np.ndarray, "b p"]


def maximise(
    rows: Observations,
    weights: Float[np.ndarray, "b rows"],
    start: tuple[Float[np.ndarray, "p"], float] | None = None,
) -> Optimum:
    """The weighted maximum for each row of `weights`, started at (beta, scale) or at least squares of midpoints."""
    beta, scale = _midpoint_start(rows) if start is None else start
    block = max(1, BLOCK // max(1, weights.shape[1]))
    parts = [_newton(rows, weights[i : i + block], np.r_[beta, 1.0] / scale) for i in range(0, len(weights), block)]
    theta, loglik, converged, spread = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Optimum(theta[:, :-1] / theta[:, -1:], 1 / theta[:, -1], loglik, converged, spread)


def row_loglik(rows: Observations, beta: Float[np.ndarray, "p"], scale: float) -> Float[np.ndarray, "rows"]:
    """Log-probability of each row's interval (log-density where it is a point)."""
    return _terms(rows, np.r_[beta, 1.0][None] / scale)[0][0]


def log_interval(v: Float[np.ndarray, "*s"], u: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """log(Phi(u) - Phi(v)) for v < u, accurate in both tails: taken in the lower one, as a ratio."""
    flip = v > 0
    low, high = np.where(flip, -u, v), np.where(flip, -v, u)
    top = log_ndtr(high)
    with np.errstate(divide="ignore"):  # v == u: the caller does not use it
        return top + np.log(-np.expm1(log_ndtr(low) - top))


def _terms(rows: Observations, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood, gradient and Hessian of each row in (eta = design @ b, a): [b, n], [b, 2, n], [b, 3, n]."""
    eta, a = theta[:, :-1] @ rows.design.T, theta[:, -1:]
    y_u, y_v = (np.where(np.isfinite(y), y, 0.0) for y in (rows.upper, rows.lower))
    has_u, has_v = np.isfinite(rows.upper), np.isfinite(rows.lower)
    u, v = a * y_u - eta, a * y_v - eta
    logp = log_interval(np.where(has_v, v, -np.inf), np.where(has_u, u, np.inf))
    r_u = np.exp(np.where(has_u & ~rows.exact, -0.5 * u**2 - _HALF_LOG_2PI - logp, -np.inf))  # phi(u) / P
    r_v = np.exp(np.where(has_v & ~rows.exact, -0.5 * v**2 - _HALF_LOG_2PI - logp, -np.inf))
    g_e, g_a = r_v - r_u, y_u * r_u - y_v * r_v
    s_u, s_v = u * r_u, v * r_v
    h_ee, h_ea = s_v - s_u - g_e**2, s_u * y_u - s_v * y_v - g_e * g_a
    h_aa = s_v * y_v**2 - s_u * y_u**2 - g_a**2
    point = rows.exact
    logp = np.where(point, np.log(a) - 0.5 * u**2 - _HALF_LOG_2PI, logp)
    gradient = np.stack([np.where(point, u, g_e), np.where(point, 1 / a - u * y_u, g_a)], axis=1)
    curvature = [np.where(point, x, h) for x, h in ((-1.0, h_ee), (y_u, h_ea), (-1 / a**2 - y_u**2, h_aa))]
    return logp, gradient, np.stack(curvature, axis=1)


def _objective(rows: Observations, weights: np.ndarray, theta: np.ndarray):
    """Penalised log-likelihood [b], gradient [b, p+1] and negative Hessian [b, p+1, p+1]."""
    logp, gradient, curvature = _terms(rows, theta)
    x, a, p = rows.design, theta[:, -1], rows.design.shape[1]
    value = (weights * logp).sum(1) - 0.5 * (SCALE_FLOOR * a) ** 2
    slope = np.c_[(weights * gradient[:, 0]) @ x, (weights * gradient[:, 1]).sum(1) - SCALE_FLOOR**2 * a]
    hessian = np.empty((len(theta), p + 1, p + 1))
    outer = (x[:, :, None] * x[:, None, :]).reshape(len(x), p * p)
    hessian[:, :p, :p] = ((weights * curvature[:, 0]) @ outer).reshape(-1, p, p)
    hessian[:, :p, p] = hessian[:, p, :p] = (weights * curvature[:, 1]) @ x
    hessian[:, p, p] = (weights * curvature[:, 2]).sum(1) - SCALE_FLOOR**2
    return value, slope, -hessian


def _newton(rows: Observations, weights: np.ndarray, start: np.ndarray):
    """Damped Newton from `start`, all weightings in step; those done are left out of the work."""
    theta = np.repeat(start[None], len(weights), axis=0)
    value, slope, curvature = _objective(rows, weights, theta)
    length, active = np.ones(len(weights)), np.ones(len(weights), dtype=bool)
    for _ in range(MAX_ITERATIONS):
        step = _solve(curvature, slope)
        active &= (step * slope).sum(1) > TOLERANCE
        if not active.any():
            break
        i = np.flatnonzero(active)
        trial = theta[i] + length[i, None] * step[i]
        trial[:, -1] = np.maximum(trial[:, -1], 0.1 * theta[i, -1])  # a stays positive
        new = _objective(rows, weights[i], trial)
        better = new[0] >= value[i]
        length[i] = np.where(better, np.minimum(1.0, 2 * length[i]), length[i] / 4)
        k = i[better]
        theta[k], value[k], slope[k], curvature[k] = trial[better], *(part[better] for part in new)
        active[length < 1e-10] = False
    loglik = value + 0.5 * (SCALE_FLOOR * theta[:, -1]) ** 2
    converged = (_solve(curvature, slope) * slope).sum(1) <= 1e3 * TOLERANCE
    return theta, loglik, converged, _spread(curvature)


def _solve(curvature: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.linalg.solve(_regular(curvature), slope[:, :, None])[:, :, 0]


def _regular(curvature: np.ndarray) -> np.ndarray:
    """A touch of the diagonal, so that a direction that censoring leaves flat does not stop the solver."""
    ridge = 1e-12 * np.trace(curvature, axis1=1, axis2=2) + 1e-300
    return curvature + ridge[:, None, None] * np.eye(curvature.shape[1])


def _spread(curvature: np.ndarray) -> np.ndarray:
    """Standard errors of beta / scale at a known scale: large where the rows say nothing of a coefficient."""
    inverse = np.linalg.inv(_regular(curvature[:, :-1, :-1]))
    return np.sqrt(np.abs(np.diagonal(inverse, axis1=1, axis2=2)))


def _midpoint_start(rows: Observations) -> tuple[np.ndarray, float]:
    middle = 0.5 * (
        np.where(np.isfinite(rows.lower), rows.lower, rows.upper)
        + np.where(np.isfinite(rows.upper), rows.upper, rows.lower)
    )
    beta = np.linalg.lstsq(rows.design, middle, rcond=None)[0]
    return beta, max(0.1, float(np.std(middle - rows.design @ beta)))

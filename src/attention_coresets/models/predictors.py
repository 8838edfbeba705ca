"""Measures of a head's calibration queries that may tell how its error falls with the size of a coreset."""

import torch

from attention_coresets.coresets.kernel.law import capped_marginals
from attention_coresets.coresets.queries.calibration import Calibration, calibration, gram, log_sensitivities
from attention_coresets.geometry.coverage import subsample, total_sensitivity
from attention_coresets.geometry.factorisation import balancing_constant
from attention_coresets.models.heads import RealHead

GAMMA_QUERIES, MOMENT_QUERIES = 256, 1024  # of which Gamma and the moment are computed, drawn with seed 0
_LEFT = 1e-9  # least share of attention that is left where a token is left out
_TAIL = 0.99  # quantile over queries, as that of the errors that are to be told


class Predictors:
    """Measures of the moved calibration queries of a head; values are centred, their largest norm is 1.

    With T_i(q) the softmax over the cache and A(q) the output:

    whole: those that do not depend on the size.
        total_sensitivity: T = sum_i max_q T_i(q).
        gamma: the balancing constant of GAMMA_QUERIES of the queries (geometry/factorisation.py), within 5 %.
        leave_out: sum_i max_q T_i / (1 - T_i) |v_i - A(q)|: by how much the output moves, at the worst query of each
            token, where that token alone is left out.

    Cost: for b queries and n tokens O(b n dv + n^3) and 3 b n + 2 n^2 numbers.
    """

    def __init__(self, head: RealHead) -> None:
        cache, queries = head.in_model_units(moved=True)
        found = calibration(cache, queries, None)
        weights, values = found.weights[0], found.values[0]
        apart = torch.cdist(weights @ values, values)  # |v_i - A(q)|
        chosen = weights[subsample(len(weights), GAMMA_QUERIES)]
        self.whole = {
            "total_sensitivity": total_sensitivity(weights),
            "gamma": balancing_constant(chosen, tolerance=0.05).gamma,
            "leave_out": float((weights / (1 - weights).clamp_min(_LEFT) * apart).amax(dim=0).sum()),
        }
        self._log_p = log_sensitivities(found, "rms")
        self._squares = weights.mul(apart).square_()
        some = Calibration(found.weights[:, subsample(len(weights), MOMENT_QUERIES)], found.values)
        moment = gram(some)[0] / cache.n**2
        self._left = torch.linalg.eigvalsh(moment).clamp_min(0).cumsum(0)  # of the k smallest, k = 1 to n

    def at(self, size: int) -> dict[str, float]:
        """Returns those that depend on the size.

        spectral_tail: the root of the sum of all eigenvalues of mean_q T_i T_j (<v_i, v_j> + 1) but the `size` largest:
            what no `size` vectors can hold of it; over MOMENT_QUERIES of the queries.
        query_variance: of each token kept by itself with the marginal that `query_walk` has, the standard deviation of
            the output at a query, sum_i T_i^2 |v_i - A|^2 (1 / pi_i - 1) and its root; 99th percentile over queries.

        Cost: O(b n).
        """
        if size >= len(self._left):  # everything is kept
            return {"spectral_tail": 0.0, "query_variance": 0.0}
        marginals = capped_marginals(self._log_p, size)[0]
        variances = self._squares @ (1 / marginals - 1)
        return {
            "spectral_tail": float(self._left[-size - 1].sqrt()),
            "query_variance": float(variances.quantile(_TAIL).sqrt()),
        }

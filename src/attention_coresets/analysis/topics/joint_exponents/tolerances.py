"""What the joint exponents should be, written down before `lower_bound_exponents`, `_weights` and `_large` were run.

Known then: floor (iv) on the very designs (algebra), and a look at one instance each of four configurations (d, r,
rho) = (64, 8, 0.5), (32, 32, 1.5), (64, 32, 1), (64, 64, 1.5): error over (iv) of walk 2.35, 1.49, 1.49, 1.41; with
kernel swaps 1.25, 1.12, 1.17, 1.11; herding 1.24, 1.07, 1.10, 1.05; kernel halving 3.5, 2.4, 3.3, 2.5; uniform 4.9,
2.1, 3.8, 3.1. So all bands are informed by a pilot.

Predictions, with their reasons:

* A subset that keeps m/r tokens of each cluster with balanced signs errs by (iv) at the centres. Walk with swaps and
  herding nearly do, so their law is that of (iv), 1/2, 1, 1 in the finite-size fit, give or take 0.1, 0.15, 0.1.
* The walk alone leaves counts and signs unbalanced by O(1) a coordinate, which adds a term that does not shrink with
  e^rho - 1, B_l / z_j: it reads a smaller beta. Within 0.3 of 1; alpha within 0.15 and gamma within 0.15.
* Uniform subsets and sign pairs drawn without a view of the others leave an imbalance of sqrt(r) a coordinate: error
  about A sqrt(d) sqrt(1 + r / a^2), which is that of draws, 1/sqrt(n), where a^2 << r. The formula itself reads
  (-0.04, 0.09, 2.08) on this design. So gamma is at least 1.5.
* Past n = 4096 (written before `lower_bound_beyond`, after `lower_bound_exponents`): herding's error over (iv) at
  rho = 1/2 was 1.352, 1.384, 1.461, 1.516 at r = d = 8 to 64, 1.261 at r/d = 1/2 and 1.171 at 1/4; at these ratios
  rho (1 + sqrt(r/d)) / (e^rho - 1) is 1.541, 1.316, 1.156. So within 5 % of it at d >= 128, hence within 1.6 of (iv).
* At equal r/d and rho (written before `lower_bound_ratios`, after `lower_bound_exponents`): the heuristic depends on d
  through r/d alone, so alpha is 1/2 there, give or take the 0.1 of `joint_alpha`. Expected a little above: at r = d and
  rho = 1/2 the error over (iv) rose from 1.36 at d = 8 to 1.52 at d = 64, elsewhere it hardly did. 0.50 to 0.56.
* The coordinate subset is (iv) times 1.00 to 1.3 (theory notes, early figures for the same design).
"""

from dataclasses import replace
from math import inf

from attention_coresets.analysis.parts.band import Band, about

BANDS: dict[str, Band] = {
    "joint_alpha": replace(about(0.5, 0.1, 0.0, 1.0), pilot=True),
    "joint_beta": replace(about(1.0, 0.15, 0.0, 2.0), pilot=True),
    "joint_gamma": replace(about(1.0, 0.1, 2.0), pilot=True),
    "joint_alpha_walk": replace(about(0.5, 0.15, 0.0, 1.0), pilot=True),
    "joint_beta_walk": replace(about(1.0, 0.3, 0.0, 2.0), pilot=True),
    "joint_gamma_walk": replace(about(1.0, 0.15, 2.0), pilot=True),
    "joint_gamma_draws": Band(1.5, inf, (1.0,), pilot=True),
    "ratio_alpha": replace(about(0.5, 0.1, 0.0, 1.0), pilot=True),
    "sandwich_factor": Band(-inf, 1.5, pilot=True),
    "beyond_factor": Band(-inf, 1.6, pilot=True),
    "beyond_law": replace(about(1.0, 0.05), pilot=True),
    "coordinate_alpha": replace(about(0.5, 0.03, 0.0, 1.0), pilot=True),
    "coordinate_beta": replace(about(1.0, 0.1, 0.0, 2.0), pilot=True),
    "coordinate_gamma": replace(about(1.0, 0.04, 2.0), pilot=True),
    "coordinate_factor": Band(-inf, 1.3, pilot=True),
    "coordinate_median": Band(-inf, 1.12, pilot=True),
    "free_factor": Band(-inf, 1.4, pilot=True),
    # a theorem: rounding alone is allowed
    "floor_v": Band(1.0 - 1e-6, inf, text="≥ 1"),
}

"""What the claims of the hard instances and the controls expect: see `parts.band`.

Fixed before their runs, but where `after` says why not.
"""

from math import inf

from attention_coresets.analysis.parts.band import Band, about

BANDS: dict[str, Band] = {
    # check. signed clusters: error over max(i, ii, iv, v) of the coreset's own weights, a theorem: rounding alone
    "floor": Band(1.0 - 1e-6, inf, text="≥ 1"),
    # check. error over A sqrt(d/2) at m <= n/2, proven for equal cluster weights. Bands were fixed with a = e^rho - 1;
    # A now has the a of the sharper query and is larger, by 1.09 at d = r = 8, rho = 1: harder here, easier for
    # floor_factor
    "floor_equal": Band(1.0, inf),
    # issue: the best arm at m = n/2 (*: 1.7 to 2.9 seen for the walk)
    "floor_factor": Band(-inf, 3.0, pilot=True),
    # check. antipodal, values = keys: size over the floor of the instance as it is drawn
    "antipodal_floor": Band(
        1.0,
        inf,
        after="with the measure: both were m over e^(2ρ)(1−ε)/(1+ε) at least 0.9, and the run gave 0.85, where 3 keys"
        " stand for 2.5; the floor now counts keys exactly and must be met in full",
    ),
    "antipodal_rate": about(2.0, 0.2, 1.0),
    "antipodal_rate_tilted": Band(-inf, 1.1, (2.0,)),
    # controls, err ~ m^-decay: at least 1 for walks, at least 1/2 for uniform subsets (sqrt(1/m - 1/n), whose slope is
    # 0.55 from n/64 to n/4)
    "decay_balanced": Band(1.0, inf),
    "decay_uniform": Band(0.5, inf),
    # check. equal keys: the query plays no part, so log err does not move with rho but for rounding
    "no_rho": Band(-1e-3, 1e-3),
    # product: at most the bound's e^rho
    "product_rho": Band(-inf, 1.0),
}

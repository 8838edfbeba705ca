"""What the claim on the sizes that heads need expects, fixed before its run: see `parts.band`."""

from attention_coresets.analysis.parts.band import Band

# Theory's conjecture: m = sqrt(d) T / epsilon up to a constant, so that both slopes are 1. Rivals: a size that T tells
# nothing of (0), and that of independent draws, d T / epsilon^2 (2 in 1 / epsilon). Pilot: two heads of a text that is
# left out here (code, from token 20 000), whose errors fell as m^-1.0 and m^-1.4, and errors of `real_errors`, which
# fall as m^-0.75 in the median over heads.
BANDS: dict[str, Band] = {"real_sizes": Band(0.75, 1.25, (0.0, 2.0), predicted=1.0, pilot=True)}

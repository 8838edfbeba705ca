"""A sentence with numbers on worst cases, for the headline."""

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import claimed, span
from attention_coresets.analysis.topics.worst_case.claims import CHECKS, CLAIMS


def both_sides(results: Results) -> str:
    """Proven ceilings over the worst query found, and contradictions."""
    one, two = (claimed(CLAIMS, results, name) for name in ("ceiling_rho_1", "ceiling_rho_2"))
    small = claimed(CHECKS, results, "certificate")
    if not one or not two or not small:
        return ""
    return (
        f"**Both sides**: the kernel certificate, a proven ceiling, is {span(one)} times the worst error found at"
        f" ρ = 1 and {span(two)} times at ρ = 2 (n = 1024, d = 8, m = 256). On {small[0].setting}, branch and"
        f" bound encloses the supremum, and {small[0].estimate.value:.0f} contradict it."
    )

"""What this question adds to the study: its sections, and its claims, words and figure by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.joint_exponents import claims, prose, tables
from attention_coresets.analysis.topics.joint_exponents.figures import headline, ratios, sandwich
from attention_coresets.analysis.topics.joint_exponents.rows import BEYOND, EXPONENTS, LARGE, RATIOS, WEIGHTS

SECTIONS: tuple[Section, ...] = (
    Section(
        EXPONENTS,
        "Hard caches: the exponents of d, ρ and ε together",
        "Signed clusters with signs from rows of Hadamard matrices, r ≥ 7 (e^ρ − 1) clusters, m = n/2. Only the"
        " coordinate subset is told the clusters. The control fits floor (iv) itself on the same caches: its"
        " exponents are what this design yields where the law is known.",
        tables.exponents,
    ),
    Section(
        RATIOS,
        "Hard caches of equal r/d: the exponent of d",
        "Every construction is compared with itself on caches of other d that have as many clusters per dimension.",
        tables.ratios,
    ),
    Section(
        BEYOND,
        "Hard caches above n = 4096",
        "Herding alone, at m = n/2. Does its error over floor (iv) grow with n at equal r/d and ρ? Random signs:"
        " the heuristic ρ (1 + √(r/d))/(e^ρ − 1), where it is above 1.",
        tables.beyond,
    ),
    Section(
        WEIGHTS,
        "Hard caches: what free weights gain",
        "The same instances up to n = 1024 at m = n/8, n/4 and n/2, against floor (v), which holds for any weights.",
        tables.weights,
    ),
    Section(
        LARGE,
        "The coordinate subset, up to n = 262,144",
        "The same coordinates are kept in every cluster. Then signs balance, and the error at the sharpened"
        " centres is exactly floor (iv). Worst queries are sought over r logits, not over n tokens"
        " (`structured_worst`).",
        tables.coordinate,
    ),
)

TOPIC = Topic(
    kind="theory",
    claims=claims.CLAIMS,
    checks=claims.CHECKS,
    sections=SECTIONS,
    questions=(
        Question(
            "On hard caches, does the size grow with d, e^ρ − 1 and 1/ε with the exponents ½, 1 and 1?",
            "α {ratio_alpha} at equal r/d if γ = 1; together α {joint_alpha}, β {joint_beta}, γ {joint_gamma};"
            " each of its worst arm",
            ("ratio_alpha", *(claim.id for claim in claims.CLAIMS if claim.id.startswith("joint_"))),
            "the error over the floor depends on r/d, clusters per dimension, which falls with d in this design, so"
            " that α and γ trade off.",
        ),
        Question(
            "How far above the proven floor is the best construction that is not told the clusters?",
            "half of the tokens kept, its error is at most {sandwich_factor} times the floor",
            ("sandwich_factor", "beyond_factor", "beyond_law", "floor_factor"),
        ),
        Question(
            "Is the floor tight?",
            "a coreset that is told the clusters errs by {coordinate_median} times the floor, in the median",
            tuple(claim.id for claim in claims.CLAIMS if claim.id.startswith("coordinate_")),
        ),
        Question(
            "How near to the floor for any weights do coresets come?",
            "the best errs by at most {free_factor} times that floor",
            ("free_factor",),
        ),
    ),
    figures={"headline": (EXPONENTS, headline), "ratios": (RATIOS, ratios), "sandwich": (WEIGHTS, sandwich)},
    headline=(prose.where_it_binds,),
    sentences={
        "found_joint": prose.found_joint,
        "found_ratio": prose.found_ratio,
        "found_sandwich": prose.found_sandwich,
    },
)

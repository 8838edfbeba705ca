"""What this question adds to the study: its sections, and its claims, words and figure by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.joint_exponents import claims, prose, tables
from attention_coresets.analysis.topics.joint_exponents.figures import headline, sandwich
from attention_coresets.analysis.topics.joint_exponents.rows import BEYOND, EXPONENTS, LARGE, WEIGHTS

SECTIONS: tuple[Section, ...] = (
    Section(
        EXPONENTS,
        "The theorem where it binds: d, ρ and ε together",
        "Signed clusters with signs of Hadamard pairs, r ≥ 7 (e^ρ − 1), m = n/2. The constructions do not know the"
        " instance, but for the coordinate subset. The control is floor (iv) itself on the same rows: it reads what a"
        " finite design reads where the law is known.",
        tables.exponents,
    ),
    Section(
        BEYOND,
        "Past n = 4096, without knowing the instance",
        "Herding alone, at m = n/2: does its factor over floor (iv) grow with n at the same r/d and ρ? Random signs:"
        " ρ (1 + √(r/d))/(e^ρ − 1), where it is above 1.",
        tables.beyond,
    ),
    Section(
        WEIGHTS,
        "What free weights gain there",
        "The same instances up to n = 1024 at m = n/8, n/4 and n/2, against floor (v), which holds for any weights.",
        tables.weights,
    ),
    Section(
        LARGE,
        "The coordinate subset, up to n = 262,144",
        "The same coordinates in every cluster: balanced, and at the sharpened centres exactly at floor (iv). Errors"
        " are suprema over r logits a query, not over n tokens (`structured_worst`).",
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
            "On hard instances, do d, e^ρ − 1 and 1/ε enter with exponents ½, 1 and 1?",
            "{joint_alpha}, {joint_beta} and {joint_gamma}",
            tuple(claim.id for claim in claims.CLAIMS if claim.id.startswith("joint_")),
            "the factor between these coresets and the floor depends on clusters a dimension, of which the design has"
            " fewer where d is large (the floor itself, on the same rows, reads ½, 1, 1). Kernel halving, put with the"
            " draws, balances better than draws do.",
        ),
        Question(
            "How far above the proven floor is the best construction that does not know the instance?",
            "at most {sandwich_factor} times, half of the tokens kept",
            ("sandwich_factor", "beyond_factor", "beyond_law", "floor_factor"),
        ),
        Question(
            "Is the floor tight?",
            "a coreset that knows the instance errs by {coordinate_median} times it, in the median",
            tuple(claim.id for claim in claims.CLAIMS if claim.id.startswith("coordinate_")),
        ),
        Question(
            "Do free weights get below it?",
            "not below their own floor: at most {free_factor} times that",
            ("free_factor",),
        ),
    ),
    figures={"headline": (EXPONENTS, headline), "sandwich": (WEIGHTS, sandwich)},
    headline=(prose.where_it_binds,),
    sentences={"found_joint": prose.found_joint, "found_sandwich": prose.found_sandwich},
)

"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.hard_instances import antipodal as pair
from attention_coresets.analysis.topics.hard_instances import claims, plans, prose, tables
from attention_coresets.analysis.topics.hard_instances import signed_clusters as hard
from attention_coresets.analysis.topics.hard_instances.figures.antipodal import antipodal
from attention_coresets.analysis.topics.hard_instances.figures.controls import controls
from attention_coresets.analysis.topics.hard_instances.figures.signed_clusters import lower_bound, lower_bound_random

SECTIONS: tuple[Section, ...] = (
    Section(
        hard.ORTHONORMAL,
        "Lower bound: signed clusters",
        "The centres are orthonormal, so there are at most d clusters. docs/lower_bound.md proves bounds (i),"
        " (ii), (iv) and (v) on the error of every coreset, for its own weights. Where all clusters have equal"
        " weight and m ≤ n/2, the largest of them is at least A√(d/2).",
        tables.lower_bound,
    ),
    Section(
        hard.RANDOM,
        "Signed clusters with random centres: descriptive",
        "More clusters than dimensions, in random directions. **Nothing is proven here.** Errors are divided by"
        " A√(d/2) only to compare them with the orthonormal case.",
        tables.random_centres,
    ),
    Section(
        pair.ANTIPODAL,
        "Antipodal pair: e^(2ρ) for unweighted subsets",
        "An unweighted subset needs e^(2ρ)(1−ε)/(1+ε) tokens. With tilted weights a few tokens are enough.",
        tables.antipodal,
    ),
    Section(
        "lower_bound_controls",
        "Controls: equal keys and product",
        "Equal keys: attention is the mean of the values, and the size is like √d/ε at every ρ. Product: 8"
        " distinct keys, each with n/8 random values; the size lies between √d/ε and √d e^ρ/ε.",
        tables.controls,
    ),
)

TOPIC = Topic(
    kind="theory",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "Antipodal keys: e^(2ρ) tokens without weights, e^ρ with them?",
            "exponent of ρ: {antipodal_rate} without weights, {antipodal_rate_tilted} with them",
            ("antipodal_rate", "antipodal_rate_tilted"),
        ),
    ),
    checks=claims.CHECKS,
    figures={
        "lower_bound": (hard.ORTHONORMAL, lower_bound),
        "lower_bound_random": (hard.RANDOM, lower_bound_random),
        "antipodal": (pair.ANTIPODAL, antipodal),
        "controls": ("lower_bound_controls", controls),
    },
    plans=plans.PLANS,
    headline=(prose.floor,),
)

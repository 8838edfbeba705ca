"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import HEADS_FILE, Question, Section, Topic
from attention_coresets.analysis.topics.real_heads import claims, errors_prose, figures, geometry_prose, tables
from attention_coresets.analysis.topics.real_heads.caches import HEADS

SECTIONS: tuple[Section, ...] = (
    Section(
        HEADS,
        "Real heads: SmolLM2-135M",
        "Keys centred and scaled into the unit ball, values likewise. Errors at the model's own later queries, and at"
        " the worst query of a quarter of the ellipsoid that holds 95 % of the calibration queries. docs/real_caches.md"
        " says what it means.",
        tables.section,
    ),
)

TOPIC = Topic(
    kind="a real model",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "What takes the place of e^ρ on a language model's heads?",
            "log of the total sensitivity, {real_log_t} nats, where the norms say {real_rho}",
            ("real_rho", "real_log_t", "real_uncovered", "real_constant", "real_t_slope"),
        ),
        Question(
            "Do coresets made for a model's queries err less than eviction heuristics?",
            "at 1/8 of the cache {real_mean} times the best heuristic, mean over queries",
            ("real_mean", "real_p99", "real_body", "real_rms", "real_moved"),
        ),
    ),
    figures={
        "real_errors": (HEADS, figures.real_errors),
        "real_geometry": (HEADS_FILE, figures.real_geometry),
    },
    headline=(errors_prose.headline,),
    sentences={
        "real_norms": geometry_prose.norms,
        "real_log_t": geometry_prose.log_t,
        "real_rho_range": geometry_prose.rho_range,
        "real_moved": geometry_prose.moved,
        "real_maps": geometry_prose.maps,
        "real_balancing": geometry_prose.balancing,
        "real_ellipsoid": geometry_prose.ellipsoid,
        "real_body": errors_prose.body,
        "real_explained": errors_prose.explained,
        "real_weights": errors_prose.weights,
    },
    tables={
        "real_geometry": tables.geometry,
        "real_gemma_geometry": tables.gemma_geometry,
        "real_errors": tables.errors,
    },
)

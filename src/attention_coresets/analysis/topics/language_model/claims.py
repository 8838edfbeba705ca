"""Our own targets on a language model that runs on coresets."""

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.measured import rows_of
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.language_model import measures as language
from attention_coresets.analysis.topics.language_model.tolerances import BANDS
from attention_coresets.analysis.topics.real_heads import caches

ADDED = "at tier reduced half of the segments: the first half left the loss undecided against some heuristics"


def _loss(share: int) -> Claim:
    statement = (
        f"A language model on 1/{share} of its cache has less loss with {caches.OURS} than with every eviction"
        " heuristic and kept sinks: difference, nats a token"
    )
    rows = rows_of(language.LANGUAGE, arm=[caches.OURS, *caches.RIVALS])
    measure = language.loses_less(caches.OURS, caches.RIVALS, share)
    return Claim(
        f"real_loss_{share}",
        statement,
        "free",
        language.LANGUAGE,
        BANDS["real_loss"],
        measure,
        OWN,
        "less than 0 against each",
        "a rival whose difference is above 0; undecided where 0 is in the interval",
        lambda results: caches.at_share(rows(results), share),
        added=ADDED,
    )


CLAIMS: tuple[Claim, ...] = (
    _loss(4),
    _loss(8),
)

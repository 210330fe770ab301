"""Find the answer within a passage, and the excerpt to show of a long one."""

from __future__ import annotations

from collections.abc import Sequence

from gliclass_rerank.scoring import run
from gliclass_rerank.tasks.rerank import RankOptions, Reranker
from gliclass_rerank.tasks.spans import score_spans, sentence_spans
from gliclass_rerank.types import Ranked, Span

SHOWN_CHARACTERS = 700
LEAD_CHARACTERS = 150  # shown before a span that is not at the beginning


def best_spans(reranker: Reranker, query: str, passages: Sequence[str], ranking: Sequence[Ranked]) -> list[Span]:
    """Find the sentence of each ranked passage that on its own answers the query best. All are scored as one batch.

    Args:
        passages: the ranked passages. In long ones, only the best window is searched.

    Returns:
        Spans in code points, one per `Ranked`, in the order of the ranking.
    """
    texts = [passages[hit.index] for hit in ranking]
    choices = [
        sentence_spans(text, hit.window) or [hit.window or (0, len(text))]
        for text, hit in zip(texts, ranking, strict=True)
    ]
    best = run(score_spans(reranker, query, texts, choices, RankOptions(top_n=1)), reranker.scorer)
    return [(found[0].start, found[0].end) for found in best]


def excerpt(text: str, span: Span) -> Span:
    """Span of a passage to show: all of a short one, the surroundings of ``span`` in a long one."""
    if len(text) <= SHOWN_CHARACTERS:
        return 0, len(text)
    start = max(0, min(span[0] - LEAD_CHARACTERS, len(text) - SHOWN_CHARACTERS))
    return start, min(len(text), start + SHOWN_CHARACTERS)

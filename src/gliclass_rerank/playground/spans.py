"""Find the answer within a passage, and the excerpt to show of a long one."""

from __future__ import annotations

from collections.abc import Sequence

from gliclass_rerank.tasks.fact_check.sentences import split_sentences
from gliclass_rerank.tasks.rerank import Reranker
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
    choices = [_sentences(passages[hit.index], hit.window) for hit in ranking]
    texts = [[passages[hit.index][slice(*span)] for span in spans] for hit, spans in zip(ranking, choices, strict=True)]
    best = reranker.rank_many([(query, sentences) for sentences in texts], top_n=1)
    return [spans[found[0].index] for spans, found in zip(choices, best, strict=True)]


def excerpt(text: str, span: Span) -> Span:
    """Span of a passage to show: all of a short one, the surroundings of ``span`` in a long one."""
    if len(text) <= SHOWN_CHARACTERS:
        return 0, len(text)
    start = max(0, min(span[0] - LEAD_CHARACTERS, len(text) - SHOWN_CHARACTERS))
    return start, min(len(text), start + SHOWN_CHARACTERS)


def _sentences(text: str, window: Span | None) -> list[Span]:
    """Spans of the sentences within a window or in the whole text, or the window itself if it contains none."""
    start, end = window or (0, len(text))
    spans = [(one.start, one.end) for one in split_sentences(text) if start <= one.start and one.end <= end]
    return spans or [(start, end)]

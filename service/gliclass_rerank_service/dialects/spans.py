"""Cohere's `relevant_spans`: the sentences of a document that answer the query, in code points.

Each sentence of each returned document is scored alone, as a further passage of the same request, in one more batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from gliclass_rerank import Reranker
from gliclass_rerank.scoring import Plan
from gliclass_rerank.tasks.rerank import RankOptions
from gliclass_rerank.tasks.spans import score_spans, sentence_spans
from gliclass_rerank_service.admission import estimate_tokens_for
from gliclass_rerank_service.dialects.common import Count, Reply, Share


class SpanOptions(BaseModel):
    """Selection of the spans that are returned."""

    mode: Literal["enabled", "disabled"]
    threshold: Share | None = Field(default=None, description="Minimum score of a span. Default: 0.1.")
    max_spans: Count | None = Field(default=None, description="Number of spans per document, the best. Default: all.")

    @property
    def wanted(self) -> bool:
        """Whether spans are returned."""
        return self.mode == "enabled"


class RelevantSpan(Reply):
    """A sentence of a document: its code points, end exclusive, and its score in [0, 1]."""

    start: int
    end: int
    score: float


DEFAULT_THRESHOLD = 0.1  # Cohere's


def find_spans(
    reranker: Reranker,
    query: str,
    texts: Sequence[str],
    options: SpanOptions,
    check_tokens: Callable[[int], None],
    *,
    instruction: str | None = None,
) -> Plan[list[list[RelevantSpan]]]:
    """The relevant spans of each text, best first, or an empty list. ``instruction`` is that of the ranking.

    Raises:
        TooLargeError: from ``check_tokens``, called with the estimated tokens of all sentences.
    """
    spans = [sentence_spans(text) for text in texts]
    asked = f"{instruction or ''} {query}"
    check_tokens(estimate_tokens_for(texts, [asked]) + estimate_tokens_for([asked] * sum(map(len, spans))))
    threshold = DEFAULT_THRESHOLD if options.threshold is None else options.threshold
    scored = yield from score_spans(
        reranker, query, texts, spans, RankOptions(threshold=threshold, instruction=instruction)
    )
    return [
        [RelevantSpan(start=one.start, end=one.end, score=one.score) for one in own[: options.max_spans]]
        for own in scored
    ]

"""Sentences of texts that answer a query, each scored as a passage of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gliclass_rerank.scoring import Plan
from gliclass_rerank.tasks.fact_check.sentences import split_sentences
from gliclass_rerank.tasks.rerank import RankOptions, Reranker
from gliclass_rerank.types import Span
from gliclass_rerank.validation import is_blank


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """A span of a text, in code points, and its score in [0, 1]."""

    start: int
    end: int
    score: float


def sentence_spans(text: str, within: Span | None = None) -> list[Span]:
    """Spans of the sentences of a text that are not blank, in code points. With ``within``, only those inside it."""
    start, end = within or (0, len(text))
    spans = [(one.start, one.end) for one in split_sentences(text) if start <= one.start and one.end <= end]
    return [span for span in spans if not is_blank(text[slice(*span)])]


def score_spans(
    reranker: Reranker,
    query: str,
    texts: Sequence[str],
    spans: Sequence[Sequence[Span]],
    options: RankOptions | None = None,
) -> Plan[list[list[ScoredSpan]]]:
    """Score the spans of each text, all in one batch. The spans of a text are returned best first.

    Args:
        reranker, query: as for `Reranker.rank`, whose errors are raised here too.
        texts: the texts.
        spans: of each text, in code points.
        options: ``top_n`` and ``threshold`` apply to the spans of one text.
    """
    pieces = [[text[slice(*span)] for span in own] for text, own in zip(texts, spans, strict=True)]
    rankings = yield from reranker.plan([(query, own) for own in pieces], options)
    return [
        [ScoredSpan(*own[one.index], one.score) for one in ranking]
        for own, ranking in zip(spans, rankings, strict=True)
    ]

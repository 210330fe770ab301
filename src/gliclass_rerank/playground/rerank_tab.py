"""Tab for reranking: passages before and after, with each one's best-matching sentence highlighted."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from gliclass_rerank.playground import examples
from gliclass_rerank.playground.model import ModelKey, key_of, problems_shown
from gliclass_rerank.playground.reading import read_passages
from gliclass_rerank.playground.render import ranking_table
from gliclass_rerank.scoring import run
from gliclass_rerank.tasks.rerank import RankOptions, Reranker
from gliclass_rerank.tasks.spans import score_spans, sentence_spans
from gliclass_rerank.types import Ranked, Scorer, Span

SHOWN = 50  # passages


def show(scorer: Scorer, *, is_open: bool) -> None:
    """Draw the tab. Compute results only if it is the open one."""
    asked, answered = st.columns([2, 3], gap="large")
    with asked, st.form("rerank", border=False):
        query = st.text_input("Query", examples.QUERY)
        typed = st.text_area("Passages, separated by blank lines", examples.PASSAGES, height=340)
        files = st.file_uploader(
            "Or files: one passage each, or JSON lines",
            accept_multiple_files=True,
            key="rerank-files",
        )
        st.form_submit_button("Rerank", type="primary")
    if not is_open:
        return
    with answered, problems_shown():
        passages = read_passages(typed, [(file.name, file.getvalue()) for file in files])
        texts = tuple(passage.text for passage in passages)
        ranking, spans = _ranked(scorer, key_of(scorer.info), query, texts)
        st.html(ranking_table(passages, ranking, spans))
        if len(passages) > SHOWN:
            st.caption(f"The best {SHOWN} of {len(passages):,} passages.")


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


@st.cache_data(max_entries=16, show_spinner="Reranking …", show_time=True)
def _ranked(_scorer: Scorer, model: ModelKey, query: str, texts: tuple[str, ...]) -> tuple[list[Ranked], list[Span]]:
    """Rank the passages, and find the span to highlight in each."""
    reranker = Reranker(_scorer)
    ranking = reranker.rank(query, texts, top_n=SHOWN)
    return ranking, best_spans(reranker, query, texts, ranking)

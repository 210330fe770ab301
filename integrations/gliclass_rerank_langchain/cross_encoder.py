"""GLiClassCrossEncoder: scores for pairs, where LangChain wants a cross-encoder."""

from __future__ import annotations

from langchain_core.cross_encoders import BaseCrossEncoder
from pydantic import ConfigDict

from gliclass_rerank import Reranker
from gliclass_rerank.types import check_text
from gliclass_rerank_langchain.model import ModelOptions


class GLiClassCrossEncoder(ModelOptions, BaseCrossEncoder):
    """Scores (query, passage) pairs, e.g. as ``model`` of `CrossEncoderReranker`; `GLiClassRerank` keeps the scores.

    Args:
        model, scorer: see `ModelOptions`.
    """

    model_config = ConfigDict(extra="forbid")

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Return a score in [0, 1] for each (query, passage), in their order: what `Reranker` gives to each alone.

        All are scored as one batch.

        Raises:
            InputError: an empty query or passage, characters that no tokenizer reads; the message names which.
        """
        # A pair stays alone also where passages are read as labels: there a passage may change another's score.
        pairs = [
            (check_text(query, f"pair {i}, query"), [check_text(passage, f"pair {i}, passage")])
            for i, (query, passage) in enumerate(text_pairs)
        ]
        return [ranking[0].score for ranking in Reranker(self._scorer()).rank_many(pairs)] if pairs else []

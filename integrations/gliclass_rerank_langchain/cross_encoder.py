"""GLiClassCrossEncoder: LangChain's cross-encoder interface, scores for pairs."""

from __future__ import annotations

from langchain_core.cross_encoders import BaseCrossEncoder
from pydantic import ConfigDict

from gliclass_rerank import Reranker
from gliclass_rerank.validation import check_text
from gliclass_rerank_langchain.model import ModelOptions


class GLiClassCrossEncoder(ModelOptions, BaseCrossEncoder):
    """Scores (query, passage) pairs, e.g. as ``model`` of `CrossEncoderReranker`. `GLiClassRerank` keeps the scores.

    Args:
        model, scorer: see `ModelOptions`.
    """

    model_config = ConfigDict(extra="forbid")

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Return a score in [0, 1] for each (query, passage), in order, equal to that of `Reranker` for the pair alone.

        All are scored as one batch.

        Raises:
            InputError: an empty query or passage, or characters that no tokenizer reads. The message names the pair.
        """
        # Each pair is a ranking of its own. If passages are read as labels, a passage may change the scores of others.
        pairs = [
            (check_text(query, f"pair {i}, query"), [check_text(passage, f"pair {i}, passage")])
            for i, (query, passage) in enumerate(text_pairs)
        ]
        return [ranking[0].score for ranking in Reranker(self._scorer()).rank_many(pairs)] if pairs else []

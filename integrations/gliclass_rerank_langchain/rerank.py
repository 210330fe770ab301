"""GLiClassRerank: a document compressor that puts the best documents first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field

from gliclass_rerank import InputError, Reranker
from gliclass_rerank_langchain.model import ModelOptions


class RerankOptions(ModelOptions):
    """Fields of a component that reranks documents.

    Args:
        threshold: leave out documents with a lower score, in [0, 1].
        score_key: metadata key under which a document's score is stored, a float in [0, 1].
        first_stage_key: metadata key of the first stage's score (any scale, higher is better) to fuse with the model's
            score. Not used by default.
        first_stage_weight: weight of that score, see `Reranker.rank`, by default the model's own weight.
        instruction: what makes a document relevant, in words. Only for models trained with prompts.
    """

    threshold: float | None = Field(default=None, ge=0, le=1)
    score_key: str = "relevance_score"
    first_stage_key: str | None = None
    first_stage_weight: float | None = Field(default=None, ge=0)
    instruction: str | None = None

    def _reranked(self, documents: Sequence[Document], query: str, top_n: int | None) -> list[Document]:
        """Return copies of the best documents, best first, with scores. Without documents no model is loaded."""
        if not documents:
            return []
        ranking = Reranker(self._scorer()).rank(
            query,
            [document.page_content for document in documents],
            top_n=top_n,
            threshold=self.threshold,
            first_stage_scores=self._prior(documents),
            first_stage_weight=self.first_stage_weight,
            instruction=self.instruction,
        )
        return [_with(documents[ranked.index], self.score_key, ranked.score) for ranked in ranking]

    def _prior(self, documents: Sequence[Document]) -> list[Any] | None:
        if self.first_stage_key is None:
            return None
        for i, document in enumerate(documents):
            if self.first_stage_key not in document.metadata:
                raise InputError(
                    f"document {i}: expected the first stage's score in metadata[{self.first_stage_key!r}], got none; "
                    "put it there, or leave first_stage_key out"
                )
        return [document.metadata[self.first_stage_key] for document in documents]


class GLiClassRerank(RerankOptions, BaseDocumentCompressor):
    """Reranks documents by how well they answer a query, e.g. as ``base_compressor`` of a retriever.

    Returns copies, best first, with their scores. Equal scores keep their order. Scores and order are those of
    `Reranker`. The async method runs in a thread and does not block the event loop.

        GLiClassRerank(top_n=5).compress_documents(documents, "How do I copy a file?")

    Args:
        top_n: how many documents to return, all by default.
        model, scorer: see `ModelOptions`.
        threshold, score_key, first_stage_key, first_stage_weight, instruction: see `RerankOptions`.

    Raises:
        InputError: when documents are compressed: an empty query or document, a document without its first-stage score.
        NoPromptsError: likewise: an instruction for a model that was not trained with prompts.
    """

    model_config = ConfigDict(extra="forbid")

    top_n: int | None = Field(default=None, ge=1)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return copies of the best documents, best first, or an empty list for no documents."""
        return self._reranked(documents, query, self.top_n)


def _with(document: Document, key: str, score: float) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, key: score}})

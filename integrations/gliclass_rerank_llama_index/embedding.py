"""GLiClassEmbedding: vectors of nodes and queries, by the model that also reranks."""

from __future__ import annotations

import asyncio
from typing import Annotated

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, model_validator
from pydantic import SkipValidation
from pydantic.json_schema import SkipJsonSchema

from gliclass_rerank import Scorer
from gliclass_rerank.scorers.lazy import LazyScorer
from gliclass_rerank.scoring import embed
from gliclass_rerank_llama_index.model import lazy_scorer, with_shared_scorer


class GLiClassEmbedding(BaseEmbedding):
    """Vectors of texts for an index, by a model with independent labels (``info.embeds``).

    Queries and nodes are embedded alike. Its serialisation holds the model's name, without weights or a given scorer.

    Raises (when used):
        UnsupportedModelError: the model has no vectors.
        InputError: an empty text, or characters that no tokenizer reads. It is a ValueError.
    """

    model_name: str = Field(
        default="mini", description='"mini", a folder, a hub id or a service\'s URL; loaded on first use.'
    )
    scorer: Annotated[Scorer | None, SkipValidation, SkipJsonSchema()] = Field(
        default=None, exclude=True, repr=False, description="A loaded model instead; its name then counts."
    )
    _scorer: LazyScorer = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _share_the_scorer(cls, data: object) -> object:
        return with_shared_scorer(data, "model_name")

    def model_post_init(self, context: object, /) -> None:
        super().model_post_init(context)
        self._scorer = lazy_scorer(self.scorer, self.model_name)

    @classmethod
    def class_name(cls) -> str:
        return "GLiClassEmbedding"

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = embed(self._scorer, texts).tolist() if texts else []
        return vectors

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

"""GLiClassEmbeddings: LangChain's interface of vectors, by the model that also reranks."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict

from gliclass_rerank.scoring import embed
from gliclass_rerank_langchain.model import ModelOptions


class GLiClassEmbeddings(ModelOptions, Embeddings):
    """Vectors of texts for a vector store, by a model with independent labels (``info.embeds``).

    Queries and documents are embedded alike. The cosine of two vectors tells how alike two texts are.

    Args:
        model, scorer: see `ModelOptions`.

    Raises (when used):
        UnsupportedModelError: the model has no vectors.
        InputError: an empty text, or characters that no tokenizer reads.
    """

    model_config = ConfigDict(extra="forbid")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector of length 1 for each text. All are read as one batch."""
        return embed(self._scorer(), texts).tolist() if texts else []

    def embed_query(self, text: str) -> list[float]:
        """Return a vector of length 1."""
        return self.embed_documents([text])[0]

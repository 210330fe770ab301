"""GLiClassRetriever: any retriever, with its results reranked."""

from __future__ import annotations

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field

from gliclass_rerank import OptionError
from gliclass_rerank_langchain.rerank import RerankOptions

MMR_FETCH = 20  # default fetch_k of LangChain's vector stores in an MMR search


class GLiClassRetriever(RerankOptions, BaseRetriever):
    """Fetches ``fetch_k`` documents from a retriever and returns the best ``k``, with their scores.

        retriever = GLiClassRetriever(retriever=store.as_retriever(), fetch_k=50, k=5)
        retriever.invoke("How do I copy a file?")
        retriever.invoke("How do I copy a file?", k=10, fetch_k=100)   # for this call only

    Runs of the base retriever are children of this one's, so callbacks see both.

    Args:
        retriever: a retriever, or any Runnable from a query to documents. Excluded from serialisation.
        k: how many documents to return.
        fetch_k: how many to rerank, at least ``k``. None leaves the retriever as it is configured. It is set on a copy
            of retrievers with ``search_kwargs`` (vector stores) or a field ``k``. All results of other retrievers are
            reranked.
        model, scorer: see `ModelOptions`.
        threshold, score_key, first_stage_key, first_stage_weight, instruction: see `RerankOptions`.

    Raises:
        InputError: when invoked: an empty query or document, a document without its first-stage score.
        OptionError: when invoked: ``k`` or ``fetch_k`` below 1.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    retriever: RetrieverLike = Field(exclude=True)
    k: int = Field(default=4, ge=1)
    fetch_k: int | None = Field(default=20, ge=1)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        fetch_k: int | None = None,
    ) -> list[Document]:
        k = _at_least_1("k", self.k if k is None else k)
        documents = self._first_stage(k, fetch_k).invoke(query, {"callbacks": run_manager.get_child()})
        return self._reranked(documents, query, k)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        fetch_k: int | None = None,
    ) -> list[Document]:
        k = _at_least_1("k", self.k if k is None else k)
        documents = await self._first_stage(k, fetch_k).ainvoke(query, {"callbacks": run_manager.get_child()})
        return await run_in_executor(None, self._reranked, documents, query, k)

    def _first_stage(self, k: int, fetch_k: int | None) -> RetrieverLike:
        """Return the base retriever, or a copy of it that fetches as many documents as are reranked."""
        base, wanted = self.retriever, self.fetch_k if fetch_k is None else fetch_k
        if wanted is None or not isinstance(base, BaseRetriever):
            return base
        wanted = max(_at_least_1("fetch_k", wanted), k)
        changed: dict[str, object] = {}
        if isinstance(search := getattr(base, "search_kwargs", None), dict):
            # An MMR search returns at most as many documents as it chooses from.
            is_mmr = getattr(base, "search_type", None) == "mmr"
            pool = {"fetch_k": max(wanted, search.get("fetch_k", MMR_FETCH))} if is_mmr else {}
            changed["search_kwargs"] = {**search, "k": wanted, **pool}
        if "k" in type(base).model_fields:
            changed["k"] = wanted
        return base.model_copy(update=changed) if changed else base


def _at_least_1(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{name}: expected a number from 1 on, got {value!r:.60}")
    return value

"""LangChain's JinaRerank. Its address is a constant of its module, which users of another service set."""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

from langchain_community.document_compressors import jina_rerank
from langchain_core.documents import Document
from trial import Call, Client, Hit, conduct


def rank(call: Call) -> list[Hit]:
    jina_rerank.JINA_API_URL = f"{call.url}/v1/rerank"
    documents = [Document(text, metadata={"place": i}) for i, text in enumerate(call.documents)]
    reranker = jina_rerank.JinaRerank(jina_api_key=call.key, top_n=call.top_n)
    ranked = reranker.compress_documents(documents, call.query)
    return [Hit(one.metadata["place"], one.metadata["relevance_score"]) for one in ranked]


conduct(
    Client(
        "LangChain `JinaRerank`",
        ["langchain-community"],
        'jina_rerank.JINA_API_URL = URL + "/v1/rerank"',
        rank,
        wrong_key=RuntimeError,
        empty_query=RuntimeError,
        busy=RuntimeError,
    )
)

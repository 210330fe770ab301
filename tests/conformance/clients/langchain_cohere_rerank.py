"""langchain-cohere's CohereRerank; its cohere is older than cohere's newest."""

# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

from cohere.errors import UnauthorizedError, UnprocessableEntityError
from langchain_cohere import CohereRerank
from langchain_core.documents import Document
from trial import Call, Client, Hit, conduct


def rank(call: Call) -> list[Hit]:
    documents = [Document(text, metadata={"place": i}) for i, text in enumerate(call.documents)]
    reranker = CohereRerank(model="rerank-v3.5", cohere_api_key=call.key, base_url=call.url, top_n=call.top_n)
    ranked = reranker.compress_documents(documents, call.query)
    return [Hit(one.metadata["place"], one.metadata["relevance_score"]) for one in ranked]


conduct(
    Client(
        "LangChain `CohereRerank`",
        ["langchain-cohere", "cohere"],
        "CohereRerank(model=NAME, base_url=URL)",
        rank,
        wrong_key=UnauthorizedError,
        empty_query=UnprocessableEntityError,
    )
)
